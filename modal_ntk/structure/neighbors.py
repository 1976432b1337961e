"""Nearest rows by matrix products in blocks, their distances then taken exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from modal_ntk import checks

BLOCK_PAIRS = 2**22
"""Pairs of rows whose products are held at a time."""


def nearest_rows(
    X: Tensor,
    Y: Tensor | None = None,
    n_neighbors: int = 1,
    *,
    groups: Tensor | None = None,
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
    groups : Tensor (n,), int, optional
        Group of every row of `X`: only rows of another group count as neighbours. Needs ``Y=None`` and one
        neighbour.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    distances : Tensor (n, k)
        Euclidean, in rising order; infinite where there is no row of another group.
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
    target = target.to(device)
    shift = target.mean(dim=0)
    shifted = target - shift
    half_norms = shifted.square().sum(dim=1) / 2
    groups = None if groups is None else groups.to(device)
    distances, indices = [], []
    for start, rows in _blocks(X, len(target)):
        rows = rows.to(device)
        closeness = torch.addmm(half_norms, rows - shift, shifted.T, beta=-1)
        here = torch.arange(start, start + len(rows), device=device)
        if groups is not None:
            closeness.masked_fill_(groups[here, None] == groups, -torch.inf)
        elif among_themselves:
            closeness[here - start, here] = -torch.inf
        # The largest of all is found faster than the largest few.
        best, chosen = closeness.max(dim=1, keepdim=True) if n_neighbors == 1 else closeness.topk(n_neighbors, dim=1)
        exact = _exact(rows, target, chosen).masked_fill(best == -torch.inf, torch.inf)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact.cpu())
        indices.append(chosen.gather(1, order).cpu())
    return torch.cat(distances), torch.cat(indices)


def _blocks(X: Tensor, width: int) -> list[tuple[int, Tensor]]:
    size = max(1, BLOCK_PAIRS // max(width, X.shape[1], 1))
    return [(start, X[start : start + size]) for start in range(0, len(X), size)]


def _exact(rows: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    # One neighbour at a time, so that no (rows, k, d) array is made.
    columns = [torch.linalg.vector_norm(rows - target[column], dim=1) for column in chosen.T]
    return torch.stack(columns, dim=1)
