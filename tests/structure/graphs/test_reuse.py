"""A remembered graph is given back for the same rows in any order, and for nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.structure import knn_transition
from modal_ntk.structure.graphs.reuse import GraphMemory, _row_keys


@given(seed=st.integers(0, 2**31), duplicates=st.integers(0, 3))
@settings(deadline=None)
def test_the_same_rows_in_any_order_find_their_places(seed, duplicates):
    """The reused matrix, put in the order at hand, is the one that would be built, to the last bit; equal rows too."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, 3))
    X = np.concatenate([X, X[:duplicates]])
    memory, order = GraphMemory(), rng.permutation(len(X))
    parts, graph_of = [X[order[:5]], X[order[5:]]], lambda rows: knn_transition(rows, 4)
    first = memory.get([X], 0, graph_of)
    again, anew = memory.get(parts, 0, lambda _: None), GraphMemory().get(parts, 0, graph_of)
    assert (first.reused, again.reused, anew.reused) == (False, True, False)
    assert sorted(again.nodes.tolist()) == list(range(len(X)))
    np.testing.assert_array_equal(X[np.argsort(first.nodes)][again.nodes], X[order])
    np.testing.assert_array_equal(again.nodes, anew.nodes)
    np.testing.assert_array_equal(again.transition.toarray(), anew.transition.toarray())
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
        memory.get([rows], options, lambda _: builds.append(1))
    assert len(builds) == 6
