"""Distances from one row to all others, in a pass over the rows that makes no copy of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from modal_ntk.environment.late import torch
from modal_ntk.nets.room import in_parts
from modal_ntk.structure.magnitudes import largest_entry, measurable, needs_double

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_BYTES = 2**28
"""Largest part of the rows that is sent to a device at a time, where they do not fit there as a whole."""

NEAR = 0.01
"""Squared distance, as a part of both squared lengths, below which products of factors are not trusted."""


class _Rows:
    # A matrix of which passes are made on a device, as a whole or block by block.
    def __init__(self, X: Tensor, device: torch.device | str | None) -> None:
        self.n = len(X)
        self.device = X.device if device is None else torch.device(device)
        self._blocks = [X] if X.device == self.device else _sent(X, self.device)

    def _passed(self, work: Callable[..., Tensor], beside: Tensor | None = None) -> Tensor:
        # What is made of all rows, and of what stands beside each on the device already.
        found: list[Tensor] = []
        first = 0
        for block in self._blocks:
            own = () if beside is None else (beside[first : first + len(block)],)

            def made(start: int, stop: int, block: Tensor = block, own: tuple[Tensor, ...] = own) -> Tensor:
                return work(block[start:stop].to(self.device), *(part[start:stop] for part in own))

            found += in_parts(made, len(block), max(1, len(block)))
            first += len(block)
        return found[0] if len(found) == 1 else torch.cat(found)


class DenseRows(_Rows):
    """Rows of a matrix.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        The rows; kept, not copied, unless they fit on another device, or are of a size that float32 cannot square.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Notes
    -----
    Differences are taken entry by entry, so that the distance of two copies is exactly zero; products of matrices,
    which serve many rows in one pass, only bound distances from below.

    Examples
    --------
    >>> DenseRows(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).squared_to(0).tolist()
    [0.0, 25.0]
    """

    def __init__(self, X: Tensor, device: torch.device | str | None = None) -> None:
        self.X = measurable(X)
        self._least_norms: Tensor | None = None
        super().__init__(self.X, device)

    def squared_norms(self) -> Tensor:
        """Return the squared length (n,) of every row."""
        return self._passed(lambda x: torch.linalg.vector_norm(x, dim=1)).square()

    def squared_to(self, row: int, some: Tensor | None = None) -> Tensor:
        """Return the squared distance (n,) of every row to one of them, or that of `some` rows (m,)."""
        target = self.X[row : row + 1].to(self.device)
        if some is not None:
            return _distances(self.X[some.to(self.X.device)].to(self.device), target)[:, 0].square_()
        return self._passed(lambda x: _distances(x, target)[:, 0]).square_()

    def lower_bounds(self, rows: Tensor) -> Tensor:
        """Return what the squared distances (n, m) of all rows to m of them are at least.

        From one product of matrices, less all that rounding may have added: with unit roundoff u, each product of two
        rows errs by at most d u times their lengths, and the sums around it by a few u more.
        """
        if self._least_norms is None:
            error = 2 * (self.X.shape[1] + 8) * torch.finfo(self.X.dtype).eps
            self._least_norms = (1 - error) * self.squared_norms()
        targets = self.X[rows.to(self.X.device)].to(self.device)

        def without_targets(x: Tensor, least: Tensor) -> Tensor:
            # This way round, as a tall product of few columns, it takes half as long as its transpose.
            return torch.addmm(least, x, targets.T, alpha=-2)

        bounds = self._passed(without_targets, self._least_norms[:, None])
        return bounds.add_(self._least_norms[rows.to(self.device)])


def _sent(X: Tensor, device: torch.device) -> list[Tensor]:
    # The whole of it where it leaves half of the device free; else blocks that go there at every pass.
    size = X.element_size() * X.numel()
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2:
        return [X.to(device)]
    return list(X.split(max(1, BLOCK_BYTES * len(X) // max(1, size))))


def _distances(X: Tensor, Y: Tensor) -> Tensor:
    return torch.cdist(X, Y, compute_mode="donot_use_mm_for_euclid_dist")


def measurable_factors(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors in a type that holds the squared distances of their outer products, as `measurable` does of rows.

    Parameters
    ----------
    left, right : Tensor (n, c) and (n, d)
        First and second factors.

    Returns
    -------
    tuple of Tensor
        The same, float64 where float32 is too narrow.
    """
    largest = [largest_entry(left), largest_entry(right), largest_entry(left) * largest_entry(right)]
    wide = sum(map(needs_double, largest)) > 0
    return (left.double(), right.double()) if wide else (left.to(right.dtype), right)


class OuterRows(_Rows):
    """Rows that are outer products of two vectors each, which are never formed.

    Parameters
    ----------
    left : Tensor (n, c)
        First factors.
    right : Tensor (n, d)
        Second factors, of the same type.
    device : torch.device or str, optional
        Where to compute; where `right` lies by default.

    Notes
    -----
    The product of two rows is that of their left factors times that of their right factors. Where the squared
    distance is small beside the lengths, this loses digits, and it is taken from differences of the factors: a
    copy is at zero exactly.

    Examples
    --------
    >>> rows = OuterRows(torch.tensor([[3.0, -1.0], [0.0, 1.0]]), torch.tensor([[2.0, -1.0], [1.0, 0.0]]))
    >>> rows.squared_norms().tolist(), rows.squared_to(1).tolist()
    ([50.0, 1.0], [55.0, 0.0])
    """

    def __init__(self, left: Tensor, right: Tensor, device: torch.device | str | None = None) -> None:
        left, self._right = measurable_factors(left, right)
        super().__init__(self._right, device)
        self._left = left.to(self.device)
        norms = self._passed(lambda x: x.square().sum(dim=1))
        self._norms = norms * self._left.square().sum(dim=1)

    def squared_norms(self) -> Tensor:
        """Return the squared length (n,) of every row."""
        return self._norms

    def squared_to(self, row: int) -> Tensor:
        """Return the squared distance (n,) of every row to one of them."""
        target = self._right[row].to(self.device)
        products = self._passed(lambda x: x @ target) * (self._left @ self._left[row])
        norms = self._norms + self._norms[row]
        squared = norms - 2 * products
        near = (squared < NEAR * norms).nonzero()[:, 0]
        for some in near.split(max(1, BLOCK_BYTES // (8 * self._right.shape[1]))):
            squared[some] = self._by_differences(some, row, target)
        return squared

    def _by_differences(self, rows: Tensor, row: int, target: Tensor) -> Tensor:
        # a (x) h - b (x) k = a (x) (h - k) + (a - b) (x) k, each term as small as the difference itself.
        a, h = self._left[rows], self._right[rows.to(self._right.device)].to(self.device)
        da, dh = a - self._left[row], h - target
        mixed = 2 * (a * da).sum(dim=1) * (dh @ target)
        squared = a.square().sum(dim=1) * dh.square().sum(dim=1) + da.square().sum(dim=1) * target.square().sum()
        return (squared + mixed).clamp_min_(0)
