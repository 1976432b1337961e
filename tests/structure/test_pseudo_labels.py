"""Clusters become pseudo-labels: confusing ones are split until there are as many as asked for."""

from collections import Counter

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_clustering import blobs, broken_pairs, partition
from sklearn.cluster import KMeans

from modal_ntk.errors import InvalidInputError
from modal_ntk.structure import (
    cluster_pseudo_labels,
    confusing_counts,
    constrained_kmeans,
    n_pseudo_clusters,
    split_clusters,
)

seeds = st.integers(0, 10**6)


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
