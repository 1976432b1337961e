"""Constrained k-means against its definition: what may not share a cluster does not, and the rest is k-means."""

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_clustering import blobs, broken_pairs, fewest_violations, greedy_cost, partition
from sklearn.cluster import KMeans

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.structure import cluster_pseudo_labels, constrained_kmeans
from modal_ntk.structure.constrained import _fill_empty

seeds = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n_clusters=st.integers(3, 9), n_labeled=st.integers(0, 12))
def test_cannot_link_holds_wherever_there_is_room(seed, n_clusters, n_labeled):
    """With as many clusters as classes no cluster holds two labels, every number is used, and inertia is as stated."""
    X = blobs(seed)
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(40)[:n_labeled], rng.choice(["x", "y", "z"], n_labeled)
    found = constrained_kmeans(X, n_clusters, labeled=rows, labels=labels, n_init=2, random_state=seed)
    assert found.n_violations == 0
    assert broken_pairs(found.labels[rows], labels) == 0
    assert sorted(set(found.labels.tolist())) == list(range(n_clusters))
    np.testing.assert_allclose(found.inertia, ((X - found.centers[found.labels]) ** 2).sum(), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n_labeled=st.integers(2, 12))
def test_must_link_puts_a_class_in_one_cluster(seed, n_labeled):
    """With must-link all rows of a class share a cluster, and no two classes do."""
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(40)[:n_labeled], rng.integers(3, size=n_labeled)
    options = {"labeled": rows, "labels": labels, "constraint": "must_link", "n_init": 2}
    found = constrained_kmeans(blobs(seed), 5, random_state=seed, **options)
    homes = [set(found.labels[rows[labels == c]].tolist()) for c in np.unique(labels)]
    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) == len(homes)
    assert found.n_violations == 0


def test_what_greedy_assignment_in_data_order_never_solves():
    """Two blobs, two clusters, both rows of class a and one of class b across them: every start is feasible."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(10, 2)), rng.normal(size=(10, 2)) + 10])
    for seed in range(50):
        found = constrained_kmeans(X, 2, labeled=[0, 10, 15], labels=["a", "a", "b"], n_init=1, random_state=seed)
        assert found.n_violations == 0
        assert broken_pairs(found.labels[[0, 10, 15]], ["a", "a", "b"]) == 0


def test_more_classes_than_clusters_are_counted_and_warned_about():
    """Three classes in two clusters cannot be kept apart: the least number of violations, and a warning."""
    with pytest.warns(ModalNTKWarning, match="1 of 3 labelled rows break the cannot_link constraint"):
        found = constrained_kmeans(blobs(0), 2, labeled=[0, 1, 2], labels=[0, 1, 2], random_state=0)
    assert found.n_violations == 1


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n_clusters=st.integers(1, 3), n_classes=st.integers(2, 4), n_labeled=st.integers(2, 6))
@pytest.mark.filterwarnings("ignore::modal_ntk.errors.ModalNTKWarning")
def test_no_assignment_at_all_breaks_fewer_constraints(seed, n_clusters, n_classes, n_labeled):
    """As few rows break constraints as in the best of all ways to put the labelled rows into clusters."""
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(40)[:n_labeled], rng.integers(n_classes, size=n_labeled)
    options = {"labeled": rows, "labels": labels, "n_init": 1, "random_state": seed}
    found = constrained_kmeans(blobs(seed), n_clusters, **options)
    assert found.n_violations == fewest_violations(labels, n_clusters)
    assert (found.n_violations == 0) == (broken_pairs(found.labels[rows], labels) == 0)


@pytest.mark.parametrize(("n_classes", "n_clusters", "n_labeled"), [(10, 10, 40), (20, 24, 80)])
def test_crowded_classes_always_find_room(n_classes, n_clusters, n_labeled):
    """Labels without any structure, hardly more clusters than classes: no order is feasible, and still none break."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    labels = rng.permutation(np.arange(n_labeled) % n_classes)
    options = {"labeled": np.arange(n_labeled), "labels": labels, "n_init": 1, "random_state": 0}
    found = constrained_kmeans(X, n_clusters, **options)
    assert found.n_violations == 0
    assert broken_pairs(found.labels[:n_labeled], labels) == 0


