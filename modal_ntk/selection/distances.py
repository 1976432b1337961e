"""Distances from one row to all others, in a pass over the rows that makes no copy of them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BLOCK_BYTES = 2**28
"""Largest part of the rows that is sent to a device at a time, where they do not fit there as a whole."""


class Distances(Protocol):
    """What a greedy selection reads of its rows: how many, how long, and how far from a given one."""

    n: int
    device: torch.device

    def squared_norms(self) -> Tensor:
        """Return the squared length (n,) of every row."""

    def squared_to(self, row: int) -> Tensor:
        """Return the squared distance (n,) of every row to one of them, exactly zero to its copies."""


class DenseRows:
    """Rows of a matrix.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        The rows; kept, not copied, unless they fit on another device.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Notes
    -----
    Differences are taken entry by entry rather than from a product of matrices: at one row a pass this is bound
    by memory either way, and the distance of two copies is exactly zero.

    Examples
    --------
    >>> DenseRows(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).squared_to(0).tolist()
    [0.0, 25.0]
    """

    def __init__(self, X: Tensor, device: torch.device | str | None = None) -> None:
        self.n = len(X)
        self.device = X.device if device is None else torch.device(device)
        self._X = X
        self._blocks = [X] if X.device == self.device else _sent(X, self.device)

    def squared_norms(self) -> Tensor:
        """Return the squared length (n,) of every row."""
        return torch.cat([torch.linalg.vector_norm(x.to(self.device), dim=1) for x in self._blocks]).square()

    def squared_to(self, row: int) -> Tensor:
        """Return the squared distance (n,) of every row to one of them."""
        target = self._X[row : row + 1].to(self.device)
        return torch.cat([_distances(x.to(self.device), target)[:, 0] for x in self._blocks]).square()


def _sent(X: Tensor, device: torch.device) -> list[Tensor]:
    # The whole of it where it leaves half of the device free; else blocks that go there at every pass.
    size = X.element_size() * X.numel()
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2:
        return [X.to(device)]
    rows = max(1, BLOCK_BYTES * len(X) // max(1, size))
    return list(X.split(rows))


def _distances(X: Tensor, Y: Tensor) -> Tensor:
    return torch.cdist(X, Y, compute_mode="donot_use_mm_for_euclid_dist")
