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
        n = transition.shape[0]
        self._into = edges_into(transition)
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
        _spread(*self._into, self.hops, rows, self.max_hops)
        return self


def edges_into(transition: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return for every row the rows that lead to it, as starts (n + 1,) and sources (edges,)."""
    by_target = sp.csc_matrix(transition)
    return by_target.indptr, by_target.indices


@numba.njit(cache=True)
def _spread(starts, sources, hops, rows, max_hops):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Against the direction of walks, breadth first, so that the first distance a row gets is its shortest.
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
