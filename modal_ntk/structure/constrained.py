"""K-means that keeps differently labelled rows apart (COP-KMeans)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning

Constraint = Literal["cannot_link", "must_link", "none"]

_N_ORDERS = 10
"""Orders in which the labelled rows are tried before a constraint is given up."""


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
        Rows; not changed.
    n_clusters : int
        Number of clusters; lowered to the number of distinct rows if there are fewer.
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
        A start ends when no centre moves more than this, relative to the mean variance of the columns.
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
        If the best start still breaks constraints.

    Notes
    -----
    Wagstaff et al. (2001), cited by NTKCPL, section 3.4, which does not say which kind of constraint; must-link
    would force all labels of a class into one cluster, against two labels per cluster on average. Their
    greedy assignment takes rows in order of the data and often finds no assignment where there is one; here
    labelled rows go first, in up to ten orders, and only what then remains impossible goes to the nearest
    centre, is counted and warned about.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> clusters = constrained_kmeans(X, 2, labeled=[0, 1], labels=["a", "b"], random_state=0).labels
    >>> bool(clusters[0] != clusters[1])
    True
    """
    checks.check_choice("constraint", constraint, ("cannot_link", "must_link", "none"))
    rows = checks.check_rows("labeled", () if labeled is None else labeled, len(X))
    classes = np.unique(checks.check_labels(() if labels is None else labels, len(rows)), return_inverse=True)[1]
    n_clusters = min(checks.check_integer("n_clusters", n_clusters), len(np.unique(X, axis=0)))
    rng = checks.check_random_state(random_state)
    if constraint == "none" or len(np.unique(classes)) < (1 if constraint == "must_link" else 2):
        return _plain(X, n_clusters, n_init, max_iter, tol, rng)
    tol = tol * float(X.var(axis=0).mean())
    linked = constraint == "must_link"
    runs = [_run(X, n_clusters, rows, classes, linked, max_iter, tol, rng) for _ in range(n_init)]
    found = min(runs, key=lambda run: (run.n_violations, run.inertia))
    if found.n_violations:
        warnings.warn(
            f"{found.n_violations} of {len(rows)} labelled rows break the {constraint} constraint in every one of "
            f"{n_init} starts with {n_clusters} clusters; they went to the nearest centre.",
            ModalNTKWarning,
            stacklevel=2,
        )
    return found


def _plain(
    X: np.ndarray, n_clusters: int, n_init: int, max_iter: int, tol: float, rng: np.random.Generator
) -> Clustering:
    seed = int(rng.integers(2**31))
    model = KMeans(n_clusters, n_init=n_init, max_iter=max_iter, tol=tol, random_state=seed).fit(X)
    return Clustering(model.labels_.astype(np.int64), model.cluster_centers_, float(model.inertia_), 0)


def _run(
    X: np.ndarray,
    n_clusters: int,
    rows: np.ndarray,
    classes: np.ndarray,
    linked: bool,
    max_iter: int,
    tol: float,
    rng: np.random.Generator,
) -> Clustering:
    centers = kmeans_plusplus(X, n_clusters, random_state=int(rng.integers(2**31)))[0]
    for _ in range(max_iter):
        assigned, distances = pairwise_distances_argmin_min(X, centers)
        to_centers = pairwise_distances(X[rows], centers)
        assigned = assigned.astype(np.int64)
        assigned[rows], n_violations = _assign_labeled(to_centers, classes, linked, rng)
        distances[rows] = to_centers[np.arange(len(rows)), assigned[rows]]
        _fill_empty(X, assigned, distances, n_clusters, rows)
        moved = _means(X, assigned, n_clusters)
        shift = float(((moved - centers) ** 2).sum(axis=1).max())
        centers = moved
        if shift <= tol:
            break
    n_violations = _violations(assigned[rows], classes, linked)
    inertia = float(((X - centers[assigned]) ** 2).sum())
    return Clustering(assigned, centers, inertia, n_violations)


def _assign_labeled(
    distances: np.ndarray, classes: np.ndarray, linked: bool, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    # Rows that must stay together move as one block, by their summed distance to each centre.
    groups = classes if linked else np.arange(len(classes))
    blocks = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    best: tuple[np.ndarray, int] | None = None
    for attempt in range(_N_ORDERS):
        cost = np.array([distances[block].sum(axis=0) for block in blocks])
        # Those nearest to a centre first, then random orders.
        order = np.argsort(cost.min(axis=1)) if attempt == 0 else rng.permutation(len(blocks))
        owner = np.full(distances.shape[1], -1)
        assigned = np.empty(len(classes), np.int64)
        n_violations = 0
        for b in order:
            own = int(classes[blocks[b][0]])
            allowed = (owner == -1) | (owner == own)
            if not allowed.any():
                n_violations += len(blocks[b])
            center = int(np.argmin(np.where(allowed | (not allowed.any()), cost[b], np.inf)))
            owner[center] = own if owner[center] == -1 else owner[center]
            assigned[blocks[b]] = center
        if best is None or n_violations < best[1]:
            best = assigned, n_violations
        if n_violations == 0:
            break
    assert best is not None
    return best


def _fill_empty(X: np.ndarray, assigned: np.ndarray, distances: np.ndarray, n_clusters: int, rows: np.ndarray) -> None:
    # An empty cluster takes the unlabelled row farthest from its centre, never the last one of a cluster.
    sizes = np.bincount(assigned, minlength=n_clusters)
    if (sizes > 0).all():
        return
    movable = np.ones(len(X), dtype=bool)
    movable[rows] = False
    for cluster in np.flatnonzero(sizes == 0):
        order = np.argsort(np.where(movable & (sizes[assigned] > 1), -distances, np.inf))
        farthest = order[0]
        if not (movable[farthest] and sizes[assigned[farthest]] > 1):
            return
        sizes[assigned[farthest]] -= 1
        sizes[cluster] = 1
        assigned[farthest] = cluster
        distances[farthest] = 0
        movable[farthest] = False


def _means(X: np.ndarray, assigned: np.ndarray, n_clusters: int) -> np.ndarray:
    n = len(X)
    members = csr_array((np.ones(n, X.dtype), assigned, np.arange(n + 1)), shape=(n, n_clusters))
    sizes = np.bincount(assigned, minlength=n_clusters)
    return np.asarray(members.T @ X) / np.maximum(sizes, 1)[:, None].astype(X.dtype)


def _violations(assigned: np.ndarray, classes: np.ndarray, linked: bool) -> int:
    # Rows of a cluster's minority labels; for must-link also rows outside their class's main cluster.
    table = np.zeros((int(assigned.max()) + 1, int(classes.max()) + 1), np.int64)
    np.add.at(table, (assigned, classes), 1)
    apart = int((table.sum(axis=1) - table.max(axis=1)).sum())
    return apart + (int((table.sum(axis=0) - table.max(axis=0)).sum()) if linked else 0)
