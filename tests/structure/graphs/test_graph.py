"""Neighbour graphs against a dense float64 search."""

import sys
import types

import numpy as np
import oracles_diffusion as oracle
import pytest
import scipy.sparse as sp
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError, MissingExtraError, ModalNTKWarning
from modal_ntk.structure import affinity_transition, knn_transition, nearest_neighbors
from modal_ntk.structure.graphs import graph


def points(seed, n=30, d=4, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def test_the_worked_example():
    """Six points on a line with K=2 have the matrix computed by hand."""
    M = knn_transition(oracle.X1, 2).toarray()
    rows = {0: {1: 0.679179, 2: 0.320821}, 1: {0: 0.5, 2: 0.5}, 2: {0: 0.320821, 1: 0.679179}}
    rows |= {3: {4: 0.698465, 5: 0.301535}, 4: {3: 0.635424, 5: 0.364576}, 5: {3: 0.345247, 4: 0.654753}}
    expected = np.zeros((6, 6))
    for i, row in rows.items():
        for j, weight in row.items():
            expected[i, j] = weight
    np.testing.assert_allclose(M, expected, atol=1e-6)


@pytest.mark.parametrize("symmetrise", [None, "max", "mean"])
@pytest.mark.parametrize("d", [3, 20], ids=["tree", "brute force"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), n_neighbors=st.integers(1, 12))
def test_transition_matrix_is_the_dense_one(symmetrise, d, seed, n_neighbors):
    """For random rows, any K and symmetrisation, entries agree with equations 1 and 2 in float64."""
    X = points(seed, d=d)
    expected = oracle.dense_transition(X, n_neighbors, symmetrise=symmetrise)
    np.testing.assert_allclose(knn_transition(X, n_neighbors, symmetrise=symmetrise).toarray(), expected, atol=1e-12)
    single = knn_transition(X.astype(np.float32), n_neighbors, symmetrise=symmetrise)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.toarray(), expected, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 7.0, 1e4]), shift=st.sampled_from([0.0, 50.0]))
def test_scaling_moving_and_permuting_rows_changes_nothing_but_their_order(seed, scale, shift):
    """M depends on ratios of distances only, and follows a permutation of rows."""
    X = points(seed)
    order = np.random.default_rng(seed).permutation(len(X))
    M = knn_transition(X, 5).toarray()
    np.testing.assert_allclose(knn_transition(scale * X + shift, 5).toarray(), M, atol=1e-6)
    np.testing.assert_allclose(knn_transition(X[order], 5).toarray(), M[np.ix_(order, order)], atol=1e-12)


def test_similarity_may_be_constant_or_a_function():
    """A constant gives 1/K; a function is given the negative distances over the row's largest."""
    X = points(0)
    np.testing.assert_allclose(knn_transition(X, 4, similarity="constant").data, 0.25)
    halved = knn_transition(X, 4, similarity=lambda ratio: np.exp(ratio / 2)).toarray()
    np.testing.assert_allclose(halved, oracle.dense_transition(X, 4, similarity=lambda r: np.exp(r / 2)), atol=1e-12)


def test_self_loops_weigh_as_distance_zero():
    """With self loops the diagonal holds exp(0)=1 before normalisation."""
    M = knn_transition(oracle.X1, 2, self_loops=True).toarray()
    weights = np.array([1.0, np.exp(-0.25), np.exp(-1)])
    np.testing.assert_allclose(M[0, :3], weights / weights.sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [3, 20])
