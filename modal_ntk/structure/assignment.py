"""Where labelled rows go, given the centres: the constrained step of COP-KMeans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

N_ORDERS = 10
"""Orders in which the labelled rows are tried before every class gets a cluster of its own."""


@dataclass(frozen=True)
class LabeledRows:
    """The labelled rows and what moves together among them.

    Parameters
    ----------
    rows : numpy.ndarray (l,), int64
        Numbers of the labelled rows.
    classes : numpy.ndarray (l,), int64
        Class of each, 0 to n_classes - 1, each used.
    linked : bool
        Whether all rows of a class go to one cluster.
    """

    rows: np.ndarray
    classes: np.ndarray
    linked: bool

    @property
    def n_classes(self) -> int:
        """Number of classes among the labels."""
        return int(self.classes.max()) + 1

    @property
    def n_blocks(self) -> int:
        """Number of units that are assigned: classes if linked, else rows."""
        return self.n_classes if self.linked else len(self.classes)


def assign_labeled(known: LabeledRows, costs: np.ndarray, orders: list[np.ndarray]) -> np.ndarray:
    """Give every labelled row a cluster, no two classes in one wherever there are as many clusters as classes.

    Parameters
    ----------
    known : LabeledRows
        The labelled rows.
    costs : numpy.ndarray (l, k)
        Squared distance of every labelled row to every centre.
    orders : list of numpy.ndarray (n_blocks,)
        Orders to try after the one by nearness to a centre.

    Returns
    -------
    numpy.ndarray (l,), int64
        Cluster of every labelled row.

    Notes
    -----
    Each block takes the nearest cluster that no other class holds, the first order that lets all of them in
    wins. Where none does, an assignment problem first seats every class in a cluster near one of its rows,
    which always leaves each row a way; with more classes than clusters the largest classes are seated, and
    the rows of the others, the fewest possible, go to the nearest centre.

    Examples
    --------
    Both rows prefer cluster 0; the nearer one gets it.

    >>> known = LabeledRows(np.array([3, 8]), np.array([0, 1]), linked=False)
    >>> assign_labeled(known, np.array([[2.0, 9.0], [1.0, 5.0]]), []).tolist()
    [1, 0]
    """
    blocks = known.classes if known.linked else np.arange(len(known.classes))
    owners = np.arange(known.n_classes) if known.linked else known.classes
    summed = np.zeros((known.n_blocks, costs.shape[1]), dtype=costs.dtype)
    np.add.at(summed, blocks, costs)
    free = np.full(costs.shape[1], -1)
    first = np.argsort(summed.min(axis=1), kind="stable")
    # With more classes than clusters no order can succeed.
    for order in [first, *orders] if known.n_classes <= costs.shape[1] else []:
        taken = _greedy(summed, owners, order, free)
        if (taken >= 0).all():
            return taken[blocks]
    taken = _greedy(summed, owners, first, _seats(summed, known.classes, owners))
    return np.where(taken < 0, summed.argmin(axis=1), taken)[blocks]


def _greedy(costs: np.ndarray, owners: np.ndarray, order: np.ndarray, holders: np.ndarray) -> np.ndarray:
    # -1 for a block that finds every cluster held by other classes.
    holders = holders.copy()
    taken = np.full(len(costs), -1, dtype=np.int64)
    for block in order:
        allowed = np.flatnonzero((holders == -1) | (holders == owners[block]))
        if len(allowed):
            taken[block] = allowed[costs[block, allowed].argmin()]
            holders[taken[block]] = owners[block]
    return taken


def _seats(costs: np.ndarray, classes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    # The class that holds each cluster, or -1. By size, so that the classes left out have the fewest rows.
    largest = np.argsort(-np.bincount(classes), kind="stable")[: costs.shape[1]]
    nearest = np.stack([costs[owners == c].min(axis=0) for c in largest])
    which, seat = linear_sum_assignment(nearest)
    holders = np.full(costs.shape[1], -1)
    holders[seat] = largest[which]
    return holders


def class_counts(clusters: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Count the rows of each class in each cluster: (k, C), from both of every row, (n,), at least one."""
    k, n_classes = int(clusters.max()) + 1, int(classes.max()) + 1
    return np.bincount(clusters * n_classes + classes, minlength=k * n_classes).reshape(k, n_classes)


def n_violations(assigned: np.ndarray, known: LabeledRows) -> int:
    """Count labelled rows that break the constraints.

    Parameters
    ----------
    assigned : numpy.ndarray (l,), int64
        Cluster of every labelled row.
    known : LabeledRows
        The labelled rows.

    Returns
    -------
    int
        Rows outside their cluster's most frequent class; for linked classes also rows outside their class's
        most frequent cluster.

    Examples
    --------
    >>> known = LabeledRows(np.arange(4), np.array([0, 0, 1, 1]), linked=True)
    >>> n_violations(np.array([0, 0, 0, 2]), known)
    2
    """
    table = class_counts(assigned, known.classes)
    mixed = int((table.sum(axis=1) - table.max(axis=1)).sum())
    return mixed + (int((table.sum(axis=0) - table.max(axis=0)).sum()) if known.linked else 0)
