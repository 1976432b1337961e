"""Greedy coverage and the radius of a purity."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import coverage

whole = arrays(np.float64, st.tuples(st.integers(3, 14), st.just(2)), elements=st.integers(-3, 3).map(float))
radii = st.sampled_from([0.5, 1.0, 2.0, 2**0.5, 5**0.5, 3.0, 100.0])  # distances of whole points among them


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(X=whole, n_labeled=st.integers(0, 2), radius=radii, b=st.integers(1, 12), block=st.sampled_from([1, 2**23]))
def test_follows_the_definition(dtype, X, n_labeled, radius, b, block):
    """Choices, gains and coverage are those of the stored graph, on distances equal to the radius, too."""
    X, labeled = X[: len(X) - n_labeled], X[len(X) - n_labeled :]
    b = min(b, len(X))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "BLOCK_PAIRS", block)
        rows, centers = (torch.from_numpy(part.astype(dtype)) for part in (X, labeled))
        picks = selection.greedy_cover(rows, b, radius, centers=centers, random_state=0)
    chosen, gains, share = oracle.cover(X, labeled, radius, b)
    assert picks.indices[: len(chosen)].tolist() == chosen
    assert picks.scores.tolist() == gains + [0] * (b - len(chosen))
    assert picks.info["coverage"] == pytest.approx(share)
    assert len(set(picks.indices.tolist())) == b


def test_follows_the_definition_on_the_sphere():
    """On 300 float32 rows of length one the choices are those of float64."""
    X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    picks = selection.greedy_cover(torch.from_numpy(X), 20, 0.8, centers=torch.from_numpy(X[:5]))
    assert (picks.indices.tolist(), picks.scores.tolist()) == oracle.cover(X, X[:5], 0.8, 20)[:2]


def test_gains_never_rise_and_what_is_left_is_by_seed():
    """Gains fall; after all is covered the rest comes by seed, distinct, and every row can come."""
    X = torch.zeros(6, 2)
    seen = set()
    for seed in range(30):
        picks = selection.greedy_cover(X, 3, 0.1, random_state=seed)
        assert (picks.indices[0], picks.scores.tolist()) == (0, [6.0, 0.0, 0.0])
        assert len(set(picks.indices.tolist())) == 3
        seen.update(picks.indices.tolist())
    assert seen == set(range(6))


def test_labelled_rows_cover_everything():
    """Where the labelled balls hold all rows, choices are by seed, and none is made twice."""
    X = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    picks = selection.greedy_cover(X, 9, 50.0, centers=X[:1], random_state=1)
    assert sorted(picks.indices.tolist()) == list(range(9))
    assert not picks.scores.any()


@given(X=whole, seed=st.integers(0, 9), purity=st.sampled_from([0.25, 0.5, 0.9, 0.95, 1.0]))
def test_the_radius_of_a_purity(X, seed, purity):
    """It is the largest distance at which enough open balls are pure: any larger one has too few."""
    groups = np.random.default_rng(seed).integers(2, size=len(X))
    if len(np.unique(groups)) == 2:
        radius = selection.purity_radius(torch.from_numpy(X), torch.from_numpy(groups), purity)
        assert radius == pytest.approx(oracle.purest_radius(X, groups, purity), abs=1e-9)


def test_one_group_is_pure_at_any_radius():
    """With a single group the radius is infinite, and one ball covers everything."""
    X = torch.randn(5, 2)
    radius = selection.purity_radius(X, torch.zeros(5, dtype=torch.int64))
    assert radius == float("inf")
    assert selection.greedy_cover(X, 1, radius).scores.tolist() == [5.0]


def test_bad_arguments_are_told():
    """Too large a batch, a negative radius and a purity above one are refused."""
    X = torch.zeros(3, 1)
    with pytest.raises(InvalidInputError, match="n_instances"):
        selection.greedy_cover(X, 4, 1.0)
    for radius in (-1.0, float("nan")):
        with pytest.raises(InvalidInputError, match="radius"):
            selection.greedy_cover(X, 1, radius)
    with pytest.raises(InvalidInputError, match="purity"):
        selection.purity_radius(X, torch.zeros(3), 1.5)
