"""Seeding by k-means++: each row with a chance that grows with its squared distance to those before it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from modal_ntk import checks, progress
from modal_ntk.selection.distances import DenseRows, OuterRows
from modal_ntk.selection.result import Selection

First = Literal["largest", "uniform"]


def kmeans_plus_plus(
    rows: DenseRows | OuterRows, n_instances: int, *, first: First = "largest", random_state: Any = None
) -> Selection:
    """Draw rows one by one, with probability proportional to the squared distance to the nearest one drawn.

    Parameters
    ----------
    rows : DenseRows or OuterRows
        The rows (n of them), read by their distances.
    n_instances : int
        How many to draw.
    first : {"largest", "uniform"}, default="largest"
        The first one: the longest row (the lowest on ties), or any by chance, as in k-means++ itself.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Selection
        Indices in order of drawing, distinct. Scores are squared distances to the nearest earlier one at the
        time of the draw; that of the first is its squared length.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    A copy of a row drawn is drawn only when nothing but such copies is left; then all have the same chance.
    One pass over the rows a draw.

    Examples
    --------
    >>> from modal_ntk.selection import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0], [0.0], [9.0]]))
    >>> kmeans_plus_plus(rows, 2, random_state=0).indices[0].tolist()
    2
    """
    n_instances = checks.check_n_instances(n_instances, rows.n)
    checks.check_choice("first", first, ("largest", "uniform"))
    rng = checks.check_random_state(random_state)
    lengths = rows.squared_norms()
    pick = int(lengths.argmax()) if first == "largest" else int(rng.integers(rows.n))
    indices, scores = np.empty(n_instances, np.int64), np.empty(n_instances)
    free = torch.ones(rows.n, dtype=torch.bool, device=rows.device)
    weights = lengths
    for i in progress.steps(range(n_instances), "picks", "pick"):
        indices[i], scores[i] = pick, float(weights[pick])
        free[pick] = False
        if i + 1 < n_instances:
            to_pick = rows.squared_to(pick)
            weights = to_pick if i == 0 else torch.minimum(weights, to_pick)
            pick = _drawn(weights * free, free, rng)
    return Selection(indices, scores)


def _drawn(weights: torch.Tensor, free: torch.Tensor, rng: np.random.Generator) -> int:
    # Sums in float64: over a million rows in float32 the last would never come up.
    steps = weights.double().cumsum(0)
    if not float(steps[-1]) > 0:
        steps = free.double().cumsum(0)
    total = float(steps[-1])
    # Below the total, also after rounding: the first step above it then belongs to a row of positive weight.
    target = min(rng.random() * total, float(np.nextafter(total, 0)))
    return int(torch.searchsorted(steps, torch.tensor(target, dtype=steps.dtype, device=steps.device), right=True))
