"""Per-sample gradients of many samples held together in the smallest exact form, and their inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from modal_ntk.features.factors import Dense, Factor, Lookup, Outer, add_gram, squared_norms

# Bytes that intermediate results of a block may take.
_BUDGET = 2**28


def packed(factor: Factor) -> Factor:
    """Return the same gradients written out if that takes no more memory than their factors."""
    if isinstance(factor, Dense):
        return factor
    written = len(factor) * factor.size * factor.outputs.element_size()
    return Dense(factor.dense()) if written <= held_bytes(factor) else factor


def held_bytes(factor: Factor) -> int:
    """Return the bytes of a factor's own tensors."""
    if isinstance(factor, Dense):
        return factor.gradient.nbytes
    other = factor.inputs if isinstance(factor, Outer) else factor.indices
    return other.nbytes + factor.outputs.nbytes


def concatenated(factors: list[Factor]) -> Factor:
    """Return the rows of several factors of one parameter, all of one form, as one."""
    first = factors[0]
    if isinstance(first, Outer):
        outer = [f for f in factors if isinstance(f, Outer)]
        return Outer(torch.cat([f.inputs for f in outer]), torch.cat([f.outputs for f in outer]))
    if isinstance(first, Lookup):
        lookups = [f for f in factors if isinstance(f, Lookup)]
        return Lookup(torch.cat([f.indices for f in lookups]), torch.cat([f.outputs for f in lookups]), first.n_lines)
    return Dense(torch.cat([f.dense() for f in factors]))


def held_together(parts: list[list[Factor]]) -> PackedGradients:
    """Join the factors of consecutive samples, by parameter within each part; the parts are emptied on the way."""
    held = []
    for number in range(len(parts[0])):
        held.append(concatenated([part[number] for part in parts]))
        for part in parts:
            part[number] = Dense(torch.empty(0))  # each parameter's pieces go as soon as they are joined
    return PackedGradients(held)


def taken(factor: Factor, rows: Tensor) -> Factor:
    """Return some rows of a factor, by number, as copies."""
    if isinstance(factor, Outer):
        return Outer(factor.inputs[rows], factor.outputs[rows])
    if isinstance(factor, Lookup):
        return Lookup(factor.indices[rows], factor.outputs[rows], factor.n_lines)
    return Dense(factor.gradient[rows])


def mirror(out: Tensor, step: int = 1024) -> None:
    """Copy what is above the diagonal of a square matrix below it, in place."""
    # By blocks, so that no second matrix of the kernel's size is made.
    for start in range(0, len(out), step):
        stop = min(start + step, len(out))
        corner = out[start:stop, start:stop].triu()
        out[start:stop, start:stop] = corner + corner.triu(1).T
        out[stop:, start:stop] = out[start:stop, stop:].T


class PackedGradients:
    """Gradients of n samples; those that are written out lie in one matrix, so that one product serves them all.

    Parameters
    ----------
    factors : list of Factor
        One for each parameter, all of n rows.

    Examples
    --------
    >>> held = PackedGradients([Dense(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))])
    >>> held.squared_norms().tolist(), held.gram(0, 1).tolist()
    ([25.0, 1.0], [[25.0, 4.0]])
    """

    def __init__(self, factors: list[Factor]) -> None:
        written = [f.gradient for f in factors if isinstance(f, Dense)]
        joined = [Dense(torch.cat(written, 1) if len(written) > 1 else written[0])] if written else []
        self.factors: list[Factor] = [*joined, *(f for f in factors if not isinstance(f, Dense))]

    def __len__(self) -> int:
        return len(self.factors[0])

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(held_bytes(factor) for factor in self.factors)

    def squared_norms(self) -> Tensor:
        """Return the squared length of every gradient: (n,)."""
        step = 1024  # what is written out on the way stays small
        parts = [
            torch.stack([squared_norms(f.rows(start, start + step)) for f in self.factors]).sum(0)
            for start in range(0, len(self), step)
        ]
        return torch.cat(parts)

    @property
    def device(self) -> torch.device:
        """Where the gradients are held."""
        return self._any().device

    def gram(
        self, start: int, stop: int, columns: PackedGradients | None = None, *, n_columns: int | None = None
    ) -> Tensor:
        """Return inner products of some rows with the first of all, or of other, gradients: (stop - start, m)."""
        other = self if columns is None else columns
        n = len(other) if n_columns is None else n_columns
        out = self._any().new_zeros(stop - start, n)
        for left, right in zip(self.factors, other.factors, strict=True):
            add_gram(out, left.rows(start, stop), right.rows(0, n), budget=_BUDGET)
        return out

    def matrix(self) -> Tensor:
        """Return all inner products, symmetric to the last bit: (n, n)."""
        out = self._any().new_zeros(len(self), len(self))
        self.add_gram_to(out)
        mirror(out)
        return out

    def add_gram_to(self, out: Tensor, columns: PackedGradients | None = None) -> None:
        """Add the inner products with other gradients, or among these on and above the diagonal, to (n, m) in place."""
        other = self if columns is None else columns
        for left, right in zip(self.factors, other.factors, strict=True):
            add_gram(out, left, right, budget=_BUDGET)

    def take(self, rows: Tensor) -> PackedGradients:
        """Return the gradients of some samples, by number."""
        return PackedGradients([taken(factor, rows) for factor in self.factors])

    def _any(self) -> Tensor:
        first = self.factors[0]
        return first.gradient if isinstance(first, Dense) else first.outputs