@pytest.mark.parametrize("seed", range(8))
def test_at_rest_every_row_is_where_the_definition_puts_it(seed):
    """Centres are means; unlabelled rows are at their nearest; labelled ones cost no more than naive COP-KMeans."""
    X = blobs(seed, n=60)
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(60)[:10], rng.integers(3, size=10)
    options = {"labeled": rows, "labels": labels, "tol": 0.0, "n_init": 1, "random_state": seed}
    found = constrained_kmeans(X, 6, **options)
    squared = ((X[:, None] - found.centers) ** 2).sum(-1)
    own = squared[np.arange(60), found.labels]
    for c in range(6):
        np.testing.assert_allclose(found.centers[c], X[found.labels == c].mean(0))
    free = np.setdiff1d(np.arange(60), rows)
    np.testing.assert_allclose(own[free], squared[free].min(1))
    assert own[rows].sum() <= greedy_cost(squared[rows].tolist(), labels.tolist()) * (1 + 1e-12)
    assert (own[rows] > squared[rows].min(1) + 1e-9).any() == (broken_pairs(squared[rows].argmin(1), labels) > 0)


def test_iterations_come_to_rest():
    """Labels without structure do not keep the centres moving: a hundred iterations more change nothing."""
    rng = np.random.default_rng(1)
    X, rows, labels = rng.normal(size=(300, 4)), np.arange(100), rng.integers(8, size=100)
    options = {"labeled": rows, "labels": labels, "tol": 0.0, "n_init": 1, "random_state": 0}
    first, more = (constrained_kmeans(X, 12, max_iter=n, **options) for n in (200, 300))
    np.testing.assert_array_equal(first.labels, more.labels)


def test_the_start_of_least_inertia_is_kept():
    """More starts, all feasible, never end with a larger inertia, and sometimes with a smaller one."""
    X = blobs(2)
    options = {"labeled": [0, 1, 2], "labels": [0, 1, 2], "random_state": 0}
    several = [constrained_kmeans(X, 7, n_init=n, **options).inertia for n in (1, 3, 10)]
    assert several[0] >= several[1] >= several[2]
    assert several[0] > several[2]


