"""How far samples are from the decision boundary of a net: DeepFool's walk, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modal_ntk.features.reading import without_checkpoints


@dataclass(frozen=True)
class Walk:
    """Where a walk towards the decision boundary has led.

    Parameters
    ----------
    steps : list of Tensor (n, ...)
        What was added to each input, in the order of the inputs.
    squared_lengths : Tensor (n,), float64
        Its squared Euclidean norm, all inputs together; infinite for a sample whose logits do not depend on it.
    arrived : Tensor (n,), bool
        Whether another class has become at least as large as the one that was largest.
    """

    steps: list[Tensor]
    squared_lengths: Tensor
    arrived: Tensor


def walk_to_boundary(
    logits: Callable[[list[Tensor], Tensor], Tensor],
    inputs: list[Tensor],
    *,
    max_steps: int = 50,
    n_rivals: int | None = None,
    overshoot: float = 0.0,
) -> Walk:
    """Move each sample by linearised steps until its predicted class is no longer the largest.

    Parameters
    ----------
    logits : callable
        From inputs (m, ...) and the rows (m,) of the batch that they stand for to logits (m, C); differentiable,
        each row of the logits depending on the same row of the inputs alone.
    inputs : list of Tensor (n, ...)
        Floats. One tensor, or several for a net with several inputs.
    max_steps : int, default=50
        Most steps that a sample may take.
    n_rivals : int or None, default=None
        How many classes beside the predicted one are looked at, the most probable ones at the start; None, all.
        The time of a step is proportional to it.
    overshoot : float, default=0.0
        By what share each step is made longer, so that rounding does not leave it on the near side.

    Returns
    -------
    Walk
        Perturbations and their squared lengths.

    Notes
    -----
    Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks",
    algorithm 2. With f the logits, k the class predicted at the start and w_l the gradient of f_l - f_k with
    respect to the inputs, the step goes to the class l of smallest ``|f_l - f_k| / ||w_l||`` and is
    ``|f_l - f_k| / ||w_l||^2 w_l``. A gap between the classes that is down to rounding counts as closed. Samples
    that have arrived are not computed any further.

    Examples
    --------
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    >>> walk_to_boundary(lambda parts, rows: net(parts[0]), [torch.tensor([[3.0, 7.0]])]).steps[0].tolist()
    [[-3.0, 0.0]]
    """
    start = [part.detach() for part in inputs]
    total = [torch.zeros_like(part) for part in start]
    rows = torch.arange(len(start[0]), device=start[0].device)
    with torch.no_grad():
        first = logits([part.clone() for part in start], rows)
    n, n_classes = first.shape
    scale = first.abs().max(dim=1).values
    ranked = first.topk(n_classes if n_rivals is None else min(n_rivals + 1, n_classes), dim=1).indices
    arrived = torch.zeros(n, dtype=torch.bool, device=first.device)
    stuck = arrived.clone()
    for n_done in range(max_steps + 1):
        # The copy that the net is given may be changed in place by its first layer; a leaf may not.
        points = [(s[rows] + (1 + overshoot) * t[rows]).requires_grad_() for s, t in zip(start, total, strict=True)]
        with torch.enable_grad(), without_checkpoints():
            values = logits([point.clone() for point in points], rows)
        there = _has_arrived(values.detach(), ranked[rows, 0], scale[rows])
        arrived[rows[there]] = True
        if n_done == max_steps or bool(there.all()):
            break
        moves, moved = _nearest(values, points, ranked[rows])
        for t, move in zip(total, moves, strict=True):
            t[rows] += _per_row(moved & ~there, move) * move
        stuck[rows] = ~moved & ~there
        rows = rows[moved & ~there]
        if not len(rows):
            break
    steps = [(1 + overshoot) * t for t in total]
    squared = _squared_norms(steps)
    squared[stuck] = torch.inf
    return Walk(steps, squared, arrived)


def _has_arrived(values: Tensor, own: Tensor, scale: Tensor) -> Tensor:
    mine = values.gather(1, own[:, None])[:, 0]
    others = values.scatter(1, own[:, None], -torch.inf).max(dim=1).values
    # Sums of terms larger than the logits round worse than these: a little room, far below what distances need.
    rounding = 32 * torch.finfo(values.dtype).eps * torch.maximum(scale, values.abs().max(dim=1).values)
    return mine - others <= rounding


def _nearest(values: Tensor, points: list[Tensor], ranked: Tensor) -> tuple[list[Tensor], Tensor]:
    # The step to the nearest linearised boundary of each row, and whether there is one.
    best = torch.full((len(values),), torch.inf, dtype=torch.float64, device=values.device)
    moves = [torch.zeros_like(point) for point in points]
    own = values.gather(1, ranked[:, :1])[:, 0]
    if not values.requires_grad:
        return moves, best.isfinite()
    for j in range(1, ranked.shape[1]):
        gap = values.gather(1, ranked[:, j : j + 1])[:, 0] - own
        more = j + 1 < ranked.shape[1]
        with torch.enable_grad():
            grads = torch.autograd.grad(gap.sum(), points, retain_graph=more, allow_unused=True, materialize_grads=True)
        squared = _squared_norms(list(grads))
        distance = gap.detach().double().abs() / squared.sqrt()
        # Without a gradient the distance is infinite or no number: neither is smaller than what there is.
        nearer = distance < best
        best = torch.where(nearer, distance, best)
        length = torch.where(nearer, gap.detach().double().abs() / squared, 0.0)
        for move, grad in zip(moves, grads, strict=True):
            move.copy_(torch.where(_per_row(nearer, move) > 0, _per_row(length, move) * grad, move))
    finite = torch.stack([move.flatten(1).isfinite().all(dim=1) for move in moves]).all(dim=0)
    return moves, best.isfinite() & finite


def _squared_norms(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.flatten(1).double().square().sum(dim=1) for part in parts]).sum(dim=0)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
