"""Labels diffused over a graph, where one label after the other is added: each costs what it changes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from modal_ntk.structure.graphs.diffusion import clamped, finished, float_csr
from modal_ntk.structure.graphs.hops import edges_into

if TYPE_CHECKING:
    from modal_ntk.structure.graphs.diffusion import Mode

MOSTLY = 0.75
"""Share of the rows from which on a step over all of them is the faster one."""


class GrowingDiffusion:
    """What `diffuse` returns on the CPU, for labelled rows of which there are more at every call.

    A label changes after t steps only rows that walk to it within t. These alone are computed anew, in the order in
    which the whole product adds, so that both agree. Values after every step are kept: T + 1 matrices (n, C).

    Parameters
    ----------
    transition : scipy sparse matrix or array (n, n)
        Rows that sum to one.
    n_steps : int
        Number of steps T.
    mode : {"one_vs_all", "multivariate"}, default="one_vs_all"
        As for `diffuse`.

    Examples
    --------
    >>> line = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    >>> growing = GrowingDiffusion(line, 1)
    >>> growing([0], [0], 2).tolist()
    [[1.0, -1.0], [0.5, -0.5], [0.0, 0.0]]
    >>> growing([0, 2], [0, 1], 2).tolist()
    [[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]
    """

    def __init__(self, transition: Any, n_steps: int, mode: Mode = "one_vs_all") -> None:
        self._matrix = float_csr(transition)
        self._into = edges_into(self._matrix)
        self._n_steps, self._mode = n_steps, mode
        self._rows, self._held = np.zeros(0, np.int64), np.zeros((0, 0), self._matrix.dtype)
        self._steps: list[np.ndarray] = []

    def __call__(self, labeled: Any, labels: Any, n_classes: int) -> np.ndarray:
        """Return the diffused labels.

        Parameters
        ----------
        labeled : array-like (l,)
            Row numbers of the labelled rows. Where they go on from those of the last call, only the rest is new.
        labels : array-like (l,) of int
            Their classes, 0 to C-1.
        n_classes : int
            Number of classes C.

        Returns
        -------
        numpy.ndarray (n, C)
            As `diffuse` returns them.
        """
        rows, start = clamped(self._matrix, labeled, labels, n_classes, self._mode)
        held, known = start.astype(self._matrix.dtype), len(self._rows)
        goes_on = np.array_equal(rows[:known], self._rows) and np.array_equal(held[:known], self._held)
        self._rows, self._held = rows, held
        if self._steps and goes_on:
            self._grow(rows[known:], held[known:])
        else:
            values = np.zeros((self._matrix.shape[0], n_classes), self._matrix.dtype)
            values[rows] = held
            self._steps = [values]
            for _ in range(self._n_steps):
                self._steps.append(self._step(self._steps[-1]))
        return np.asarray(finished(self._steps[-1].copy(), self._mode, n_classes))

    def _step(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(self._matrix @ values)
        values[self._rows] = self._held
        return values

    def _grow(self, rows: np.ndarray, held: np.ndarray) -> None:
        matrix, n = self._matrix, self._matrix.shape[0]
        passed = np.zeros(n, bool)  # labelled, or met already
        self._steps[0][rows] = held
        changed = rows
        for before, values in pairwise(self._steps):
            passed[:] = False
            passed[self._rows] = True
            reached = _leading_to(*self._into, changed, passed)
            if len(reached) > MOSTLY * n:
                values[:] = self._step(before)
                changed = np.arange(n)
            else:
                differ = _renewed(matrix.indptr, matrix.indices, matrix.data, before, reached, values)
                values[rows] = held
                changed = np.concatenate([rows, reached[differ]])


@numba.njit(cache=True)
def _leading_to(starts, sources, targets, passed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Rows with an edge to one of the targets, each once.
    found = np.empty(len(passed), np.int64)
    n = 0
    for target in targets:
        for k in range(starts[target], starts[target + 1]):
            if not passed[sources[k]]:
                passed[sources[k]] = True
                found[n] = sources[k]
                n += 1
    return found[:n]


@numba.njit(cache=True)
def _renewed(indptr, indices, data, before, rows, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # One step for some rows; tells which of them it changed.
    differ = np.zeros(len(rows), np.bool_)
    width = values.shape[1]
    total = np.empty(width, values.dtype)
    for i in range(len(rows)):
        row = rows[i]
        total[:] = 0
        for k in range(indptr[row], indptr[row + 1]):
            weight, source = data[k], before[indices[k]]
            for c in range(width):
                total[c] += weight * source[c]
        for c in range(width):
            if total[c] != values[row, c]:
                differ[i] = True
                values[row, c] = total[c]
    return differ
