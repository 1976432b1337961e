"""Greedy k-centre: always the row farthest from everything chosen."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.selection.distances import DenseRows
from modal_ntk.selection.result import Selection
from modal_ntk.structure.neighbors import nearest_rows

First = Literal["random", "first"]

N_AHEAD = 8
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
    such a bound is below the distance so far is the distance itself taken. Memory beyond `X` is some twelve numbers a
    row.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [4.0], [6.0], [7.0]])
    >>> k_center_greedy(x, 2, centers=torch.tensor([[0.0]])).indices.tolist()
    [3, 1]
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    checks.check_choice("first", first, ("random", "first"))
    rows = DenseRows(X, device)
    if centers is not None and len(centers) == 0:
        centers = None
    if centers is None:
        rng = checks.check_random_state(random_state)
        pick = int(rng.integers(len(X))) if first == "random" else 0
        nearest = torch.full((len(X),), torch.inf, dtype=X.dtype, device=rows.device)
    else:
        nearest = nearest_rows(X, centers, device=rows.device)[0][:, 0].to(rows.device).square()
        pick = int(nearest.argmax())
    indices, scores = np.empty(n_instances, np.int64), np.empty(n_instances)
    ahead = _Ahead(rows)
    for i in range(n_instances):
        indices[i], scores[i] = pick, float(nearest[pick])
        if np.isinf(scores[i]):
            nearest = rows.squared_to(pick)
        else:
            ahead.lower(nearest, pick)
        # Below every distance, so that a row is not chosen twice even where only copies are left.
        nearest[pick] = -1
        pick = int(nearest.argmax())
    radius = max(float(nearest[pick]), 0.0) ** 0.5
    if centers is None:
        scores[0] = scores[1] if n_instances > 1 else radius**2
    return Selection(indices, np.sqrt(scores), {"radius": radius})


class _Ahead:
    # Distances to a choice, of the rows that it may be nearest to. The bounds for the farthest rows of now are made
    # together: one pass over the rows for many choices, most of which will be among them.
    def __init__(self, rows: DenseRows) -> None:
        self._rows = rows
        self._bounds: dict[int, Tensor] = {}

    def lower(self, nearest: Tensor, pick: int) -> None:
        if pick not in self._bounds:
            farthest = nearest.topk(min(N_AHEAD, len(nearest))).indices.tolist()
            if pick not in farthest:  # where many are as far
                farthest[-1] = pick
            self._bounds = dict(zip(farthest, self._rows.lower_bounds(torch.tensor(farthest)), strict=True))
        some = (self._bounds.pop(pick) < nearest).nonzero()[:, 0]
        if len(some) > len(nearest) // 4:
            torch.minimum(nearest, self._rows.squared_to(pick), out=nearest)
        elif len(some):
            nearest[some] = torch.minimum(nearest[some], self._rows.squared_to(pick, some))
