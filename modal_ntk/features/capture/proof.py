"""What makes a route's gradients believed: random sums of them over a batch, compared with plain backward passes.

Every weighted output of a batch gets a random weight of its own. One backward pass of the outputs so weighted gives
the weighted sum of the true gradients, and gradients of another making are right, with probability one, only if their
sum is the same (Freivalds' way of checking a matrix product). A large gradient is not summed in full: both sides are
multiplied by a few random pairs of vectors, which tells them apart as surely and costs a fraction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modal_ntk.features.factors import Factor, Lookup, Outer

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 8e-2}

# Pairs of vectors by which large gradients are compared; a wrong one hides from all with a chance below 1e-8.
_N_PAIRS = 3


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error that rounding in a type may make of a sum over a batch."""
    return _ROUNDING[dtype]


class Draws:
    """Random numbers of the proofs: seeded, and no global generator touched."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def weights(self, n: int, r: int, like: Tensor) -> Tensor:
        """Return weights (n, r) for the outputs of n samples: no two alike, of either sign, near one in size."""
        sizes = 0.5 + torch.rand(n, r, generator=self._generator, dtype=torch.float64)
        signs = 2 * torch.randint(2, (n, r), generator=self._generator) - 1
        return (sizes * signs).to(like)

    def rows(self, n: int, *, one_in: int = 4) -> list[int]:
        """Return the numbers of a quarter (or another part) of n samples, in order, one at least."""
        return sorted(torch.randperm(n, generator=self._generator)[: math.ceil(n / one_in)].tolist())

    def pairs(self, shape: torch.Size, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return random vectors for the first axis of a parameter, and for the others as one: (k, a) and (k, b)."""
        lines = shape[0] if len(shape) else 1
        sizes = lines, math.prod(shape[1:])
        left, right = (torch.randn(_N_PAIRS, size, generator=self._generator) for size in sizes)
        return left.to(like), right.to(like)


def projected(factor: Factor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum of gradients over all rows, multiplied from both sides by pairs of vectors: (k,)."""
    left, right = pairs
    k = len(left)
    if isinstance(factor, Outer):
        groups = factor.inputs.shape[1]
        outputs = factor.outputs @ left.view(k, groups, -1).permute(1, 2, 0)
        return ((factor.inputs @ right.T) * outputs).sum((0, 1, 2))
    if isinstance(factor, Lookup):
        return ((factor.outputs @ right.T) * left.T[factor.indices]).sum((0, 1))
    return multiplied(factor.gradient.sum(0), pairs)


def multiplied(gradient: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return one gradient multiplied from both sides by pairs of vectors: (k,)."""
    left, right = pairs
    return ((left @ gradient.reshape(left.shape[1], right.shape[1])) * right).sum(1)


def agree(got: Tensor, want: Tensor, scale: float, dtype: torch.dtype) -> bool:
    """Tell whether two values of the same quantity, of a given size, differ by no more than rounding."""
    # Written so that a NaN counts as wrong.
    return float((got - want).abs().max()) <= tolerance(dtype) * scale


def coarsest(*dtypes: torch.dtype) -> torch.dtype:
    """Return the float type of least precision among some types, of which one at least is a float."""
    return max((dtype for dtype in dtypes if dtype in _ROUNDING), key=lambda dtype: _ROUNDING[dtype])
