"""k-means++ seeding, on rows and on outer products."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import DenseRows, OuterRows

whole = arrays(np.float64, st.tuples(st.integers(1, 9), st.just(2)), elements=st.integers(-2, 2).map(float))


@given(X=whole, b=st.integers(1, 9), first=st.sampled_from(["largest", "uniform"]), seed=st.integers(0, 9))
def test_scores_are_squared_distances_to_earlier_rows(X, b, first, seed):
    """Rows are distinct, copies too; scores are squared distances to the nearest earlier one; the first a length."""
    b = min(b, len(X))
    picks = selection.kmeans_plus_plus(DenseRows(torch.from_numpy(X)), b, first=first, random_state=seed)
    assert len(set(picks.indices.tolist())) == b
    assert picks.scores[0] == pytest.approx((X[picks.indices[0]] ** 2).sum())
    for i in range(1, b):
        assert picks.scores[i] == pytest.approx(oracle.squared_to_nearest(X, picks.indices[:i])[picks.indices[i]])


@given(X=whole, b=st.integers(1, 9), seed=st.integers(0, 9))
def test_a_copy_comes_only_when_all_else_is_chosen(X, b, seed):
    """As many distinct rows as there are come before any copy."""
    n_distinct = len(np.unique(X, axis=0))
    b = min(b, n_distinct)
    picks = selection.kmeans_plus_plus(DenseRows(torch.from_numpy(X)), b, random_state=seed)
    assert len(np.unique(X[picks.indices], axis=0)) == b


@pytest.mark.parametrize("make", [DenseRows, lambda X: OuterRows(torch.ones(len(X), 1, dtype=X.dtype), X)])
def test_chances_follow_squared_distances(make):
    """Over many seeds the second row has the chances of its squared distance (chi-square, fixed seeds)."""
    X = torch.tensor([[10.0], [9.0], [8.0], [8.0], [6.0]], dtype=torch.float64)
    second = [selection.kmeans_plus_plus(make(X), 2, random_state=s).indices[1] for s in range(1500)]
    counts, chances = np.bincount(second, minlength=5), np.array([0, 1, 4, 4, 16]) / 25
    assert counts[0] == 0
    assert chisquare(counts[1:], 1500 * chances[1:]).pvalue > 0.01


def test_the_first_row():
    """The longest by default, the lowest on ties; any row by chance where asked."""
    X = DenseRows(torch.tensor([[1.0], [-3.0], [3.0]]))
    assert selection.kmeans_plus_plus(X, 1, random_state=0).indices.tolist() == [1]
    first = [int(selection.kmeans_plus_plus(X, 1, first="uniform", random_state=s).indices[0]) for s in range(300)]
    assert chisquare(np.bincount(first, minlength=3)).pvalue > 0.01


@given(seed=st.integers(0, 50), c=st.integers(1, 4), d=st.integers(1, 6))
def test_outer_rows_are_the_formed_ones(seed, c, d):
    """Lengths and distances from the factors equal those of the products formed."""
    rng = np.random.default_rng(seed)
    a, h = rng.normal(size=(7, c)), rng.normal(size=(7, d))
    formed = torch.from_numpy(np.stack([np.outer(x, y).ravel() for x, y in zip(a, h, strict=True)]))
    factored = OuterRows(torch.from_numpy(a), torch.from_numpy(h))
    np.testing.assert_allclose(factored.squared_norms(), (formed**2).sum(1), rtol=1e-12)
    for row in range(7):
        expected = ((formed - formed[row]) ** 2).sum(1)
        np.testing.assert_allclose(factored.squared_to(row), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("c", "d"), [(10, 16), (10, 512), (1000, 2048)])
def test_copies_of_outer_rows_are_at_zero(c, d):
    """In float32 every copy is at distance zero exactly, and one that differs by 1e-4 is where it is."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, c, generator=generator).repeat(4, 1)
    h = (torch.randn(3, d, generator=generator) + 3).repeat(4, 1)
    h[11] *= 1.0001
    squared = OuterRows(a, h).squared_to(2)
    assert not squared[[2, 5, 8]].any()
    exact = float(a[2].double().square().sum() * (h[11].double() - h[2].double()).square().sum())
    assert float(squared[11]) == pytest.approx(exact, rel=1e-3)


def test_bad_arguments_are_told():
    """Too large a batch and an unknown first choice are refused."""
    X = DenseRows(torch.zeros(3, 1))
    with pytest.raises(InvalidInputError, match="n_instances"):
        selection.kmeans_plus_plus(X, 4)
    with pytest.raises(InvalidInputError, match="first"):
        selection.kmeans_plus_plus(X, 1, first="any")
