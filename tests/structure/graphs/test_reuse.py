"""A remembered graph is given back for the same rows in any order, and for nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.structure import knn_transition
from modal_ntk.structure.graphs.reuse import GraphMemory, _row_keys


@given(seed=st.integers(0, 2**31), duplicates=st.integers(0, 3))
@settings(deadline=None)
def test_the_same_rows_in_any_order_find_their_places(seed, duplicates):
    """The reused matrix, put in the order at hand, is the one that would be built; equal rows included."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, 3))
    X = np.concatenate([X, X[:duplicates]])
    memory, order = GraphMemory(), rng.permutation(len(X))
    first = memory.get([X], 0, lambda: knn_transition(X, 4))
    again = memory.get([X[order[:5]], X[order[5:]]], 0, lambda: None)
    assert not first.reused
    assert again.reused
    assert sorted(again.nodes.tolist()) == list(range(len(X)))
    np.testing.assert_array_equal(X[again.nodes], X[order])
    if not duplicates:
        placed = again.transition.toarray()[np.ix_(again.nodes, again.nodes)]
        np.testing.assert_allclose(placed, knn_transition(X[order], 4).toarray(), atol=1e-12)


def test_different_rows_have_different_keys():
    """Rows that differ in one bit, in the order of their numbers, or in signs of zero are told apart."""
    X = np.random.default_rng(0).integers(0, 3, size=(50_000, 12)).astype(np.float32)
    X[:100] *= -1
    assert len(np.unique(_row_keys(X))) == len(np.unique(X.view(np.uint32), axis=0))


def test_other_rows_or_settings_build_anew():
    """One changed number, one row less, another type or another setting is another graph."""
    X = np.random.default_rng(0).normal(size=(10, 2))
    changed = X.copy()
    changed[3, 1] += 1e-12
    memory, builds = GraphMemory(), []
    for rows, options in [(X, 1), (X, 1), (changed, 1), (X[:9], 1), (X, 1), (X, 2), (X.astype(np.float32), 2)]:
        memory.get([rows], options, lambda: builds.append(1))
    assert len(builds) == 6
