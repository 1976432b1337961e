"""Constrained clusters and pseudo-labels against their definitions."""

from collections import Counter

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.structure import (
    cluster_pseudo_labels,
    confusing_counts,
    constrained_kmeans,
    n_pseudo_clusters,
    split_clusters,
)

seeds = st.integers(0, 10**6)


def blobs(seed, n=40, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4 * rng.integers(3, size=(n, 1))


def shared(clusters, labels):
    """Pairs of differently labelled rows in one cluster, counted pair by pair."""
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    return sum(labels[i] != labels[j] and clusters[i] == clusters[j] for i, j in pairs)


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
    assert shared(found.labels[rows], labels) == 0
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
        assert shared(found.labels[[0, 10, 15]], ["a", "a", "b"]) == 0


def test_more_classes_than_clusters_are_counted_and_warned_about():
    """Three classes in two clusters cannot be kept apart: the least number of violations, and a warning."""
    with pytest.warns(ModalNTKWarning, match="1 of 3 labelled rows break the cannot_link constraint"):
        found = constrained_kmeans(blobs(0), 2, labeled=[0, 1, 2], labels=[0, 1, 2], random_state=0)
    assert found.n_violations == 1


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
    assert shared(final.labels[:4], [0, 1, 0, 1]) == 0
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
