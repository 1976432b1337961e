"""Greedy k-centre: always the row farthest from everything chosen."""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks, progress
from modal_ntk.selection.distances import DenseRows
from modal_ntk.selection.result import Selection
from modal_ntk.structure.graphs.neighbors import nearest_rows
from modal_ntk.structure.magnitudes import measurable

First = Literal["random", "first"]

N_AHEAD = 16
"""How many rows are looked at together, as likely to be chosen next."""


def k_center_greedy(
    X: Tensor,
    n_instances: int,
    *,
    centers: Tensor | None = None,
    first: First = "random",
    device: torch.device | str | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose rows one by one, each the farthest from the centres and the rows before it.

    Parameters
    ----------
    X : Tensor (n, d)
        Rows to choose from, float32 or float64; not changed.
    n_instances : int
        How many to choose.
    centers : Tensor (l, d), optional
        Rows that are covered already.
    first : {"random", "first"}, default="random"
        The first choice where there are no centres: by seed, or row 0 as in public code.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.
    random_state : int, numpy generator or None, default=None
        Seed of a random first choice; nothing else is random.

    Returns
    -------
    Selection
        Indices in order of choice. Scores are distances to the nearest centre or earlier choice at the time of
        the choice, so they never rise; a first choice without centres has its distance to the farthest row.
        ``info["radius"]`` is the largest distance of any row to its nearest centre or choice afterwards.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    Ties take the lowest row. The radius is at most twice the least possible one (Gonzalez 1985). One product of
    matrices bounds the distances to the rows that are farthest now, which are likely to be chosen next; only where
    such a bound is below the distance so far is the distance itself taken, by a compiled loop on the CPU. Memory
    beyond `X` is some twenty numbers a row.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [4.0], [6.0], [7.0]])
    >>> k_center_greedy(x, 2, centers=torch.tensor([[0.0]])).indices.tolist()
    [3, 1]
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    checks.check_choice("first", first, ("random", "first"))
    X, centers = measurable(X, X[:0] if centers is None else centers)
    rows, is_first = DenseRows(X, device), len(centers) == 0
    if is_first:
        rng = checks.check_random_state(random_state)
        pick = int(rng.integers(len(X))) if first == "random" else 0
        nearest = torch.full((len(X),), torch.inf, dtype=X.dtype, device=rows.device)
    else:
        nearest = nearest_rows(X, centers, device=rows.device)[0][:, 0].to(rows.device).square()
        pick = int(nearest.argmax())
    indices, scores = np.empty(n_instances, np.int64), np.empty(n_instances)
    ahead = _Ahead(rows)
    for i in progress.steps(range(n_instances), "picks", "pick"):
        indices[i], scores[i] = pick, float(nearest[pick])
        if np.isinf(scores[i]):
            nearest = rows.squared_to(pick)
            # Below every distance, so that a row is not chosen twice even where only copies are left.
            nearest[pick] = -1
            pick = int(nearest.argmax())
        else:
            pick = ahead.farthest_after(pick, nearest)
    radius = max(float(nearest[pick]), 0.0) ** 0.5
    if is_first:
        scores[0] = scores[1] if n_instances > 1 else radius**2
    return Selection(indices, np.sqrt(scores), {"radius": radius})


class _Ahead:
    # Distances to a choice, of the rows that it may be nearest to. The bounds for the farthest rows of now are made
    # together: one pass over the rows for many choices, most of which will be among them.
    def __init__(self, rows: DenseRows) -> None:
        self._rows = rows
        self._bounds: dict[int, Tensor] = {}

    def farthest_after(self, pick: int, nearest: Tensor) -> int:
        # Lowers the distances by a choice, in place, and returns the next one.
        if pick not in self._bounds:
            farthest = nearest.topk(min(N_AHEAD, len(nearest))).indices.tolist()
            if pick not in farthest:  # where many are as far
                farthest[-1] = pick
            bounds = self._rows.lower_bounds(torch.tensor(farthest))
            self._bounds = dict(zip(farthest, bounds.unbind(dim=1), strict=True))
        lower = _lower_on_cpu if self._rows.device.type == "cpu" else _lower_on_device
        return lower(self._rows, nearest, self._bounds.pop(pick), pick)


# A dozen small calls of torch take longer than the arithmetic of one choice among ten thousand rows.
def _lower_on_cpu(rows: DenseRows, nearest: Tensor, bounds: Tensor, pick: int) -> int:
    return int(_lower(rows.X.numpy(), nearest.numpy(), bounds.numpy(), pick))


# Sums in any order, so that the compiler can use wide registers; a row's distance to its copy stays zero.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _lower(X, nearest, bounds, pick):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    target, zero = X[pick], X.dtype.type(0)
    largest, next_pick = -np.inf, 0
    for i in range(len(nearest)):
        if bounds[i] < nearest[i]:
            squared = zero
            for k in range(len(target)):
                difference = X[i, k] - target[k]
                squared += difference * difference
            # Rounded as a distance is whose square is taken, so that ties with those remain ties.
            distance = np.sqrt(squared)
            nearest[i] = min(nearest[i], distance * distance)
        # Below every distance, so that a row is not chosen twice even where only copies are left.
        if i == pick:
            nearest[i] = -1
        if nearest[i] > largest:
            largest, next_pick = nearest[i], i
    return next_pick


def _lower_on_device(rows: DenseRows, nearest: Tensor, bounds: Tensor, pick: int) -> int:
    # The same by tensors.
    some = (bounds < nearest).nonzero()[:, 0]
    if len(some) > len(nearest) // 4:
        torch.minimum(nearest, rows.squared_to(pick), out=nearest)
    elif len(some):
        nearest[some] = torch.minimum(nearest[some], rows.squared_to(pick, some))
    nearest[pick] = -1
    return int(nearest.argmax())
