"""Constrained clusters and pseudo-labels against their definitions."""

from collections import Counter

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_clustering import broken_pairs, fewest_violations, greedy_cost
from sklearn.cluster import KMeans

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.structure import (
    cluster_pseudo_labels,
    confusing_counts,
    constrained_kmeans,
    n_pseudo_clusters,
    split_clusters,
)
from modal_ntk.structure.constrained import _fill_empty

seeds = st.integers(0, 10**6)


def blobs(seed, n=40, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4 * rng.integers(3, size=(n, 1))


def partition(clusters):
    return {frozenset(np.flatnonzero(clusters == c).tolist()) for c in np.unique(clusters)}


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


@settings(max_examples=40, deadline=None)
@given(seed=seeds, k=st.integers(1, 6))
def test_confusing_is_size_minus_the_largest_count(seed, k):
    """Counted by hand, cluster by cluster."""
    rng = np.random.default_rng(seed)
    clusters, predicted = np.append(rng.integers(k, size=29), k - 1), rng.integers(4, size=30)
    by_hand = [
        int((clusters == c).sum()) - max(Counter(predicted[clusters == c].tolist()).values(), default=0)
        for c in range(k)
    ]
    assert confusing_counts(clusters, predicted).tolist() == by_hand


@settings(max_examples=25, deadline=None)
@given(seed=seeds, n_clusters=st.integers(3, 12))
def test_splitting_refines_and_reaches_the_number(seed, n_clusters):
    """Every new cluster lies inside one old one, all numbers are used, and each step split the most confusing."""
    X = blobs(seed)
    rng = np.random.default_rng(seed)
    before, predicted = KMeans(3, n_init=1, random_state=0).fit_predict(X), rng.integers(3, size=40)
    after = split_clusters(X, before, predicted, n_clusters, random_state=seed)
    assert sorted(set(after.tolist())) == list(range(n_clusters))
    for members in partition(after):
        assert len(set(before[list(members)].tolist())) == 1
    if n_clusters > 3:
        once = split_clusters(X, before, predicted, 4, random_state=seed)
        changed = set(before[once == 3].tolist())
        counts = confusing_counts(before, predicted)
        sizes = np.bincount(before)
        assert changed == {int(np.argmax(counts if counts.max() else sizes))}


def test_splits_stop_where_nothing_can_be_split():
    """Clusters of equal rows are never split, nor below the least size; fewer clusters come back."""
    X = np.repeat([[0.0], [1.0], [5.0]], 4, axis=0)
    clusters = np.repeat([0, 0, 1], 4)
    assert len(set(split_clusters(X, clusters, None, 10, random_state=0).tolist())) == 3
    assert len(set(split_clusters(X, clusters, None, 10, min_cluster_size=5, random_state=0).tolist())) == 2


@pytest.mark.parametrize("seed", range(2))
def test_every_step_splits_the_most_confusing(seed):
    """At each step of the way the cluster with most confusing rows is split, the largest once none has any."""
    X, predicted = blobs(seed), np.arange(40) // 14
    before = np.arange(40) % 2
    for n in range(2, 25):
        after = split_clusters(X, np.arange(40) % 2, predicted, n + 1, n_init=1, random_state=seed)
        counts, sizes = confusing_counts(before, predicted), np.bincount(before)
        chosen = int(np.argmax(counts if counts.max() else sizes))
        assert set(before[after == n].tolist()) == {chosen}
        assert (after[after != n] == before[after != n]).all()
        before = after


def test_a_split_too_uneven_is_passed_over():
    """The most confusing cluster stays whole if one side would be too small, and the next one is split."""
    X = np.array([[0.0], [0.1], [0.2], [99.0], [200.0], [200.1], [300.0], [300.1]])
    clusters, predicted = np.repeat([0, 1], 4), ["a", "b", "c", "c", "a", "a", "a", "b"]
    assert confusing_counts(clusters, predicted).tolist() == [2, 1]
    for size, expected in ((1, [0, 0, 0, 2, 1, 1, 1, 1]), (2, [0, 0, 0, 0, 1, 1, 2, 2])):
        found = split_clusters(X, clusters, predicted, 3, min_cluster_size=size, random_state=0)
        assert found.tolist() == expected


def test_rows_equal_up_to_rounding_are_not_split():
    """Multiples of one row, normalised, are one point: no warning of scikit-learn's, and no cluster of rounding."""
    X = np.outer(np.linspace(0.1, 9, 30), [1.0, 3.0, 7.0])
    both = np.concatenate([X, X[:, ::-1]])
    known = {"labeled": [0, 30], "labels": ["a", "b"]}
    assert len(cluster_pseudo_labels(both, 10, n_start=2, random_state=0, **known).centers) == 2


def test_without_labels_the_number_is_reached_by_k_means_alone():
    """No labels: n_start and predictions do not count, as in the paper's first round."""
    X = blobs(5)
    plain = constrained_kmeans(X, 6, random_state=0)
    found = [
        cluster_pseudo_labels(X, 6, n_start=n, predicted=np.arange(40) % 3, normalise=False, random_state=0)
        for n in (None, 2)
    ]
    assert partition(found[0].labels) == partition(found[1].labels)
    assert len(found[0].centers) == len(plain.centers)


def test_number_of_pseudo_labels():
    """b0=20 and C_max=100: totals 20, 40, 60, 100, 200, 300 use 20, 20, 30, 50, 100, 100."""
    rounds = [(0, 20), (20, 20), (40, 20), (80, 20), (100, 100), (200, 100)]
    assert [n_pseudo_clusters(known, b, 100) for known, b in rounds] == [20, 20, 30, 50, 100, 100]


def test_pseudo_labels_start_constrained_and_end_split():
    """The start has n_start clusters that respect the labels; splitting refines it to n_clusters."""
    X = blobs(3)
    options = {"labeled": [0, 1, 2, 3], "labels": [0, 1, 0, 1], "random_state": 0, "normalise": False}
    start = cluster_pseudo_labels(X, 4, **options)
    final = cluster_pseudo_labels(X, 9, n_start=4, predicted=np.zeros(40, int), **options)
    assert len(set(final.labels.tolist())) == 9
    assert broken_pairs(final.labels[:4], [0, 1, 0, 1]) == 0
    for members in partition(final.labels):
        assert len(set(start.labels[list(members)].tolist())) == 1
    for c in range(9):
        np.testing.assert_allclose(final.centers[c], X[final.labels == c].mean(0))


def test_normalising_makes_length_irrelevant():
    """Scaling rows leaves the pseudo-labels as they are, unless asked not to normalise."""
    X = np.abs(blobs(4)) + 0.1
    scaled = X * np.linspace(1, 50, 40)[:, None]
    same = [partition(cluster_pseudo_labels(x, 5, random_state=0).labels) for x in (X, scaled)]
    assert same[0] == same[1]
    other = [partition(cluster_pseudo_labels(x, 5, normalise=False, random_state=0).labels) for x in (X, scaled)]
    assert other[0] != other[1]


def test_splitting_and_pseudo_labels_touch_nothing():
    """Inputs and global generators stay as they are, and a seed decides."""
    X = blobs(0)
    clusters = KMeans(3, n_init=1, random_state=0).fit_predict(X).astype(np.int64)
    predicted = np.arange(40) % 3
    copies = [array.copy() for array in (X, clusters, predicted)]
    with zoo.generators_untouched():
        split = [split_clusters(X, clusters, predicted, 7, random_state=3).tolist() for _ in range(2)]
        whole = [
            cluster_pseudo_labels(
                X, 7, n_start=3, labeled=[0, 1], labels=[0, 1], predicted=predicted, random_state=3
            ).labels.tolist()
            for _ in range(2)
        ]
    assert split[0] == split[1]
    assert whole[0] == whole[1]
    for array, copy in zip((X, clusters, predicted), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constrained_kmeans(np.zeros(4), 2), "X to be a matrix of numbers, .* got float64 of shape"),
        (lambda: constrained_kmeans(np.full((3, 1), np.nan), 2), "finite values in X, got NaN"),
        (lambda: confusing_counts(np.zeros(3, int), [1, 2]), "3 labels, .* got 2 labels"),
        (lambda: confusing_counts([], []), "clusters of at least one row"),
        (lambda: split_clusters(np.ones((3, 1)), [0, 0], None, 2), "3 values in clusters"),
        (lambda: n_pseudo_clusters(-1, 20, 100), "n_labeled to be an integer of at least 0, got -1"),
        (lambda: n_pseudo_clusters(0, 0, 100), "n_instances to be an integer of at least 1, got 0"),
        (lambda: cluster_pseudo_labels(np.ones((3, 1)), 2, n_init=0), "n_init to be an integer of at least 1"),
    ],
)
def test_shapes_and_numbers_are_checked(call, message):
    """Wrong shapes and numbers are errors of ours, not of NumPy's or scikit-learn's."""
    with pytest.raises(InvalidInputError, match=message):
        call()
