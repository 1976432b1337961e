"""Diffusion and hop distances against dense float64 loops and against scikit-learn's label propagation."""

import warnings

import numpy as np
import oracles_diffusion as oracle
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelPropagation

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.structure import GrowingDiffusion, HopDistances, diffuse, knn_transition, n_diffusion_steps
from modal_ntk.structure.graphs.diffusion import as_torch
from modal_ntk.structure.graphs.hops import UNREACHED

MODES = ["one_vs_all", "multivariate"]


def problem(seed, n=25, n_classes=3, n_labeled=5, n_neighbors=4, dtype=np.float64):
    rng = np.random.default_rng(seed)
    M = knn_transition(rng.normal(size=(n, 3)).astype(dtype), n_neighbors)
    return M, rng.choice(n, n_labeled, replace=False), rng.integers(n_classes, size=n_labeled)


def test_the_worked_example():
    """min |chi| on six points, T=2, C=3, for one, two and three labels, as computed by hand."""
    M = knn_transition(oracle.X1, 2)
    near, far = 0.660411, 0.761292
    one = diffuse(M, [0], [0], 3, 2)
    np.testing.assert_allclose(np.abs(one).min(1), [1, near, near, 0, 0, 0], atol=1e-6)
    two = diffuse(M, [0, 3], [0, 1], 3, 2)
    np.testing.assert_allclose(np.abs(two).min(1), [1, near, near, 1, far, far], atol=1e-6)
    three = diffuse(M, [0, 3, 2], [0, 1, 2], 3, 2)
    np.testing.assert_allclose(three[1], [0, -1, 0], atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n_steps=st.integers(0, 6), n_labeled=st.integers(0, 8))