def test_order_of_unlabelled_rows_does_not_matter():
    """Rows far enough apart are clustered alike in whatever order they come."""
    rng = np.random.default_rng(0)
    X = np.repeat(np.eye(4) * 50, 10, axis=0) + rng.normal(size=(40, 4))
    order = np.concatenate([[0, 15], rng.permutation(np.setdiff1d(np.arange(40), [0, 15]))])
    options = {"labels": ["a", "b"], "n_init": 5, "random_state": 0}
    plain = constrained_kmeans(X, 4, labeled=[0, 15], **options)
    moved = constrained_kmeans(X[order], 4, labeled=[0, 1], **options)
    assert partition(moved.labels) == {
        frozenset(np.flatnonzero(np.isin(order, list(m)))) for m in partition(plain.labels)
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(dtype):
    """Centres have the precision of the rows, with and without labels, and integers become float64."""
    X = blobs(0).astype(dtype)
    known = {"labeled": [0, 1], "labels": [0, 1]}
    for options in ({}, known):
        assert constrained_kmeans(X, 3, random_state=0, **options).centers.dtype == dtype
    assert cluster_pseudo_labels(X, 6, n_start=3, random_state=0, **known).centers.dtype == dtype
    assert constrained_kmeans(X.astype(int), 3, random_state=0, **known).centers.dtype == np.float64


@pytest.mark.parametrize("seed", range(6))
def test_linked_classes_leave_the_other_clusters_to_other_rows(seed):
    """Two linked classes hold two clusters; three more are filled by the rows without label, none stays empty."""
    X = blobs(seed)
    options = {"labels": np.arange(36) % 2, "constraint": "must_link", "n_init": 1, "random_state": seed}
    found = constrained_kmeans(X, 5, labeled=np.arange(36), **options)
    assert sorted(set(found.labels.tolist())) == [0, 1, 2, 3, 4]
    assert found.n_violations == 0


def test_linked_classes_alone_are_the_clusters():
    """All rows labelled and linked: the classes, whatever number was asked for, with their means as centres."""
    X, labels = blobs(0), np.arange(40) % 3
    options = {"labels": labels, "constraint": "must_link", "random_state": 0}
    found = constrained_kmeans(X, 6, labeled=np.arange(40), **options)
    assert partition(found.labels) == partition(labels)
    for c in range(3):
        np.testing.assert_allclose(found.centers[c], X[found.labels == c].mean(0))
    assert found.n_violations == 0


def test_signed_zeros_are_one_row():
    """Zero and minus zero are not distinct rows."""
    X = np.array([[0.0], [-0.0], [1.0]])
    found = constrained_kmeans(X, 3, labeled=[2], labels=["a"], constraint="must_link", random_state=0)
    assert len(found.centers) == 2


def test_an_empty_cluster_takes_no_clusters_last_row():
    """The farthest row that is not alone fills the empty cluster, even if a lonely one is farther from its centre."""
    assigned, distances = np.array([0, 1, 1]), np.array([5.0, 1.0, 0.0])
    _fill_empty(assigned, distances, 3)
    assert assigned.tolist() == [0, 2, 1]


def test_all_rows_labelled_still_fills_every_cluster():
    """Where every row has a label, labelled rows fill the clusters nobody is nearest to."""
    X = np.concatenate([np.zeros((19, 2)), np.ones((19, 2)), [[90.0, 0.0], [0.0, 90.0]]])
    labels = np.repeat([0, 1], 20)
    found = constrained_kmeans(X, 4, labeled=np.arange(40), labels=labels, random_state=0)
    assert sorted(set(found.labels.tolist())) == [0, 1, 2, 3]
    assert found.n_violations == 0


@pytest.mark.parametrize("options", [{}, {"constraint": "none", "labeled": [0, 1], "labels": [0, 1]}])
def test_without_constraints_it_is_scikit_learns_kmeans(options):
    """No labels, or no constraint, is plain k-means: the same partition and inertia as scikit-learn's."""
    X = blobs(1)
    found = constrained_kmeans(X, 3, random_state=0, **options)
    plain = KMeans(3, n_init=10, random_state=0).fit(X)
    assert partition(found.labels) == partition(plain.labels_)
    np.testing.assert_allclose(found.inertia, plain.inertia_)


def test_one_label_constrains_nothing():
    """Labels of a single class give the partition of plain k-means."""
    X = blobs(1)
    found = constrained_kmeans(X, 3, labeled=[0, 5], labels=[7, 7], random_state=0)
    assert partition(found.labels) == partition(constrained_kmeans(X, 3, random_state=0).labels)


def test_fewer_distinct_rows_than_clusters():
    """There are never more clusters than distinct rows, and none is empty."""
    X = np.repeat(np.arange(4.0)[:, None], 6, axis=0)
    found = constrained_kmeans(X, 10, labeled=[0, 6], labels=[0, 1], random_state=0)
    assert sorted(set(found.labels.tolist())) == [0, 1, 2, 3]


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_seed_decides_and_nothing_is_touched(seed):
    """The same seed gives the same clusters; input and global generators are unchanged."""
    X = blobs(seed)
    copy = X.copy()
    with zoo.generators_untouched():
        first, second = (
            constrained_kmeans(X, 4, labeled=[0, 1, 2], labels=[0, 1, 0], n_init=2, random_state=seed) for _ in range(2)
        )
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(X, copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "n_clusters to be an integer of at least 1, got 0"),
        ({"constraint": "linked"}, "constraint to be one of"),
        ({"labeled": [99], "labels": [0]}, "labeled of at least 0 and below 40"),
        ({"labeled": [1, 2], "labels": [0]}, "2 labels, one for each labelled sample, got 1 labels"),
    ],
)
def test_bad_arguments_are_named(options, message):
    """Each wrong argument is an error with what was expected and got."""
    with pytest.raises(InvalidInputError, match=message):
        constrained_kmeans(blobs(0), **{"n_clusters": 3, **options})
