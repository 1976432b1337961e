"""A graph kept from one query to the next, and recognised although its rows come in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class PlacedGraph:
    """A transition matrix, and where the rows at hand stand in it.

    Parameters
    ----------
    transition : scipy.sparse.csr_matrix (n, n)
        The matrix, in an order that the rows alone decide.
    nodes : numpy.ndarray (n,), int64
        Its row for each row at hand.
    reused : bool
        Whether it was there already.
    """

    transition: sp.csr_matrix
    nodes: np.ndarray
    reused: bool


class GraphMemory:
    """Remembers the last graph and gives it back for the same rows in any order.

    Between two queries labelled samples move from the pool to the training set; where the net did not change
    them, their features stay the same, and so does the graph. Each graph is made of the rows in one order, whatever
    order they come in: one that is remembered and one made anew are equal to the last bit.

    Examples
    --------
    >>> memory, X = GraphMemory(), np.arange(6.0).reshape(3, 2)
    >>> first = memory.get([X], "settings", lambda rows: sp.identity(len(rows)))
    >>> again = memory.get([X[2:], X[:2]], "settings", lambda rows: sp.identity(len(rows)))
    >>> first.reused, again.reused, (first.nodes[[2, 0, 1]] == again.nodes).tolist()
    (False, True, [True, True, True])
    """

    def __init__(self) -> None:
        self._last: tuple[Any, np.ndarray, sp.csr_matrix] | None = None

    def get(
        self, parts: Sequence[np.ndarray], settings: Any, build: Callable[[np.ndarray], sp.csr_matrix]
    ) -> PlacedGraph:
        """Return the graph of some rows, built only if it is not the one remembered.

        Parameters
        ----------
        parts : sequence of numpy.ndarray (n_i, d)
            Rows of numbers, in parts that follow one another.
        settings : object
            What else the graph depends on, compared by ``==``.
        build : callable
            Makes the transition matrix of all rows, which it is given (n, d) in the graph's order.

        Returns
        -------
        PlacedGraph
            The matrix and the place of each row.
        """
        keys = np.concatenate([_row_keys(part) for part in parts])
        # Equal rows may trade places, so that the sort need not be stable.
        order = np.argsort(keys)
        keys = keys[order]
        nodes = np.empty(len(keys), np.int64)
        nodes[order] = np.arange(len(keys))
        if self._last is not None:
            last_settings, last_keys, transition = self._last
            if last_settings == settings and np.array_equal(last_keys, keys):
                return PlacedGraph(transition, nodes, True)
        transition = build(_placed(parts, nodes))
        self._last = (settings, keys, transition)
        return PlacedGraph(transition, nodes, False)


def _placed(parts: Sequence[np.ndarray], nodes: np.ndarray) -> np.ndarray:
    # The rows of all parts in the order of the nodes, copied once.
    rows, start = np.empty((len(nodes), parts[0].shape[1]), np.result_type(*parts)), 0
    for part in parts:
        rows[nodes[start : start + len(part)]] = part
        start += len(part)
    return rows


def _row_keys(X: np.ndarray) -> np.ndarray:
    # 64 bits of a row's bytes: of a million different rows two share a key with odds below 1e-7.
    rows = np.ascontiguousarray(X)
    if rows.shape[1] == 0:
        return np.zeros(len(rows), np.uint64)
    # Words of 32 bits, so that the product spreads their upper ends, the signs of float32 numbers, too.
    keys: np.ndarray = _hashed(rows.view(np.uint32), np.uint64(rows.dtype.itemsize))
    return keys


@numba.njit(cache=True)
def _hashed(words, seed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Each word is multiplied into the key, whose upper half is then folded onto the lower.
    factor, half = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    keys = np.full(len(words), seed)
    for i in range(len(words)):
        key = keys[i]
        for j in range(words.shape[1]):
            key = (key ^ np.uint64(words[i, j])) * factor
            key ^= key >> half
        keys[i] = key
    return keys
