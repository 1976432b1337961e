"""Plain k-means as strategies use it: every cluster used, copies told, mini-batches for many clusters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from modal_ntk import checks, progress
from modal_ntk.structure.constrained import (
    Clustering,
    as_matrix,
    compact,
    constrained_kmeans,
    few_threads,
    n_distinct,
)

BATCH_SIZE = 5000
"""Rows of a mini-batch."""


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
    if mini_batch_above is None or n_clusters <= mini_batch_above:
        return constrained_kmeans(X, n_clusters, constraint="none", n_init=n_init, random_state=random_state)
    X = as_matrix(X)
    n_clusters = n_distinct(X, n_clusters)
    seed = int(checks.check_random_state(random_state).integers(2**31))
    model = MiniBatchKMeans(n_clusters, batch_size=BATCH_SIZE, n_init=n_init, random_state=seed)
    with warnings.catch_warnings(), few_threads(X[:BATCH_SIZE], n_clusters), progress.stage("clusters"):
        # Rows that differ only by rounding give fewer clusters; the result shows it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    return compact(model.labels_, model.cluster_centers_, float(model.inertia_), 0)
