"""Typicality, and the choice cluster by cluster."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError

EXAMPLE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [4.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("distance", "epsilon", "expected"),
    [
        ("euclidean", 0.0, [1, 0.828427, 0.828427, 0.2]),
        ("squared", 1e-5, [0.99999, 0.666662, 0.666662, 0.04]),
    ],
)
def test_the_example(distance, epsilon, expected):
    """(0,0), (0,1), (1,0), (4,4) with two neighbours: the paper's values, and those of the authors' code."""
    values = selection.typicality(EXAMPLE, 2, distance=distance, epsilon=epsilon)
    np.testing.assert_allclose(values, expected, atol=5e-7)


def test_single_rows_and_copies_are_finite():
    """A single row has typicality zero; copies have the largest there is; neither is NaN or infinite."""
    assert selection.typicality(torch.ones(1, 2)).tolist() == [0.0]
    np.testing.assert_allclose(selection.typicality(torch.ones(4, 2)), 1e5, rtol=1e-6)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(2, 25),
    n_labeled=st.integers(0, 8),
    n_clusters=st.integers(1, 5),
    min_size=st.integers(0, 6),
    distance=st.sampled_from(["euclidean", "squared"]),
    neighbors=st.sampled_from(["remaining", "cluster"]),
)
def test_follows_the_definition(seed, n, n_labeled, n_clusters, min_size, distance, neighbors):
    """Order of clusters, rounds, small clusters and neighbours are those of the slow version, down to the last row."""
    rng = np.random.default_rng(seed)
    X, clusters = rng.normal(size=(n, 3)), rng.integers(n_clusters, size=n)
    n_labeled = min(n_labeled, n - 1)
    options = {"min_cluster_size": min_size, "n_neighbors": 3, "distance": distance, "neighbors": neighbors}
    picks = selection.select_typical(torch.from_numpy(X), clusters, n_labeled, n - n_labeled, **options)
    power = 2 if distance == "squared" else 1
    chosen, scores = oracle.typical(X, clusters, n_labeled, n - n_labeled, 3, min_size, power, neighbors)
    assert picks.indices.tolist() == chosen
    np.testing.assert_allclose(picks.scores, scores, rtol=1e-9)
    assert sorted(picks.indices.tolist()) == list(range(n - n_labeled))


def test_least_labelled_then_largest():
    """Of clusters with 1, 0, 0 labels and 5, 2, 3 rows the order is the third, the second, the first."""
    clusters = np.array([0, *[0] * 4, 1, 1, 2, 2, 2])
    X = torch.arange(10.0)[:, None]
    picks = selection.select_typical(X, clusters, 1, 3, min_cluster_size=0)
    assert clusters[1 + picks.indices].tolist() == [2, 1, 0]


def test_bad_arguments_are_told():
    """Wrong numbers and words are refused."""
    clusters = np.zeros(4, np.int64)
    with pytest.raises(InvalidInputError, match="n_instances"):
        selection.select_typical(EXAMPLE, clusters, 2, 3)
    with pytest.raises(InvalidInputError, match="4 values in clusters"):
        selection.select_typical(EXAMPLE, clusters[:3], 0, 1)
    for wrong in ({"distance": "cosine"}, {"neighbors": "all"}, {"n_neighbors": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            selection.select_typical(EXAMPLE, clusters, 0, 1, **wrong)