def test_values_are_those_of_the_dense_loop(mode, seed, n_steps, n_labeled):
    """For any graph, labels and steps, values agree with the float64 loop; float32 to rounding."""
    M, labeled, labels = problem(seed, n_labeled=n_labeled)
    expected = oracle.dense_diffusion(M.toarray(), labeled, labels, 3, n_steps, mode)
    np.testing.assert_allclose(diffuse(M, labeled, labels, 3, n_steps, mode), expected, atol=1e-12)
    single = diffuse(M.astype(np.float32), labeled, labels, 3, n_steps, mode)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.sampled_from([8, 60]),
    n_steps=st.integers(0, 5),
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    symmetrise=st.sampled_from([None, "max"]),
)
def test_growing_labels_have_the_values_of_the_dense_loop(mode, seed, n, n_steps, sizes, symmetrise):
    """Whatever labels come one call after the other, on a graph they reach in part or wholly, values are the loop's."""
    rng = np.random.default_rng(seed)
    M = knn_transition(rng.normal(size=(n, 2)), 3, symmetrise=symmetrise)
    order, labels = rng.permutation(n)[:8], rng.integers(4, size=8)
    growing, single = GrowingDiffusion(M, n_steps, mode), GrowingDiffusion(M.astype(np.float32), n_steps, mode)
    for known in np.minimum(np.cumsum(sizes), 8):
        expected = oracle.dense_diffusion(M.toarray(), order[:known], labels[:known], 4, n_steps, mode)
        np.testing.assert_allclose(growing(order[:known], labels[:known], 4), expected, atol=1e-12)
        found = single(order[:known], labels[:known], 4)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_growing_labels_that_soon_reach_nearly_all_have_the_values_of_the_dense_loop(mode):
    """Where two steps reach most of a close graph, later steps are those of the loop for every further label."""
    rng = np.random.default_rng(0)
    M = knn_transition(rng.normal(size=(60, 2)), 20, symmetrise="max")
    order, labels = rng.permutation(60)[:6], rng.integers(3, size=6)
    growing = GrowingDiffusion(M, 5, mode)
    for known in range(1, 7):
        expected = oracle.dense_diffusion(M.toarray(), order[:known], labels[:known], 3, 5, mode)
        np.testing.assert_allclose(growing(order[:known], labels[:known], 3), expected, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_labels_that_do_not_go_on_start_anew(mode):
    """Fewer labels, other labels for the same rows, and one more class are answered as if nothing came before."""
    M, labeled, labels = problem(1, n=40)
    growing = GrowingDiffusion(M, 4, mode)
    given = [(labeled, labels, 3), (labeled[:3], labels[:3], 3), (labeled[:3], (labels[:3] + 1) % 3, 3)]
    for rows, classes, n_classes in [*given, (labeled, labels, 4)]:
        expected = oracle.dense_diffusion(M.toarray(), rows, classes, n_classes, 4, mode)
        np.testing.assert_allclose(growing(rows, classes, n_classes), expected, atol=1e-12)


def test_what_is_returned_of_growing_labels_is_the_callers():
    """Writing into returned values changes no later ones."""
    M, labeled, labels = problem(2)
    growing = GrowingDiffusion(M, 3)
    growing(labeled[:4], labels[:4], 3)[:] = 7
    expected = oracle.dense_diffusion(M.toarray(), labeled, labels, 3, 3, "one_vs_all")
    np.testing.assert_allclose(growing(labeled, labels, 3), expected, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_gives_what_scipy_gives(mode, dtype):
    """The sparse torch route has the values, type and device of its matrix."""
    M, labeled, labels = problem(0, n=200, dtype=dtype)
    tensor = diffuse(as_torch(M, "cpu"), labeled, labels, 3, 5, mode)
    assert tensor.is_cpu
    assert tensor.numpy().dtype == dtype
    np.testing.assert_allclose(tensor.numpy(), diffuse(M, labeled, labels, 3, 5, mode), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n_steps=st.integers(0, 200), n_classes=st.integers(2, 6))
def test_rows_never_leave_the_interval_or_the_simplex(seed, n_steps, n_classes):
    """In float32, after many steps, chi is in [-1, 1] and probabilities are at least 0 and sum to one."""
    M, labeled, labels = problem(seed, n_classes=n_classes, dtype=np.float32)
    assert np.abs(diffuse(M, labeled, labels, n_classes, n_steps)).max() <= 1
    p = diffuse(M, labeled, labels, n_classes, n_steps, "multivariate")
    assert 0 <= p.min() <= p.max() <= 1
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n_steps=st.integers(0, 6))
def test_for_two_classes_the_views_coincide(seed, n_steps):
    """With C=2, chi = 2 p - 1 and the margin of p is |chi|."""
    M, labeled, labels = problem(seed, n_classes=2)
    chi = diffuse(M, labeled, labels, 2, n_steps)
    p = diffuse(M, labeled, labels, 2, n_steps, "multivariate")
    np.testing.assert_allclose(chi, 2 * p - 1, atol=1e-12)
    np.testing.assert_allclose(np.abs(p[:, 0] - p[:, 1]), np.abs(chi).min(axis=1), atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_unreached_rows_stay_exactly_where_they_started(n_classes):
    """Rounding never orders rows that no label reaches: their values are the same bits."""
    M, labeled, labels = problem(1, n=300, n_classes=n_classes, dtype=np.float32)
    far = HopDistances(M, labeled, max_hops=2).hops == UNREACHED
    assert 0 < far.sum() < 300
    assert (diffuse(M, labeled, labels, n_classes, 2)[far] == 0).all()
    p = diffuse(M, labeled, labels, n_classes, 2, "multivariate")[far]
    assert (p == np.float32(1 / n_classes)).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_classes", [2, 4])
def test_in_the_limit_it_is_label_propagation(seed, n_classes):
    """On a symmetric graph the converged diffusion is scikit-learn's LabelPropagation on the same weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 2))
    W = np.exp(-((X[:, None] - X[None]) ** 2).sum(2))
    y = np.full(60, -1)
    labeled = np.concatenate([np.arange(n_classes), rng.choice(np.arange(n_classes, 60), 6, replace=False)])
    y[labeled] = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=6)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        theirs = LabelPropagation(kernel=lambda A, B: W, max_iter=100_000, tol=1e-12).fit(X, y)
    M = W / W.sum(axis=1, keepdims=True)
    ours = diffuse(M, labeled, y[labeled], n_classes, 100_000, "multivariate", tol=1e-13)
    np.testing.assert_allclose(ours, theirs.label_distributions_, atol=1e-8)
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.transduction_)


def test_a_tolerance_stops_early_and_says_when_it_was_not_met():
    """With tol the result is converged to it; too few steps are reported."""
    M, labeled, labels = problem(2)
    converged = diffuse(M, labeled, labels, 3, 10_000, tol=1e-12)
    np.testing.assert_allclose(converged, diffuse(M, labeled, labels, 3, 2000), atol=1e-9)
    for matrix in (M, as_torch(M, "cpu")):
        with pytest.warns(ModalNTKWarning, match=r"more than tol=1e-12 after 2 steps"):
            diffuse(matrix, labeled, labels, 3, 2, tol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_permuted_rows_and_classes_permute_the_values(seed):
    """Diffusion knows no order of rows, of labels or of classes."""
    M, labeled, labels = problem(seed)
    values = diffuse(M, labeled, labels, 3, 4)
    order = np.random.default_rng(seed).permutation(25)
    new = np.argsort(order)
    permuted = diffuse(M[order][:, order], new[labeled][::-1], labels[::-1], 3, 4)
    np.testing.assert_allclose(permuted, values[order], atol=1e-12)
    np.testing.assert_allclose(diffuse(M, labeled, 2 - labels, 3, 4), values[:, ::-1], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_labeled=st.integers(0, 4), limit=st.integers(0, 6), density=st.floats(0.01, 0.1))
def test_hops_are_the_shortest_walks(seed, n_labeled, limit, density):
    """Distances are those of the adjacency's powers, cut at the limit, however labelled rows were added."""
    rng = np.random.default_rng(seed)
    M = sp.random(30, 30, density, format="csr", random_state=int(rng.integers(2**31)))
    labeled = rng.choice(30, n_labeled, replace=False)
    expected = oracle.dense_hops(M.toarray(), labeled)
    for max_hops in (None, limit):
        wanted = expected if max_hops is None else np.where(expected <= max_hops, expected, np.inf)
        got = HopDistances(M, labeled, max_hops=max_hops).hops
        np.testing.assert_array_equal(
            np.where(got == UNREACHED, np.inf, got), np.where(np.isinf(wanted), np.inf, wanted)
        )
        one_by_one = HopDistances(M, max_hops=max_hops)
        for row in labeled:
            one_by_one.add([row])
        np.testing.assert_array_equal(one_by_one.hops, got)


def test_the_default_number_of_steps_is_the_papers():
    """2,000 rows and K=10 give 4 steps, 10,000 give 5, 50,000 and K=20 give 4; K=1 counts as two."""
    assert [n_diffusion_steps(*case) for case in [(2000, 10), (10_000, 10), (50_000, 20), (7, 1), (1, 10)]] == [
        4, 5, 4, 3, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(3), [0], [0], 2, -1), "n_steps to be an integer of at least 0"),
        ((np.eye(3), [0], [0], 2, 1, "both"), "mode to be one of 'one_vs_all', 'multivariate'"),
        ((np.eye(3), [0], [2], 2, 1), "classes below n_classes=2, got class 2"),
        ((np.eye(3), [0, 0], [0, 1], 2, 1), "distinct rows in labeled"),
        ((np.eye(3), [3], [0], 2, 1), "below 3"),
        ((np.eye(3), [0, 1], [0], 2, 1), "2 values in labels"),
        ((np.ones((2, 3)), [0], [0], 2, 1), "a square transition matrix"),
    ],
)
def test_bad_arguments_are_explained(arguments, message):
    """Each bad argument is an error that says what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        diffuse(*arguments)
