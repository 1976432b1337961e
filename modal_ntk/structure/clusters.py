"""Plain k-means as strategies use it: every cluster used, copies told, mini-batches for many clusters."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from modal_ntk import checks, progress
from modal_ntk.structure.magnitudes import measurable

BATCH_SIZE = 5000
"""Rows of a mini-batch."""

_THREADS_PAY = 2**26
"""Multiplications in one pass of k-means from which more than one thread is used."""


@dataclass(frozen=True)
class Clustering:
    """Clusters of rows.

    Parameters
    ----------
    labels : numpy.ndarray (n,), int64
        Cluster of every row, 0 to k-1, each used.
    centers : numpy.ndarray (k, d)
        Means of the clusters.
    inertia : float
        Sum of squared distances of rows to their centre.
    n_violations : int
        Labelled rows that share a cluster with a different label (or, for must-link, sit apart from their own).
    """

    labels: np.ndarray
    centers: np.ndarray
    inertia: float
    n_violations: int


def kmeans_clusters(
    X: np.ndarray,
    n_clusters: int,
    *,
    n_init: int = 1,
    mini_batch_above: int | None = None,
    random_state: Any = None,
) -> Clustering:
    """Cluster rows by scikit-learn's k-means, or by its mini-batch form where there are many clusters.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows; not changed. float32 stays float32.
    n_clusters : int
        Number of clusters; lowered to the number of distinct rows.
    n_init : int, default=1
        Number of starts; mini-batches try as many and run once.
    mini_batch_above : int, optional
        Number of clusters above which mini-batches of 5,000 rows are used; never by default.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Clustering
        Fewer clusters than asked for where rows are too alike.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Examples
    --------
    >>> kmeans_clusters(np.array([[0.0], [1.0], [9.0]]), 2, random_state=0).centers.ravel().tolist()
    [0.5, 9.0]
    """
    n_clusters = checks.check_integer("n_clusters", n_clusters)
    n_init = checks.check_integer("n_init", n_init)
    X = as_matrix(X)
    rng = checks.check_random_state(random_state)
    distinct = n_distinct(X, n_clusters)
    if mini_batch_above is None or n_clusters <= mini_batch_above:
        return fitted(KMeans(distinct, n_init=n_init), X, rng)
    return fitted(MiniBatchKMeans(distinct, batch_size=BATCH_SIZE, n_init=n_init), X, rng)


def fitted(model: KMeans | MiniBatchKMeans, X: np.ndarray, rng: np.random.Generator) -> Clustering:
    """Cluster rows by a model of scikit-learn.

    Parameters
    ----------
    model : KMeans or MiniBatchKMeans
        Fitted, with a seed drawn for it.
    X : numpy.ndarray (n, d)
        Rows.
    rng : numpy.random.Generator
        Where the seed is drawn from.

    Returns
    -------
    Clustering
        Without empty clusters.
    """
    model.set_params(random_state=int(rng.integers(2**31)))
    at_once = X[:BATCH_SIZE] if isinstance(model, MiniBatchKMeans) else X
    with warnings.catch_warnings(), few_threads(at_once, model.n_clusters), progress.stage("clusters"):
        # Rows that differ only by rounding give fewer clusters; the result shows it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    return compact(model.labels_, model.cluster_centers_, float(model.inertia_), 0)


def compact(assigned: np.ndarray, centers: np.ndarray, inertia: float, violations: int) -> Clustering:
    """Return a clustering of rows (n,) without its empty clusters."""
    used, labels = np.unique(assigned, return_inverse=True)
    return Clustering(labels.astype(np.int64), centers[used], inertia, violations)


def few_threads(X: np.ndarray, n_clusters: int) -> AbstractContextManager[object]:
    """Return the context in which a clustering of this size runs.

    K-means on a few thousand rows is thousands of tiny parallel regions; where another process holds a core,
    their barriers cost a hundred times the work. Below the size where threads pay, one is used.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows.
    n_clusters : int
        Number of clusters.

    Returns
    -------
    context manager
        Limits the thread pools, or does nothing.
    """
    return threadpool_limits(1) if X.size * n_clusters < _THREADS_PAY else nullcontext()


def as_matrix(X: Any) -> np.ndarray:
    """Return rows as a float matrix.

    Parameters
    ----------
    X : array-like (n, d)
        Rows.

    Returns
    -------
    numpy.ndarray (n, d)
        `X` itself if it is a float64 array, or a float32 one of a size that float32 can square; else a float64 copy.

    Raises
    ------
    InvalidInputError
        If it is not a matrix of finite numbers with at least one row and one column.

    Examples
    --------
    >>> as_matrix([[1, 2]])
    array([[1., 2.]])
    """
    values = np.asarray(checks.check_samples("X", X))
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
        got = f"{values.dtype} of shape {values.shape}"
        raise checks.expected("X to be a matrix of numbers, one row per sample", got, "Pass X of shape (n, d).")
    return measurable(values if values.dtype in (np.float32, np.float64) else values.astype(np.float64))


def n_distinct(X: np.ndarray, limit: int) -> int:
    """Count the distinct rows of a matrix (n, d), no further than `limit`."""
    seen: set[bytes] = set()
    for row in X:
        seen.add((row + 0.0).tobytes())  # adding zero makes -0.0 the same as 0.0
        if len(seen) == limit:
            break
    return len(seen)
