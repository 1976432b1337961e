"""How far rows are from the labelled ones, counted in steps of a walk over the graph."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

from modal_ntk import checks

UNREACHED = int(np.iinfo(np.int32).max)
"""Distance of a row from which no walk leads to a labelled one, or none short enough."""


class HopDistances:
    """Steps from every row to the nearest labelled row; labelled rows may be added.

    Parameters
    ----------
    transition : sparse matrix (n, n)
        Walks follow its entries from row to column.
    labeled : array-like (l,), default=()
        The labelled rows.
    max_hops : int or None, default=None
        Distances above it are not looked for.

    Attributes
    ----------
    hops : numpy.ndarray (n,), int32
        Length of the shortest walk to a labelled row; `UNREACHED` where there is none within `max_hops`.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> distances = HopDistances(csr_matrix(np.eye(5, k=-1)), [0], max_hops=3)   # each row leads to the one before
    >>> distances.hops.tolist() == [0, 1, 2, 3, UNREACHED]
    True
    >>> distances.add([4]).hops.tolist()
    [0, 1, 2, 3, 0]
    """

    def __init__(self, transition: Any, labeled: Any = (), *, max_hops: int | None = None) -> None:
        # Distances spread against the direction of walks.
        matrix = sp.csr_matrix(transition)
        n = matrix.shape[0]
        self._into = reversed_edges(matrix.indptr, matrix.indices)
        self.max_hops = n if max_hops is None else checks.check_integer("max_hops", max_hops, minimum=0)
        self.hops = np.full(n, UNREACHED, np.int32)
        self.add(labeled)

    def add(self, labeled: Any) -> HopDistances:
        """Count further rows as labelled.

        Parameters
        ----------
        labeled : array-like (l,)
            Their numbers.

        Returns
        -------
        HopDistances
            Itself, with shorter distances.
        """
        rows = checks.check_rows("labeled", labeled, len(self.hops))
        self.hops[rows] = 0
        # Only what comes nearer spreads on, so that adding a row costs its neighbourhood, not the graph.
        starts, sources = self._into
        _spread(starts, sources, self.hops, rows, self.max_hops)
        return self


@numba.njit(cache=True)
def reversed_edges(indptr, indices):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return for every row the rows that lead to it, as starts (n + 1,) and sources (edges,)."""
    n = len(indptr) - 1
    starts = np.zeros(n + 1, np.int64)
    for target in indices:
        starts[target + 1] += 1
    starts = np.cumsum(starts)
    place = starts[:-1].copy()
    sources = np.empty(len(indices), np.int32)
    for source in range(n):
        for k in range(indptr[source], indptr[source + 1]):
            sources[place[indices[k]]] = source
            place[indices[k]] += 1
    return starts, sources


@numba.njit(cache=True)
def _spread(starts, sources, hops, rows, max_hops):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Breadth first, so that the first distance a row gets is its shortest.
    queue = np.empty(len(hops), np.int32)
    queue[: len(rows)] = rows
    head, tail = 0, len(rows)
    while head < tail:
        row = queue[head]
        head += 1
        hop = hops[row] + 1
        if hop > max_hops:
            continue
        for k in range(starts[row], starts[row + 1]):
            if hops[sources[k]] > hop:
                hops[sources[k]] = hop
                queue[tail] = sources[k]
                tail += 1
