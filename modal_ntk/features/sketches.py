"""Seeded random projections of each layer's gradients that keep inner products right on average.

An outer product is projected through its two sides, ``(A h) * (B d)`` entry by entry, with signs as entries of A and
B; a gradient that is written out, or cheaper to write out, is hashed into as many buckets with random signs. Both are
unbiased, with an error that falls as one over the root of the dimension. What is no larger than that is kept as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from modal_ntk.features.factors import Factor, Lookup, Outer

# Hashing moves single numbers through memory, about thirty times slower than a product adds them.
_HASH_COST = 30


def seeds_of(names: Iterable[str], seed: int) -> dict[str, int]:
    """Return the seed of each parameter's projection: the same wherever a net is sketched with one seed."""
    return dict(zip(names, itertools.count(seed), strict=False))


def sketch(factor: Factor, dim: int, seed: int, *, keep_small: bool = True) -> Tensor:
    """Project gradients of one parameter to a chosen dimension.

    Parameters
    ----------
    factor : Factor
        Gradients of n rows.
    dim : int
        Dimension to project to.
    seed : int
        Gradients projected with one seed are comparable; use another for each parameter.
    keep_small : bool, default=True
        Whether gradients with no more than `dim` entries are returned as they are.

    Returns
    -------
    Tensor (n, dim), or fewer columns if kept small
        Inner products of two rows are those of their gradients on average over seeds.

    Examples
    --------
    >>> from modal_ntk.features.factors import Dense
    >>> sketch(Dense(torch.eye(30)), 8, 0).shape
    torch.Size([30, 8])
    """
    if keep_small and factor.size <= dim:
        return factor.dense()
    generator = torch.Generator().manual_seed(seed)
    if isinstance(factor, Outer) and _sides_are_cheaper(factor, dim):
        return _sides(factor, dim, generator)
    if isinstance(factor, Lookup):
        lines = _signs((dim, factor.n_lines), generator, factor.outputs)
        values = _signs((dim, factor.outputs.shape[2]), generator, factor.outputs)
        return ((factor.outputs @ values.T) * lines.T[factor.indices]).sum(1) / math.sqrt(dim)
    return _hashed(factor.dense(), dim, generator)


def _sides_are_cheaper(factor: Outer, dim: int) -> bool:
    groups, positions, a = factor.inputs.shape[1:]
    b = factor.outputs.shape[3]
    by_sides = groups * positions * dim * (a + b)
    return by_sides < groups * positions * a * b + _HASH_COST * factor.size


def _sides(factor: Outer, dim: int, generator: torch.Generator) -> Tensor:
    groups, a, b = factor.inputs.shape[1], factor.inputs.shape[3], factor.outputs.shape[3]
    left = _signs((groups, a, dim), generator, factor.inputs)
    right = _signs((groups, b, dim), generator, factor.inputs)
    return ((factor.inputs @ left) * (factor.outputs @ right)).sum((1, 2)) / math.sqrt(dim)


def _hashed(gradients: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    p = gradients.shape[1]
    buckets = torch.randint(dim, (p,), generator=generator).to(gradients.device)
    signed = gradients * _signs((p,), generator, gradients)
    return gradients.new_zeros(len(gradients), dim).index_add_(1, buckets, signed)


def _signs(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    # Drawn on the CPU, so that a seed means the same on every device.
    return (2 * torch.randint(2, shape, generator=generator) - 1).to(like)
