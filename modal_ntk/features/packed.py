"""Per-sample gradients of many samples held together in the smallest exact form, and their inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from modal_ntk.features.factors import Dense, Factor, add_gram, concatenated, squared_norms
from modal_ntk.features.functional import FunctionalNet

# Bytes that intermediate results of a block may take.
_BUDGET = 2**28


def packed(factor: Factor) -> Factor:
    """Return the same gradients written out if that takes no more memory than their factors."""
    if isinstance(factor, Dense):
        return factor
    written = len(factor) * factor.size * factor.outputs.element_size()
    return Dense(factor.dense()) if written <= factor.held_bytes else factor


def held_together(parts: list[tuple[int, dict[str, Factor]]], net: FunctionalNet) -> PackedGradients:
    """Join the gradients of consecutive samples; the parts are emptied on the way.

    Parameters
    ----------
    parts : list of (n, dict of str to Factor)
        Number of samples, and their gradients by parameter; where a part has none of a parameter they are zero.
    net : FunctionalNet
        Whose gradients they are; where there are none at all, zeros of its type on its device stand for them.

    Returns
    -------
    PackedGradients
        Of all samples.
    """
    held: dict[str, Factor] = {}
    names = list(dict.fromkeys(name for _, part in parts for name in part))
    for name in names:
        like = next(part[name] for _, part in parts if name in part)
        # Each parameter's pieces go as soon as they are joined.
        held[name] = concatenated([part.pop(name) if name in part else _zeros(n, like) for n, part in parts])
    if not held:
        none = torch.zeros(sum(n for n, _ in parts), 0, dtype=net.held_dtype, device=net.device)
        held[""] = Dense(none)
    return PackedGradients(held)


def _zeros(n: int, like: Factor) -> Factor:
    return like.mapped(lambda tensor: tensor.new_zeros(n, *tensor.shape[1:]))


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
    factors : dict of str to Factor
        One for each parameter, all of n rows.

    Examples
    --------
    >>> held = PackedGradients({"weight": Dense(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))})
    >>> held.squared_norms().tolist(), held.gram(0, 1).tolist()
    ([25.0, 1.0], [[25.0, 4.0]])
    """

    def __init__(self, factors: dict[str, Factor]) -> None:
        written = {name: f.gradient for name, f in factors.items() if isinstance(f, Dense)}
        joined = [Dense(torch.cat(list(written.values()), 1))] if written else []
        others = {name: f for name, f in factors.items() if not isinstance(f, Dense)}
        self.factors: list[Factor] = [*joined, *others.values()]
        self._written = {name: gradient.shape[1] for name, gradient in written.items()}
        self._others = list(others)

    def by_name(self) -> dict[str, Factor]:
        """Return the gradients of each parameter."""
        found: dict[str, Factor] = {}
        if self._written:
            parts = self.factors[0].dense().split(list(self._written.values()), 1)
            found.update({name: Dense(part) for name, part in zip(self._written, parts, strict=True)})
        found.update(zip(self._others, self.factors[bool(self._written) :], strict=True))
        return found

    def _pairs(self, other: PackedGradients) -> list[tuple[Factor, Factor]]:
        if (self._written, self._others) == (other._written, other._others):
            return list(zip(self.factors, other.factors, strict=True))
        mine, theirs = self.by_name(), other.by_name()
        return [(mine[name], theirs[name]) for name in mine if name in theirs]

    def __len__(self) -> int:
        return len(self.factors[0])

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(factor.held_bytes for factor in self.factors)

    def squared_norms(self) -> Tensor:
        """Return the squared length of every gradient: (n,)."""
        step = 1024  # what is written out on the way stays small
        parts = [
            torch.stack([squared_norms(f.rows(start, start + step)) for f in self.factors]).sum(0)
            for start in range(0, len(self), step)
        ]
        return torch.cat(parts)

    def gram(
        self, start: int, stop: int, columns: PackedGradients | None = None, *, n_columns: int | None = None
    ) -> Tensor:
        """Return inner products of some rows with the first of all, or of other, gradients: (stop - start, m)."""
        other = self if columns is None else columns
        n = len(other) if n_columns is None else n_columns
        out = self._any().new_zeros(stop - start, n)
        for left, right in self._pairs(other):
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
        for left, right in self._pairs(other):
            add_gram(out, left, right, budget=_BUDGET)

    def take(self, rows: Tensor) -> PackedGradients:
        """Return the gradients of some samples, by number."""
        return PackedGradients({name: f.mapped(lambda tensor: tensor[rows]) for name, f in self.by_name().items()})

    def _any(self) -> Tensor:
        first = self.factors[0]
        return first.gradient if isinstance(first, Dense) else first.outputs