def test_equal_rows_have_weights_all_one(dtype, d):
    """Where all K neighbours are equal to the row sigma is zero and the weights are equal, no row its own."""
    X = np.repeat(points(1, n=3, d=d, dtype=dtype) + 1000, 6, axis=0)
    M = knn_transition(X, 4)
    assert (M.diagonal() == 0).all()
    np.testing.assert_allclose(M.data, 0.25)
    np.testing.assert_array_equal(M.nonzero()[0] // 6, M.nonzero()[1] // 6)


def test_huge_numbers_do_not_overflow():
    """Squares of float32 coordinates beyond its range still give finite weights."""
    M = knn_transition(points(2, dtype=np.float32) * np.float32(1e25), 3, method="exact")
    assert np.isfinite(M.data).all()


class Searches:
    """In place of pynndescent, as which it lists most rows as their own nearest neighbour, but not all."""

    seeds = []

    def __init__(self, X, n_neighbors, random_state, n_jobs):
        Searches.seeds.append(random_state)
        order = ((X[:, None] - X[None]) ** 2).sum(2).argsort(1, kind="stable")
        order[::7] = np.roll(order[::7], -1, axis=1)
        self.neighbor_graph = [order[:, :n_neighbors]]


def test_approximate_neighbours_are_those_found_without_the_row_itself(monkeypatch):
    """Of what the search lists no row is its own neighbour, the others are as many as asked, the seed reaches it."""
    monkeypatch.setitem(sys.modules, "pynndescent", types.SimpleNamespace(NNDescent=Searches))
    X = points(3, n=50, d=8, dtype=np.float32)
    exact, distances = nearest_neighbors(X, 10, method="exact")
    for seed in (0, 0, 1):
        with zoo.generators_untouched():
            found, squared = nearest_neighbors(X, 10, method="approximate", random_state=seed)
        np.testing.assert_array_equal(found, exact)
        np.testing.assert_allclose(squared, distances, rtol=1e-4)
    assert Searches.seeds[-3] == Searches.seeds[-2] != Searches.seeds[-1]


@pytest.mark.slow
def test_approximate_neighbours_are_reproducible_and_mostly_right():
    """pynndescent finds over 95 % of the true neighbours, the same for one seed, and no row its own."""
    pytest.importorskip("pynndescent")
    X = points(3, n=2000, d=8, dtype=np.float32)
    exact, _ = nearest_neighbors(X, 10, method="exact")
    with zoo.generators_untouched():
        found, squared = nearest_neighbors(X, 10, method="approximate", random_state=0)
    again, _ = nearest_neighbors(X, 10, method="approximate", random_state=0)
    np.testing.assert_array_equal(found, again)
    assert (found != np.arange(2000)[:, None]).all()
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]) > 0.95
    np.testing.assert_allclose(squared[:, 0], ((X - X[found[:, 0]]) ** 2).sum(1), rtol=1e-4)


def test_auto_is_exact_up_to_the_threshold(monkeypatch):
    """Above the threshold "auto" searches approximately; without pynndescent exactly, with a warning."""
    monkeypatch.setattr(graph, "APPROXIMATE_ABOVE", 10)
    assert graph._search("auto", 10) == "exact"
    monkeypatch.setitem(sys.modules, "pynndescent", object())
    assert graph._search("auto", 11) == "approximate"
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    assert graph._search("exact", 11) == "exact"
    with pytest.warns(ModalNTKWarning, match=r"11 rows are searched exactly.*pip install .*\[ann\]\""):
        assert graph._search("auto", 11) == "exact"
    with pytest.raises(MissingExtraError, match="needs pynndescent, which is not installed"):
        graph._search("approximate", 5)


def test_an_affinity_is_normalised_and_kept_as_it_was():
    """Rows of any non-negative sparse or dense matrix sum to one; a row without edges keeps to itself."""
    affinity = sp.random(40, 40, 0.1, format="lil", random_state=0)
    affinity[3] = 0
    affinity = affinity.tocsr()
    before = affinity.copy()
    M = affinity_transition(affinity)
    assert abs(affinity - before).max() == 0
    np.testing.assert_allclose(M.sum(axis=1), 1)
    np.testing.assert_array_equal(M[3].toarray()[0], np.eye(40)[3])
    np.testing.assert_allclose(affinity_transition(affinity.toarray()).toarray(), M.toarray())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_transition(points(0, n=5), 5), "n_neighbors below the number of rows, 5, got 5"),
        (lambda: knn_transition(points(0), 0), "n_neighbors to be an integer of at least 1"),
        (lambda: knn_transition(np.zeros(5), 1), "X to be a matrix of numbers"),
        (lambda: knn_transition([["a"], ["b"]], 1), "X to be a matrix of numbers"),
        (lambda: knn_transition(np.full((5, 2), np.nan), 1), "finite values in X"),
        (lambda: knn_transition(points(0), 2, similarity="gauss"), "similarity to be one of 'exp', 'constant'"),
        (lambda: knn_transition(points(0), 2, symmetrise="min"), "symmetrise to be one of"),
        (lambda: knn_transition(points(0), 2, method="fast"), "method to be one of"),
        (lambda: knn_transition(points(0), 2, similarity=np.mean), "similarity to keep the shape"),
        (lambda: knn_transition(points(0), 2, similarity=lambda r: r - 1), "finite and at least zero"),
        (lambda: affinity_transition(np.ones((2, 3))), "a square affinity matrix"),
        (lambda: affinity_transition(-np.eye(2)), "finite and at least zero"),
        (lambda: affinity_transition(np.array([[0, np.inf], [1, 0]])), "finite and at least zero"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    """Each bad argument is an error that says what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        call()
