"""Cluster pseudo-labels: constrained k-means, then splitting where the model's predictions disagree most."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from modal_ntk import checks
from modal_ntk.structure.assignment import class_counts
from modal_ntk.structure.clusters import Clustering, as_matrix, fitted
from modal_ntk.structure.constrained import Constraint, constrained_kmeans, inertia, means
from modal_ntk.structure.magnitudes import unit_rows


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
        size, even above `max_clusters`.

    Raises
    ------
    InvalidInputError
        If a number is negative, or the last two are zero.

    Notes
    -----
    NTKCPL, algorithm 1, lines 4 and 6. The paper's b_i is ambiguous; it is read as the total after the query.

    Examples
    --------
    >>> [n_pseudo_clusters(total - b, b, 100) for total, b in [(20, 20), (40, 20), (60, 20), (200, 100), (300, 100)]]
    [20, 20, 30, 100, 100]
    """
    n_labeled = checks.check_integer("n_labeled", n_labeled, minimum=0)
    n_instances = checks.check_integer("n_instances", n_instances)
    max_clusters = checks.check_integer("max_clusters", max_clusters)
    if n_labeled == 0:
        return n_instances
    return max(1, min((n_labeled + n_instances) // 2, max_clusters))


def confusing_counts(clusters: np.ndarray, predicted: Any) -> np.ndarray:
    """Count, in every cluster, the rows whose predicted class is not the cluster's most frequent one.

    Parameters
    ----------
    clusters : numpy.ndarray (n,), int
        Cluster of every row, 0 to k-1.
    predicted : array-like (n,)
        Predicted class of every row, of any label kind.

    Returns
    -------
    numpy.ndarray (k,), int64
        Size of the cluster minus its largest count.

    Raises
    ------
    InvalidInputError
        If the two differ in length, or are empty.

    Examples
    --------
    >>> confusing_counts(np.repeat([0, 1, 2], 4), np.array([0, 0, 0, 1, 2, 2, 1, 0, 3, 3, 3, 3])).tolist()
    [1, 2, 0]
    """
    clusters = checks.check_rows("clusters", clusters, None)
    classes = _class_numbers(predicted, len(clusters))
    if len(clusters) == 0:
        raise checks.expected("clusters of at least one row", "none", "Pass the cluster of every row.")
    table = class_counts(clusters, classes)
    return np.asarray(table.sum(axis=1) - table.max(axis=1))


def _class_numbers(predicted: Any, n: int) -> np.ndarray:
    return np.asarray(np.unique(checks.check_labels(predicted, n), return_inverse=True)[1])


def split_clusters(
    X: np.ndarray,
    clusters: np.ndarray,
    predicted: Any,
    n_clusters: int,
    *,
    min_cluster_size: int = 1,
    n_init: int = 10,
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
        A split that would leave fewer rows on one side is not made; the next cluster is tried.
    n_init : int, default=10
        Number of starts of the two-means.
    random_state : int, numpy generator or None, default=None
        Seed of the two-means.

    Returns
    -------
    numpy.ndarray (n,), int64
        A refinement of `clusters`; fewer than `n_clusters` where nothing more can be split.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    NTKCPL, algorithm 2. Ties go to the lowest number; where no cluster is confusing, the largest is split;
    the new cluster takes the next number. A cluster of rows that differ by rounding alone is never split.
    Constraints are not imposed again, as in the paper.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [5.0], [9.0], [9.1]])
    >>> split_clusters(X, np.array([0, 0, 0, 1, 1]), [0, 0, 1, 2, 2], 3, random_state=0).tolist()
    [0, 0, 2, 1, 1]
    """
    X = as_matrix(X)
    result = checks.check_rows("clusters", clusters, None, length=len(X))
    n_clusters = checks.check_integer("n_clusters", n_clusters)
    min_cluster_size = checks.check_integer("min_cluster_size", min_cluster_size)
    n_init = checks.check_integer("n_init", n_init)
    rng = checks.check_random_state(random_state)
    classes = np.zeros(len(X), np.int64) if predicted is None else _class_numbers(predicted, len(X))
    table = class_counts(result, classes)
    closed = np.zeros(len(table), dtype=bool)
    while len(table) < n_clusters and not closed.all():
        chosen = _most_confusing(table, closed)
        members = np.flatnonzero(result == chosen)
        halves = _two_means(X[members], min_cluster_size, n_init, rng)
        if halves is None:
            closed[chosen] = True
            continue
        result[members[halves]] = len(table)
        moved = np.bincount(classes[members[halves]], minlength=table.shape[1])
        table[chosen] -= moved
        table, closed = np.vstack([table, moved]), np.append(closed, False)
    return result


def _most_confusing(table: np.ndarray, closed: np.ndarray) -> int:
    sizes = table.sum(axis=1)
    counts = sizes - table.max(axis=1)
    key = counts if (counts[~closed] > 0).any() else sizes
    return int(np.argmax(np.where(closed, -1, key)))


def _two_means(X: np.ndarray, min_cluster_size: int, n_init: int, rng: np.random.Generator) -> np.ndarray | None:
    # True on the side that becomes the new cluster; the first row stays where it was. None for no split.
    if len(X) < 2 * min_cluster_size or np.abs(X - X[0]).max() <= 4 * np.finfo(X.dtype).eps * np.abs(X[0]).max():
        return None
    # Two centres in one place make one cluster, which is no split.
    halves = fitted(KMeans(2, n_init=n_init), X, rng).labels
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
    n_init: int = 10,
    random_state: Any = None,
) -> Clustering:
    """Cluster a pool into pseudo-labels.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Features of all rows; not changed. float32 stays float32.
    n_clusters : int
        Number of pseudo-labels wanted.
    n_start : int, optional
        Number of clusters before splitting; all of them by default, and where there are no labels.
    labeled, labels : array-like (l,), optional
        Labelled rows and their labels.
    predicted : array-like (n,), optional
        Predicted class of every row, by which clusters are split.
    constraint : {"cannot_link", "must_link", "none"}, default="cannot_link"
        What labels mean for the first clusters.
    min_cluster_size : int, default=1
        Smallest cluster a split may leave.
    normalise : bool, default=True
        Whether rows are scaled to length one first; a row of zeros stays.
    n_init : int, default=10
        Number of starts of every k-means; fewer save time on large pools.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Clustering
        Pseudo-label of every row, with the centres and inertia after splitting, and the violations before it;
        fewer than `n_clusters` where rows are too alike to be told apart.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Warns
    -----
    ModalNTKWarning
        If there are more classes than first clusters.

    Notes
    -----
    NTKCPL, algorithm 2; without labels plain k-means to `n_clusters` at once, algorithm 1 line 4.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> labels = cluster_pseudo_labels(X, 2, random_state=0).labels
    >>> bool(labels[0] == labels[1]), bool(labels[1] == labels[2])
    (True, False)
    """
    rng = checks.check_random_state(random_state)
    X = as_matrix(X)
    rows = unit_rows(X) if normalise else X
    n_clusters = checks.check_integer("n_clusters", n_clusters)
    unlabelled = labeled is None or len(labeled) == 0
    if n_start is None or unlabelled:
        n_start = n_clusters
    start = constrained_kmeans(
        rows,
        min(checks.check_integer("n_start", n_start, optional=True), n_clusters),
        labeled=labeled,
        labels=labels,
        constraint=constraint,
        n_init=n_init,
        random_state=rng.integers(2**31),
    )
    if len(start.centers) >= n_clusters:
        return start
    clusters = split_clusters(
        rows,
        start.labels,
        predicted,
        n_clusters,
        min_cluster_size=min_cluster_size,
        n_init=n_init,
        random_state=rng.integers(2**31),
    )
    centers = means(rows, clusters, np.zeros((int(clusters.max()) + 1, rows.shape[1]), rows.dtype))
    return Clustering(clusters, centers, inertia(rows, clusters, centers), start.n_violations)
