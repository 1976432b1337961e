"""Rows that stand for the others."""

from itertools import combinations

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import medoids

whole = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-3, 3).map(float))
BOTH = [selection.k_medoids, selection.nearest_to_centers]


@settings(deadline=None)
@given(X=whole, b=st.integers(1, 6), seed=st.integers(0, 9), block=st.sampled_from([1, 2**22]))
def test_medoids_are_at_rest(X, b, seed, block):
    """The cost is that of the definition, and no medoid can be replaced by a row of its cluster for a lower one."""
    b = min(b, len(X))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medoids, "BLOCK_PAIRS", block)
        picks = selection.k_medoids(torch.from_numpy(X), b, random_state=seed)
    assert len(set(picks.indices.tolist())) == b
    assert picks.scores.sum() == len(X)
    assert picks.info["cost"] == pytest.approx(oracle.medoid_cost(X, picks.indices), abs=1e-9)
    gaps = oracle.distances(X, X[picks.indices])
    clear = np.sort(gaps, axis=1)
    clear = np.ones(len(X), bool) if b == 1 else clear[:, 1] - clear[:, 0] > 1e-9
    for i, medoid in enumerate(picks.indices):
        members = np.flatnonzero((gaps.argmin(axis=1) == i) & clear)
        if clear.all() and len(members):  # else ties decide who belongs to the cluster
            sums = oracle.distances(X[members], X[members]).sum(axis=1)
            now = oracle.distances(X[members], X[[medoid]]).sum()
            assert now <= sums.min() + 1e-4


def test_starts_help_and_reach_the_best():
    """More starts never cost more, and thirty find the best of all sets on a small example."""
    X = np.random.default_rng(1).normal(size=(14, 2))
    best = min(oracle.medoid_cost(X, some) for some in combinations(range(14), 3))
    costs = [selection.k_medoids(torch.from_numpy(X), 3, n_init=n, random_state=0).info["cost"] for n in (1, 5, 30)]
    assert costs[0] >= costs[1] >= costs[2]
    assert costs[2] == pytest.approx(best)


def test_nearest_to_the_centres_of_k_means():
    """From one seed: scikit-learn's clusters, of each the row nearest to its mean, the largest cluster first."""
    X = np.random.default_rng(0).normal(size=(80, 3))
    picks = selection.nearest_to_centers(torch.from_numpy(X), 7, random_state=4)
    seed = int(np.random.default_rng(4).integers(2**31))
    labels = KMeans(7, n_init=1, random_state=seed).fit(X).labels_
    expected = {}
    for c in range(7):
        members = np.flatnonzero(labels == c)
        expected[int(members[oracle.distances(X[members], [X[members].mean(0)])[:, 0].argmin()])] = len(members)
    assert dict(zip(picks.indices.tolist(), picks.scores.tolist(), strict=True)) == expected
    assert (np.diff(picks.scores) <= 0).all()


@pytest.mark.parametrize("choose", BOTH)
@settings(deadline=None, max_examples=50)
@given(X=whole, b=st.integers(1, 12), seed=st.integers(0, 5))
def test_copies_come_last(choose, X, b, seed):
    """Choices are distinct rows of the pool, and copies come only when every distinct row has been chosen."""
    b = min(b, len(X))
    picks = choose(torch.from_numpy(X), b, random_state=seed)
    assert len(set(picks.indices.tolist())) == b
    if choose is selection.nearest_to_centers:
        assert len(np.unique(X[picks.indices], axis=0)) == min(b, len(np.unique(X, axis=0)))


@pytest.mark.parametrize("choose", BOTH)
def test_bad_arguments_are_told(choose):
    """Too large a batch and no starts are refused."""
    with pytest.raises(InvalidInputError, match="n_instances"):
        choose(torch.zeros(3, 1), 4)
    with pytest.raises(InvalidInputError, match="n_init"):
        choose(torch.zeros(3, 1), 2, n_init=0)
