"""Typical rows: those with near neighbours, cluster by cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks, progress
from modal_ntk.selection.result import Selection
from modal_ntk.structure.graphs.neighbors import nearest_rows
from modal_ntk.structure.magnitudes import measurable

Distance = Literal["euclidean", "squared"]
Neighbors = Literal["remaining", "cluster"]

EPSILON = 1e-5
"""Added to a mean distance, so that copies have a finite typicality."""


def typicality(
    X: Tensor,
    n_neighbors: int = 20,
    *,
    distance: Distance = "euclidean",
    epsilon: float = EPSILON,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return one over the mean distance of every row to its nearest other rows.

    Parameters
    ----------
    X : Tensor (n, d)
        Rows.
    n_neighbors : int, default=20
        Neighbours; lowered to half the number of rows, at least one.
    distance : {"euclidean", "squared"}, default="euclidean"
        The paper's distance, or its square as in the authors' code.
    epsilon : float, default=1e-5
        Added to the mean.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    Tensor (n,)
        The typicality; zero for a single row, which has no neighbours.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Examples
    --------
    >>> X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 5.0]])
    >>> typicality(X, 1, epsilon=0.0).tolist()
    [1.0, 1.0, 0.1767766922712326]
    """
    n_neighbors = checks.check_integer("n_neighbors", n_neighbors)
    checks.check_choice("distance", distance, ("euclidean", "squared"))
    X = measurable(X)
    if len(X) < 2:
        return X.new_zeros(len(X))
    gaps = nearest_rows(X, n_neighbors=max(1, min(n_neighbors, len(X) // 2)), device=device)[0]
    return 1 / ((gaps.square() if distance == "squared" else gaps).mean(dim=1) + epsilon)


def select_typical(
    X: Tensor,
    clusters: np.ndarray,
    n_labeled: int,
    n_instances: int,
    *,
    n_neighbors: int = 20,
    min_cluster_size: int = 5,
    distance: Distance = "euclidean",
    neighbors: Neighbors = "remaining",
    device: torch.device | str | None = None,
) -> Selection:
    """Choose the most typical row of one cluster after another, from the least labelled and largest on.

    Parameters
    ----------
    X : Tensor (l + n, d)
        Rows, the labelled ones first.
    clusters : numpy.ndarray (l + n,), int
        Cluster of every row.
    n_labeled : int
        Number l of labelled rows.
    n_instances : int
        How many of the others to choose.
    n_neighbors : int, default=20
        Neighbours for the typicality; lowered to half the rows among which they are looked for.
    min_cluster_size : int, default=5
        Clusters of at most so many rows come last.
    distance : {"euclidean", "squared"}, default="euclidean"
        See `typicality`.
    neighbors : {"remaining", "cluster"}, default="remaining"
        Where neighbours are looked for: among the cluster's rows that are neither labelled nor chosen, or among
        all its rows.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    Selection
        Distinct indices among the unlabelled rows, counted from their first, in order of choice. Scores are
        typicalities; zero for the last row of a cluster, which has no neighbours left.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    The order of clusters is fixed at the start, as in the authors' code; ties take the lower cluster, and within
    it the lower row. One round takes a row of each cluster that has any left.

    Examples
    --------
    >>> X = torch.tensor([[0.0], [0.1], [0.3], [5.0], [5.1]])
    >>> select_typical(X, np.array([0, 0, 0, 1, 1]), 0, 3, min_cluster_size=0).indices.tolist()
    [0, 3, 1]
    """
    clusters = checks.check_rows("clusters", clusters, None, length=len(X))
    n_instances = checks.check_n_instances(n_instances, len(X) - n_labeled)
    checks.check_choice("neighbors", neighbors, ("remaining", "cluster"))
    indices: list[int] = []
    scores: list[float] = []

    def measured(rows: np.ndarray) -> Tensor:
        return typicality(X[torch.from_numpy(rows)], n_neighbors, distance=distance, device=device)

    with progress.stage("typicality", n_instances):
        for queue in _queues(clusters, n_labeled, min_cluster_size):
            while queue and len(indices) < n_instances:
                for cluster in queue[: n_instances - len(indices)]:
                    row, score = cluster.take(measured, neighbors)
                    indices.append(row - n_labeled)
                    scores.append(score)
                    progress.advance()
                queue = [cluster for cluster in queue if len(cluster.free)]
    return Selection(np.array(indices, np.int64), np.array(scores, float))


@dataclass
class _Cluster:
    members: np.ndarray
    free: np.ndarray  # neither labelled nor chosen, in rising order
    values: Tensor | None = None  # typicalities of the free rows where these are found once

    def take(self, measured: Callable[[np.ndarray], Tensor], neighbors: Neighbors) -> tuple[int, float]:
        """Return the most typical free row, no longer free, and its typicality."""
        values = self.values
        if values is None:
            rows = self.free if neighbors == "remaining" else self.members
            values = measured(rows)[torch.from_numpy(np.searchsorted(rows, self.free))]
        best = int(values.argmax())
        row, score = int(self.free[best]), float(values[best])
        self.free = np.delete(self.free, best)
        if neighbors == "cluster":
            self.values = torch.cat([values[:best], values[best + 1 :]])
        return row, score


def _queues(clusters: np.ndarray, n_labeled: int, min_cluster_size: int) -> list[list[_Cluster]]:
    # The large clusters in their order, then the small ones, without those that are all labelled.
    sizes = np.bincount(clusters)
    labeled = np.bincount(clusters[:n_labeled], minlength=len(sizes))
    members = np.split(np.argsort(clusters, kind="stable"), np.cumsum(sizes)[:-1])
    large: list[_Cluster] = []
    small: list[_Cluster] = []
    for c in np.lexsort((-sizes, labeled)):
        if sizes[c] > labeled[c]:
            queue = large if sizes[c] > min_cluster_size else small
            queue.append(_Cluster(members[c], members[c][members[c] >= n_labeled]))
    return [large, small]
