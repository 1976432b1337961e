"""Nearest rows."""

from pathlib import Path

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modal_ntk import structure
from modal_ntk.bench.loop.memory import PeakMemory
from modal_ntk.errors import InvalidInputError
from modal_ntk.structure.graphs import neighbors

rows = arrays(np.float64, st.tuples(st.integers(3, 10), st.just(3)), elements=st.integers(-4, 4).map(float))


@given(X=rows, Y=rows, k=st.integers(1, 3), block=st.sampled_from([1, 16, 2**24]))
def test_distances_are_the_smallest(X, Y, k, block):
    """The k distances are the k smallest of all, in order, and belong to the rows named; blocks do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK_PAIRS", block)
        found, indices = structure.nearest_rows(torch.from_numpy(X), torch.from_numpy(Y), k)
    every = oracle.distances(X, Y)
    np.testing.assert_allclose(found, np.sort(every, axis=1)[:, :k], atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(every, indices.numpy(), axis=1), found, atol=1e-12)


@given(X=rows)
def test_a_row_is_not_its_own_neighbour(X):
    """Among themselves, the nearest other row: a copy counts, the row itself does not."""
    found, indices = structure.nearest_rows(torch.from_numpy(X))
    every = oracle.distances(X, X)
    np.fill_diagonal(every, np.inf)
    np.testing.assert_allclose(found[:, 0], every.min(axis=1), atol=1e-12)
    assert (indices[:, 0].numpy() != np.arange(len(X))).all()


@given(X=rows, seed=st.integers(0, 5), n_groups=st.integers(1, 4), block=st.sampled_from([1, 8, 2**22]))
def test_groups_look_outside_themselves(X, seed, n_groups, block):
    """With groups, the distance to the nearest row of another group; infinity where there is no other."""
    groups = np.random.default_rng(seed).integers(n_groups, size=len(X)) * 3
    every = np.where(groups[:, None] == groups, np.inf, oracle.distances(X, X))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK_PAIRS", block)
        found = structure.distance_to_other_groups(torch.from_numpy(X), torch.from_numpy(groups))
    np.testing.assert_allclose(found, every.min(axis=1), atol=1e-12)


def test_copies_far_from_the_origin_are_at_distance_zero():
    """float32 rows at 10,000 with spread 1: copies are found, exactly at zero."""
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)) + 1e4
    found, indices = structure.nearest_rows(X, X)
    assert torch.equal(indices[:, 0], torch.arange(40))
    assert not found.any()


def test_too_many_neighbours_are_refused():
    """More neighbours than other rows are an error, which says how many there are."""
    with pytest.raises(InvalidInputError, match="at most 2"):
        structure.nearest_rows(torch.zeros(3, 1), n_neighbors=3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a stretch of work")
def test_memory_does_not_grow_with_the_number_of_blocks():
    """Beyond rows and results some blocks are held, however many there are, and no holes between them."""
    X, Y = torch.randn(400_000, 64), torch.randn(500, 64)
    neighbors.nearest_rows(X[:20_000], Y)
    peak = PeakMemory()
    before = peak.peak().host
    neighbors.nearest_rows(X, Y)
    assert peak.peak().host - before < 120 * 2**20
