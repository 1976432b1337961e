"""K-means that keeps differently labelled rows apart (COP-KMeans)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.metrics.pairwise import euclidean_distances

from modal_ntk import checks, progress
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.structure.assignment import N_ORDERS, LabeledRows, assign_labeled, n_violations
from modal_ntk.structure.clusters import Clustering, as_matrix, compact, few_threads, fitted, n_distinct

Constraint = Literal["cannot_link", "must_link", "none"]


def constrained_kmeans(
    X: np.ndarray,
    n_clusters: int,
    *,
    labeled: Any = None,
    labels: Any = None,
    constraint: Constraint = "cannot_link",
    n_init: int = 10,
    max_iter: int = 300,
    tol: float = 1e-4,
    random_state: Any = None,
) -> Clustering:
    """Cluster rows by k-means under the constraints that a few labels set.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows; not changed. float32 stays float32.
    n_clusters : int
        Number of clusters; lowered to the number of distinct rows if there are fewer. Under must-link it
        is lowered, too, where linked classes leave too few other rows.
    labeled : array-like (l,), optional
        Numbers of the labelled rows.
    labels : array-like (l,), optional
        Their labels, of any kind.
    constraint : {"cannot_link", "must_link", "none"}, default="cannot_link"
        Differently labelled rows in different clusters; also equally labelled ones in the same; or neither.
    n_init : int, default=10
        Number of starts; the one with fewest violations, then least inertia, is kept.
    max_iter : int, default=300
        Largest number of iterations of a start.
    tol : float, default=1e-4
        A start ends when the squared shift of all centres is at most this times the mean variance of the
        columns, as in scikit-learn.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Clustering
        Without constraints exactly scikit-learn's ``KMeans``.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Warns
    -----
    ModalNTKWarning
        If there are more classes than clusters, the only case in which constraints are broken.

    Notes
    -----
    Wagstaff et al. (2001), cited by NTKCPL, section 3.4, which does not say which kind of constraint; must-link
    would force all labels of a class into one cluster, against two labels per cluster on average. Their
    greedy assignment takes rows in order of the data and often finds no assignment where there is one; here
    labelled rows go first, in up to ten orders, and if none of these works every class first gets a cluster of
    its own. So constraints always hold with as many clusters as classes; with fewer, as few labelled rows as
    possible break them, and these go to the nearest centre. A cluster that loses all rows starts again at the
    row farthest from its centre. No (n, k)
    matrix of distances is kept.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> clusters = constrained_kmeans(X, 2, labeled=[0, 1], labels=["a", "b"], random_state=0).labels
    >>> bool(clusters[0] != clusters[1])
    True
    """
    checks.check_choice("constraint", constraint, ("cannot_link", "must_link", "none"))
    X = as_matrix(X)
    rows = checks.check_rows("labeled", () if labeled is None else labeled, len(X))
    classes = np.unique(checks.check_labels(() if labels is None else labels, len(rows)), return_inverse=True)[1]
    n_init, max_iter = checks.check_integer("n_init", n_init), checks.check_integer("max_iter", max_iter)
    n_clusters = n_distinct(X, checks.check_integer("n_clusters", n_clusters))
    rng = checks.check_random_state(random_state)
    if constraint == "none" or len(np.unique(classes)) < (1 if constraint == "must_link" else 2):
        return fitted(KMeans(n_clusters, n_init=n_init, max_iter=max_iter, tol=tol), X, rng)
    known = LabeledRows(rows, classes, constraint == "must_link")
    tol = tol * float(X.var(axis=0).mean())
    with few_threads(X, n_clusters), progress.stage("clusters"):
        runs = (_run(X, n_clusters, known, max_iter, tol, rng) for _ in range(n_init))
        found = min(runs, key=lambda run: (run.n_violations, run.inertia))
    if found.n_violations:
        warnings.warn(
            f"{found.n_violations} of {len(rows)} labelled rows break the {constraint} constraint: {known.n_classes} "
            f"classes do not fit into {n_clusters} clusters. Ask for at least {known.n_classes} clusters.",
            ModalNTKWarning,
            stacklevel=2,
        )
    return found


def _run(
    X: np.ndarray, n_clusters: int, known: LabeledRows, max_iter: int, tol: float, rng: np.random.Generator
) -> Clustering:
    centers = kmeans_plusplus(X, n_clusters, random_state=int(rng.integers(2**31)))[0]
    # Drawn once, so that an iteration depends on the centres alone and can come to rest.
    orders = [rng.permutation(known.n_blocks) for _ in range(N_ORDERS - 1)]
    assigned = None
    for _ in range(max_iter):
        assigned = _assign(X, centers, known, orders, assigned)
        moved = means(X, assigned, centers)
        shift = float(((moved - centers) ** 2).sum())
        centers = moved
        if shift <= tol:
            break
    assert assigned is not None
    return compact(assigned, centers, inertia(X, assigned, centers), n_violations(assigned[known.rows], known))


def _assign(
    X: np.ndarray, centers: np.ndarray, known: LabeledRows, orders: list[np.ndarray], previous: np.ndarray | None
) -> np.ndarray:
    nearest, distances = pairwise_distances_argmin_min(X, centers)
    assigned: np.ndarray = nearest.astype(np.int64)
    each = np.arange(len(known.rows))
    costs = euclidean_distances(X[known.rows], centers, squared=True)
    chosen = assign_labeled(known, costs, orders)
    # A greedy choice can be worse than the last one, and iterations would then wander without end.
    if previous is not None and costs[each, previous[known.rows]].sum() <= costs[each, chosen].sum():
        chosen = previous[known.rows]
    assigned[known.rows] = chosen
    distances[known.rows] = np.sqrt(costs[each, chosen])
    if known.linked:
        distances[known.rows] = -1  # may not leave their class
    _fill_empty(assigned, distances, len(centers))
    return assigned


def _fill_empty(assigned: np.ndarray, distances: np.ndarray, n_clusters: int) -> None:
    # An empty cluster takes the row farthest from its centre, never the last one of a cluster; in place.
    sizes = np.bincount(assigned, minlength=n_clusters)
    for cluster in np.flatnonzero(sizes == 0):
        movable = np.where(sizes[assigned] > 1, distances, -1)
        farthest = movable.argmax()
        if movable[farthest] < 0:
            return
        sizes[assigned[farthest]] -= 1
        sizes[cluster] = 1
        assigned[farthest] = cluster
        distances[farthest] = -1


def means(X: np.ndarray, assigned: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Average the rows of every cluster.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows.
    assigned : numpy.ndarray (n,), int64
        Cluster of every row.
    centers : numpy.ndarray (k, d)
        What an empty cluster keeps.

    Returns
    -------
    numpy.ndarray (k, d)
        The means.

    Examples
    --------
    >>> means(np.array([[1.0], [3.0]]), np.array([0, 0]), np.array([[0.0], [7.0]])).tolist()
    [[2.0], [7.0]]
    """
    n, n_clusters = len(X), len(centers)
    members = csr_array((np.ones(n, X.dtype), assigned, np.arange(n + 1)), shape=(n, n_clusters))
    sizes = np.bincount(assigned, minlength=n_clusters)[:, None]
    averaged: np.ndarray = np.divide(members.T @ X, np.maximum(sizes, 1), dtype=X.dtype)
    averaged[sizes[:, 0] == 0] = centers[sizes[:, 0] == 0]
    return averaged


def inertia(X: np.ndarray, assigned: np.ndarray, centers: np.ndarray) -> float:
    """Sum the squared distances of rows to their centre.

    Parameters
    ----------
    X : numpy.ndarray (n, d)
        Rows.
    assigned : numpy.ndarray (n,), int64
        Cluster of every row.
    centers : numpy.ndarray (k, d)
        The centres.

    Returns
    -------
    float
        The sum, over blocks of rows, so that no second matrix of the size of `X` is made.

    Examples
    --------
    >>> inertia(np.array([[1.0], [3.0]]), np.array([0, 0]), np.array([[2.0]]))
    2.0
    """
    step = max(1, 2**22 // X.shape[1])
    total = 0.0
    for start in range(0, len(X), step):
        difference = X[start : start + step] - centers[assigned[start : start + step]]
        total += float(np.einsum("nd,nd->", difference, difference, dtype=np.float64))
    return total
