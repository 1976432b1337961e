"""Nearest rows by matrix products in blocks, their distances then taken exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.structure.magnitudes import measurable

BLOCK_PAIRS = 2**22
"""Pairs of rows whose products are held at a time."""


def nearest_rows(
    X: Tensor,
    Y: Tensor | None = None,
    n_neighbors: int = 1,
    *,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Find for every row its nearest rows and how far they are.

    Parameters
    ----------
    X : Tensor (n, d)
        Rows.
    Y : Tensor (m, d), optional
        Where to look; by default among the other rows of `X`.
    n_neighbors : int, default=1
        How many, at most m (n - 1 among the rows of `X`).
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    distances : Tensor (n, k)
        Euclidean, in rising order.
    indices : Tensor (n, k), int64
        The rows of `Y` (or `X`) they belong to.

    Raises
    ------
    InvalidInputError
        If there are fewer rows than neighbours asked for.

    Notes
    -----
    Neighbours are ranked by products of rows, shifted to have mean zero, and their distances are taken from
    differences: two rows whose distances differ by rounding alone may change places, but the distance of a
    copy found is exactly zero. Memory beyond the result: about ``BLOCK_PAIRS`` numbers, three times.

    Examples
    --------
    >>> distances, indices = nearest_rows(torch.tensor([[0.0], [1.0], [5.0]]))
    >>> distances[:, 0].tolist(), indices[:, 0].tolist()
    ([1.0, 1.0, 4.0], [1, 0, 1])
    """
    among_themselves = Y is None
    target = X if Y is None else Y
    n_others = len(target) - among_themselves
    if not 1 <= checks.check_integer("n_neighbors", n_neighbors) <= n_others:
        raise checks.expected(f"n_neighbors of at most {n_others}, the number of rows", n_neighbors, "Ask for fewer.")
    device = X.device if device is None else torch.device(device)
    X, target = (measurable(X),) * 2 if among_themselves else measurable(X, target)
    target = target.to(device)
    shift = target.mean(dim=0)
    shifted = target - shift
    half_norms = shifted.square().sum(dim=1) / 2
    # Filled in place: small results kept between large temporary ones would leave holes that no block fits into.
    distances = torch.empty((len(X), n_neighbors), dtype=X.dtype)
    indices = torch.empty((len(X), n_neighbors), dtype=torch.int64)
    for start, rows in _blocks(X, len(target)):
        rows = rows.to(device)
        closeness = torch.addmm(half_norms, rows - shift, shifted.T, beta=-1)
        if among_themselves:
            closeness.diagonal(start).fill_(-torch.inf)
        # The largest of all is found faster than the largest few.
        chosen = closeness.argmax(dim=1)[:, None] if n_neighbors == 1 else closeness.topk(n_neighbors, dim=1).indices
        exact, order = _exact(rows, target, chosen).sort(dim=1, stable=True)
        here = slice(start, start + len(rows))
        distances[here], indices[here] = exact, chosen.gather(1, order)
    return distances, indices


def distance_to_other_groups(X: Tensor, groups: Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Find for every row the distance to the nearest row of another group.

    Parameters
    ----------
    X : Tensor (n, d)
        Rows.
    groups : Tensor (n,), int
        Group of every row.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    Tensor (n,)
        The distances, exact as in `nearest_rows`; infinite where there is one group.

    Notes
    -----
    Every pair of rows of two groups is compared once; a sorted copy of `X` is made.

    Examples
    --------
    >>> distance_to_other_groups(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])).tolist()
    [5.0, 4.0, 4.0]
    """
    X = measurable(X)
    device = X.device if device is None else torch.device(device)
    order = groups.to(X.device).argsort(stable=True)
    rows = X[order].to(device)
    ends = groups.to(X.device).unique(return_counts=True)[1].cumsum(0).tolist()
    shifted = rows - rows.mean(dim=0)
    half_norms = shifted.square().sum(dim=1) / 2
    best = rows.new_full((len(rows),), -torch.inf)
    nearest = torch.zeros(len(rows), dtype=torch.int64, device=device)
    for start, end in zip([0, *ends], ends[:-1], strict=False):
        for first, block in _blocks(shifted[start:end], len(rows) - end):
            here = slice(start + first, start + first + len(block))
            # Minus half the squared distance, the same seen from either side.
            closeness = torch.addmm(half_norms[end:], block, shifted[end:].T, beta=-1).sub_(half_norms[here, None])
            _keep_best(best[here], nearest[here], *closeness.max(dim=1), end)
            _keep_best(best[end:], nearest[end:], *closeness.max(dim=0), here.start)
    exact = _exact(rows, rows, nearest[:, None])[:, 0].masked_fill(best == -torch.inf, torch.inf)
    return torch.empty_like(exact).index_copy_(0, order.to(device), exact).cpu()


def _keep_best(best: Tensor, nearest: Tensor, found: Tensor, which: Tensor, offset: int) -> None:
    # In place, where what was found is better.
    better = found > best
    best[better], nearest[better] = found[better], which[better] + offset


def _blocks(X: Tensor, width: int) -> list[tuple[int, Tensor]]:
    size = max(1, BLOCK_PAIRS // max(width, X.shape[1], 1))
    return [(start, X[start : start + size]) for start in range(0, len(X), size)]


def _exact(rows: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    # One neighbour at a time, so that no (rows, k, d) array is made.
    columns = [torch.linalg.vector_norm(rows - target[column], dim=1) for column in chosen.T]
    return torch.stack(columns, dim=1)
