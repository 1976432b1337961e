"""How far rows are from the labelled ones, counted in steps of a walk over the graph."""

from __future__ import annotations

from typing import Any

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
        # Its columns list who steps into a row: distances spread against the direction of walks.
        self._into = sp.csc_matrix(transition)
        n = self._into.shape[0]
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
        front = checks.check_rows("labeled", labeled, len(self.hops))
        self.hops[front] = 0
        for hop in range(1, self.max_hops + 1):
            into = self._stepping_into(front)
            # Only what comes nearer spreads on, so that adding a row costs its neighbourhood, not the graph.
            front = np.unique(into[self.hops[into] > hop])
            if not len(front):
                break
            self.hops[front] = hop
        return self

    def _stepping_into(self, rows: np.ndarray) -> np.ndarray:
        starts, ends = self._into.indptr[rows], self._into.indptr[rows + 1]
        counts = ends - starts
        offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        return np.asarray(self._into.indices[offsets + np.arange(counts.sum())])
