"""Rows that stand for the others: those nearest to the centres of k-means, or medoids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks, structure
from modal_ntk.selection.distances import DenseRows
from modal_ntk.selection.k_center import k_center_greedy
from modal_ntk.selection.kmeans_pp import kmeans_plus_plus
from modal_ntk.selection.result import Selection
from modal_ntk.structure.graphs.neighbors import nearest_rows
from modal_ntk.structure.magnitudes import measurable

BLOCK_PAIRS = 2**22
"""Pairs of rows of a cluster whose distances are held at a time."""


def k_medoids(
    X: Tensor,
    n_instances: int,
    *,
    n_init: int = 1,
    max_iter: int = 100,
    device: torch.device | str | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose rows so that the sum of distances of all rows to the nearest chosen one is small.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        Rows; not changed.
    n_instances : int
        How many to choose.
    n_init : int, default=1
        Number of starts; the one with the least sum is kept.
    max_iter : int, default=100
        Largest number of iterations of a start.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Selection
        Distinct indices, the largest cluster first. Scores are the sizes of their clusters. ``info["cost"]`` is
        the sum of distances and ``info["n_iter"]`` the number of iterations.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    Alternation from a k-means++ start: every row goes to its nearest medoid, the row of each cluster with the
    least sum of distances to the others becomes its medoid, until none changes. Neither step makes the sum
    larger. A step costs n k distances, and those inside the clusters, held in blocks.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [5.0], [20.0], [21.0], [22.0], [23.0], [24.0]])
    >>> picks = k_medoids(x, 2, random_state=0)
    >>> picks.indices.tolist(), picks.scores.tolist(), picks.info["cost"]
    ([5, 1], [5.0, 3.0], 11.0)
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    n_init = checks.check_integer("n_init", n_init)
    max_iter = checks.check_integer("max_iter", max_iter)
    rng = checks.check_random_state(random_state)
    X = measurable(X)
    runs = (_alternated(X, n_instances, max_iter, device, rng) for _ in range(n_init))
    medoids, clusters, cost, n_iter = min(runs, key=lambda run: run[2])
    sizes = np.bincount(clusters, minlength=n_instances)
    order = np.argsort(-sizes, kind="stable")
    return Selection(medoids[order], sizes[order].astype(float), {"cost": cost, "n_iter": n_iter})


def nearest_to_centers(
    X: Tensor,
    n_instances: int,
    *,
    n_init: int = 1,
    device: torch.device | str | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose the row nearest to the centre of each cluster of k-means.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        Rows; not changed.
    n_instances : int
        How many to choose.
    n_init : int, default=1
        Number of starts of the k-means.
    device : torch.device or str, optional
        Where what is left by k-means is computed; where `X` lies by default.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Selection
        Distinct indices, the largest cluster first. Scores are the sizes of their clusters. Where there are fewer
        distinct rows than asked for, the others follow farthest first, with score zero.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [5.0], [20.0], [21.0], [22.0], [23.0]])
    >>> nearest_to_centers(x, 2, random_state=0).indices.tolist()
    [4, 1]
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    X = measurable(X)
    found = structure.kmeans_clusters(X.cpu().numpy(), n_instances, n_init=n_init, random_state=random_state)
    centers = torch.from_numpy(found.centers).to(X)
    gaps = (X - centers[torch.from_numpy(found.labels).to(X.device)]).square().sum(dim=1).cpu().numpy()
    # The first row of each cluster once they are sorted by cluster and then by distance.
    by_cluster = np.lexsort((gaps, found.labels))
    sizes = np.bincount(found.labels)
    chosen = by_cluster[np.cumsum(sizes) - sizes]
    order = np.argsort(-sizes, kind="stable")
    indices, scores = chosen[order].astype(np.int64), sizes[order].astype(float)
    if n_missing := n_instances - len(indices):
        rest = np.setdiff1d(np.arange(len(X)), indices)
        more = k_center_greedy(
            X[torch.from_numpy(rest)], n_missing, centers=X[torch.from_numpy(indices)], device=device
        )
        indices = np.concatenate([indices, rest[more.indices]])
        scores = np.concatenate([scores, np.zeros(n_missing)])
    return Selection(indices, scores)


def _alternated(
    X: Tensor, k: int, max_iter: int, device: torch.device | str | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float, int]:
    medoids = kmeans_plus_plus(DenseRows(X, device), k, first="uniform", random_state=rng.integers(2**31)).indices
    clusters, cost = _assigned(X, medoids, device)
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        moved = _centered(X, medoids, clusters, device)
        if np.array_equal(moved, medoids):
            break
        medoids = moved
        clusters, cost = _assigned(X, medoids, device)
    return medoids, clusters, cost, n_iter


def _assigned(X: Tensor, medoids: np.ndarray, device: torch.device | str | None) -> tuple[np.ndarray, float]:
    gaps, nearest = nearest_rows(X, X[torch.from_numpy(medoids)], device=device)
    clusters = nearest[:, 0].numpy()
    # A medoid stays in its own cluster, also where another one is its copy.
    clusters[medoids] = np.arange(len(medoids))
    return clusters, float(gaps.double().sum())


def _centered(X: Tensor, medoids: np.ndarray, clusters: np.ndarray, device: torch.device | str | None) -> np.ndarray:
    moved = medoids.copy()
    members = np.split(
        np.argsort(clusters, kind="stable"), np.cumsum(np.bincount(clusters, minlength=len(medoids)))[:-1]
    )
    for i, rows in enumerate(members):
        if len(rows) > 2:  # of two either is as good
            sums = _sums(X[torch.from_numpy(rows)].to(X.device if device is None else device))
            best, now = int(sums.argmin()), int(np.searchsorted(rows, medoids[i]))
            # Only for the better by more than rounding: else two rows could change places for ever.
            if sums[best] < sums[now] * (1 - 1e-6):
                moved[i] = rows[best]
    return moved


def _sums(rows: Tensor) -> np.ndarray:
    blocks = rows.split(max(1, BLOCK_PAIRS // len(rows)))
    sums = [torch.cdist(x, rows, compute_mode="donot_use_mm_for_euclid_dist").double().sum(dim=1) for x in blocks]
    return torch.cat(sums).cpu().numpy()
