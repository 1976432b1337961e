"""Cluster pseudo-labels: constrained k-means, then splitting where the model's predictions disagree most."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from modal_ntk import checks
from modal_ntk.structure.constrained import Clustering, Constraint, constrained_kmeans


def n_pseudo_clusters(n_labeled: int, n_instances: int, max_clusters: int) -> int:
    """Return how many pseudo-labels a round uses.

    Parameters
    ----------
    n_labeled : int
        Labels there are.
    n_instances : int
        Labels this query will add.
    max_clusters : int
        Upper limit once there are labels.

    Returns
    -------
    int
        Half of the labels there will be, at most `max_clusters`, at least one; in the first round the batch
        size.

    Notes
    -----
    NTKCPL, algorithm 1, lines 4 and 6. The paper's b_i is ambiguous; it is read as the total after the query.

    Examples
    --------
    >>> [n_pseudo_clusters(total - b, b, 100) for total, b in [(20, 20), (40, 20), (60, 20), (200, 100), (300, 100)]]
    [20, 20, 30, 100, 100]
    """
    if n_labeled == 0:
        return n_instances
    return max(1, min((n_labeled + n_instances) // 2, max_clusters))


def confusing_counts(clusters: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count, in every cluster, the rows whose predicted class is not the cluster's most frequent one.

    Parameters
    ----------
    clusters : numpy.ndarray (n,)
        Cluster of every row, 0 to k-1.
    predicted : numpy.ndarray (n,)
        Predicted class of every row.

    Returns
    -------
    numpy.ndarray (k,), int64
        Size of the cluster minus its largest count.

    Examples
    --------
    >>> confusing_counts(np.repeat([0, 1, 2], 4), np.array([0, 0, 0, 1, 2, 2, 1, 0, 3, 3, 3, 3])).tolist()
    [1, 2, 0]
    """
    classes = np.unique(predicted, return_inverse=True)[1]
    table = np.zeros((int(clusters.max()) + 1, int(classes.max()) + 1), np.int64)
    np.add.at(table, (clusters, classes), 1)
    return table.sum(axis=1) - table.max(axis=1)


def split_clusters(
    X: np.ndarray,
    clusters: np.ndarray,
    predicted: Any,
    n_clusters: int,
    *,
    min_cluster_size: int = 1,
    random_state: Any = None,
) -> np.ndarray:
    """Split the most confusing cluster in two until there are enough.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows.
    clusters : numpy.ndarray (n,)
        Cluster of every row, 0 to k-1.
    predicted : array-like (n,) or None
        Predicted class of every row; None counts nobody as confusing.
    n_clusters : int
        Number wanted.
    min_cluster_size : int, default=1
        A split that would leave fewer rows on one side is not made.
    random_state : int, numpy generator or None, default=None
        Seed of the two-means.

    Returns
    -------
    numpy.ndarray (n,), int64
        A refinement of `clusters`; fewer than `n_clusters` where nothing more can be split.

    Notes
    -----
    NTKCPL, algorithm 2. Ties go to the lowest number; where no cluster is confusing, the largest is split;
    the new cluster takes the next number. Constraints are not imposed again, as in the paper.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [5.0], [9.0], [9.1]])
    >>> split_clusters(X, np.array([0, 0, 0, 1, 1]), [0, 0, 1, 2, 2], 3, random_state=0).tolist()
    [0, 0, 2, 1, 1]
    """
    rng = checks.check_random_state(random_state)
    result = clusters.astype(np.int64, copy=True)
    classes = np.zeros(len(X), np.int64) if predicted is None else np.asarray(predicted)
    closed: set[int] = set()
    while (n_found := int(result.max()) + 1) < n_clusters and len(closed) < n_found:
        chosen = _most_confusing(result, classes, closed)
        members = np.flatnonzero(result == chosen)
        halves = _two_means(X[members], min_cluster_size, rng)
        if halves is None:
            closed.add(chosen)
        else:
            result[members[halves]] = n_found
    return result


def _most_confusing(clusters: np.ndarray, classes: np.ndarray, closed: set[int]) -> int:
    counts = confusing_counts(clusters, classes)
    sizes = np.bincount(clusters)
    open_ones = np.array([c not in closed for c in range(len(counts))])
    key = counts if (counts[open_ones] > 0).any() else sizes
    return int(np.argmax(np.where(open_ones, key, -1)))


def _two_means(X: np.ndarray, min_cluster_size: int, rng: np.random.Generator) -> np.ndarray | None:
    # True on the side that becomes the new cluster; the first row stays where it was.
    if len(X) < 2 * min_cluster_size or (X[0] == X).all():
        return None
    halves = KMeans(2, n_init=10, random_state=int(rng.integers(2**31))).fit_predict(X)
    moves: np.ndarray = halves != halves[0]
    return moves if min(moves.sum(), (~moves).sum()) >= min_cluster_size else None


def cluster_pseudo_labels(
    X: np.ndarray,
    n_clusters: int,
    *,
    n_start: int | None = None,
    labeled: Any = None,
    labels: Any = None,
    predicted: Any = None,
    constraint: Constraint = "cannot_link",
    min_cluster_size: int = 1,
    normalise: bool = True,
    random_state: Any = None,
) -> Clustering:
    """Cluster a pool into pseudo-labels.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Features of all rows; not changed.
    n_clusters : int
        Number of pseudo-labels wanted.
    n_start : int, optional
        Number of clusters before splitting; all of them by default.
    labeled, labels : array-like (l,), optional
        Labelled rows and their labels.
    predicted : array-like (n,), optional
        Predicted class of every row, by which clusters are split.
    constraint : {"cannot_link", "must_link", "none"}, default="cannot_link"
        What labels mean for the first clusters.
    min_cluster_size : int, default=1
        Smallest cluster a split may leave.
    normalise : bool, default=True
        Whether rows are scaled to length one first.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Clustering
        Pseudo-label of every row, with the centres and inertia after splitting.

    Notes
    -----
    NTKCPL, algorithm 2; without labels plain k-means, algorithm 1 line 4.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> labels = cluster_pseudo_labels(X, 2, random_state=0).labels
    >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
    (True, False)
    """
    rng = checks.check_random_state(random_state)
    rows = normalize(X) if normalise else X
    first = n_clusters if n_start is None else min(n_start, n_clusters)
    start = constrained_kmeans(
        rows, first, labeled=labeled, labels=labels, constraint=constraint, random_state=rng.integers(2**31)
    )
    if len(start.centers) >= n_clusters:
        return start
    clusters = split_clusters(
        rows, start.labels, predicted, n_clusters, min_cluster_size=min_cluster_size, random_state=rng.integers(2**31)
    )
    centers = np.stack([rows[clusters == c].mean(axis=0) for c in range(int(clusters.max()) + 1)])
    return Clustering(clusters, centers, float(((rows - centers[clusters]) ** 2).sum()), start.n_violations)
