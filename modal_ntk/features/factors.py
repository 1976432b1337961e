"""Per-sample gradients in the form they arise in, and the inner products between them.

Rows are samples, or pairs of a sample and an output. The gradient of one parameter at a row is one of
    Dense:   g (p,)                                        held as (n, p);
    Outer:   sum over positions t of d_t h_t', by group    held as h (n, g, t, a) and d (n, g, t, b);
    Lookup:  d_t added to row i_t of a table               held as i (n, t) and d (n, t, b).
An Outer with one position never needs its (n, a * b) gradient: inner products of two are (h.h') (d.d').
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor


class _OfRows:
    # What the three forms have in common: their tensors, whose first axis is the rows.
    def tensors(self) -> dict[str, Tensor]:
        """Return what is held, by the names of the fields."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def mapped(self: _Form, change: Callable[[Tensor], Tensor]) -> _Form:
        """Return gradients of the same form, each tensor changed."""
        return self.of({name: change(tensor) for name, tensor in self.tensors().items()})

    def of(self: _Form, tensors: dict[str, Tensor]) -> _Form:
        """Return gradients of the same form, of other tensors."""
        return replace(self, **tensors)  # type: ignore[type-var]

    def rows(self: _Form, start: int, stop: int) -> _Form:
        """Return some of the rows."""
        return self.mapped(lambda tensor: tensor[start:stop])

    def __len__(self) -> int:
        return len(next(iter(self.tensors().values())))

    @property
    def held_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())


_Form = TypeVar("_Form", bound=_OfRows)


@dataclass(frozen=True)
class Dense(_OfRows):
    """Gradients of one parameter, written out: (n, p)."""

    gradient: Tensor

    def dense(self) -> Tensor:
        """Return the gradients (n, p)."""
        return self.gradient

    @property
    def size(self) -> int:
        """Number of entries of one gradient."""
        return self.gradient.shape[1]


@dataclass(frozen=True)
class Outer(_OfRows):
    """Gradients that are sums of outer products: inputs (n, g, t, a), output gradients (n, g, t, b)."""

    inputs: Tensor
    outputs: Tensor

    def dense(self) -> Tensor:
        """Return the gradients (n, g * b * a)."""
        return (self.outputs.mT @ self.inputs).flatten(1)

    @property
    def size(self) -> int:
        """Number of entries of one gradient."""
        return self.inputs.shape[1] * self.inputs.shape[3] * self.outputs.shape[3]


@dataclass(frozen=True)
class Lookup(_OfRows):
    """Gradients of a table of which each row reads some lines: indices (n, t), output gradients (n, t, b)."""

    indices: Tensor
    outputs: Tensor
    n_lines: int

    def dense(self) -> Tensor:
        """Return the gradients (n, n_lines * b)."""
        table = self.outputs.new_zeros(len(self), self.n_lines, self.outputs.shape[2])
        where = self.indices[:, :, None].expand_as(self.outputs)
        return table.scatter_add_(1, where, self.outputs).flatten(1)

    @property
    def size(self) -> int:
        """Number of entries of one gradient."""
        return self.n_lines * self.outputs.shape[2]


Factor: TypeAlias = Dense | Outer | Lookup


def n_bytes(factor: Factor) -> int:
    """Return what a factor holds, with its gradients written out where `add_gram` may do so."""
    held = factor.held_bytes
    if isinstance(factor, Outer) and factor.inputs.shape[2] > 1:
        held += len(factor) * factor.size * factor.inputs.element_size()
    return held


def concatenated(factors: list[Factor]) -> Factor:
    """Return the rows of several factors of one parameter as one, written out if they are not of one form."""
    if len({_form(factor) for factor in factors}) > 1:
        return Dense(torch.cat([factor.dense() for factor in factors]))
    return _side_by_side(factors, 0)


def joined(factors: list[Factor]) -> Factor | None:
    """Return the sum of gradients of one parameter that was used several times, or None if forms differ."""
    first = factors[0]
    if len(factors) == 1:
        return first
    if len({_widths(f) for f in factors}) > 1:
        return None
    if isinstance(first, Dense):
        return Dense(torch.stack([f.dense() for f in factors]).sum(0))
    return _side_by_side(factors, 2 if isinstance(first, Outer) else 1)


def _side_by_side(factors: list[Factor], axis: int) -> Factor:
    columns = {name: torch.cat([f.tensors()[name] for f in factors], axis) for name in factors[0].tensors()}
    return factors[0].of(columns)


def _form(factor: Factor) -> tuple[Any, ...]:
    # What must be the same for rows to be laid below one another.
    return type(factor), *(tensor.shape[1:] for tensor in factor.tensors().values())


def _widths(factor: Factor) -> tuple[Any, ...]:
    # What must be the same for gradients to be laid side by side.
    if isinstance(factor, Outer):
        return Outer, factor.inputs.shape[1], factor.inputs.shape[3], factor.outputs.shape[3]
    if isinstance(factor, Lookup):
        return Lookup, factor.n_lines, factor.outputs.shape[2]
    return Dense, factor.size


def total(factor: Factor) -> Tensor:
    """Return the sum of all gradients: (p,)."""
    if isinstance(factor, Outer):
        sides = (side.transpose(0, 1).flatten(1, 2) for side in (factor.outputs, factor.inputs))
        left, right = sides
        return (left.mT @ right).flatten()
    if isinstance(factor, Lookup):
        table = factor.outputs.new_zeros(factor.n_lines, factor.outputs.shape[2])
        return table.index_add_(0, factor.indices.flatten(), factor.outputs.flatten(0, 1)).flatten()
    return factor.gradient.sum(0)


def squared_norms(factor: Factor) -> Tensor:
    """Return the squared length of each gradient: (n,)."""
    if isinstance(factor, Outer) and factor.inputs.shape[1] == factor.inputs.shape[2] == 1:
        return factor.inputs.square().sum((1, 2, 3)) * factor.outputs.square().sum((1, 2, 3))
    if isinstance(factor, Outer) and _few_positions(factor):
        grams = [data @ data.mT for data in (factor.inputs, factor.outputs)]
        return (grams[0] * grams[1]).sum((1, 2, 3))
    if isinstance(factor, Lookup):
        rows, _, outputs = _by_line(factor)
        return outputs.new_zeros(len(factor)).index_add_(0, rows, outputs.square().sum(1))
    return factor.dense().square().sum(1)


def _few_positions(factor: Outer) -> bool:
    # Gradients by pairs of positions cost less than written out.
    positions, a, b = factor.inputs.shape[2], factor.inputs.shape[3], factor.outputs.shape[3]
    return positions * (a + b + 10) < a * b


def products(factor: Factor, vector: Tensor) -> Tensor:
    """Return the inner product of each gradient with one vector (p,), as long as a gradient: (n,)."""
    if isinstance(factor, Outer):
        groups, a, b = factor.inputs.shape[1], factor.inputs.shape[3], factor.outputs.shape[3]
        # One product per group over all rows at once, several times faster than one for each row.
        pulled = factor.outputs.transpose(0, 1).reshape(groups, -1, b) @ vector.view(groups, b, a)
        return (pulled.view(groups, len(factor), -1, a).transpose(0, 1) * factor.inputs).sum((1, 2, 3))
    if isinstance(factor, Lookup):
        return (vector.view(factor.n_lines, -1)[factor.indices] * factor.outputs).sum((1, 2))
    return factor.gradient @ vector


def norms_and_products(factor: Factor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return `squared_norms` and `products`, writing gradients out once where both would."""
    if isinstance(factor, Outer) and factor.inputs.shape[2] > 1 and not _few_positions(factor):
        factor = Dense(factor.dense())
    return squared_norms(factor), products(factor, vector)


def add_gram(out: Tensor, left: Factor, right: Factor, *, budget: int) -> None:
    """Add the inner products of two sets of gradients of one parameter to a kernel, in place.

    Parameters
    ----------
    out : Tensor (n, m)
        Kernel to add to. If `left` is `right`, only entries on and above the diagonal are meaningful after.
    left, right : Factor
        Gradients of n and of m rows.
    budget : int
        Bytes that intermediate results may take.
    """
    same = left is right
    if isinstance(left, Lookup) and isinstance(right, Lookup) and _add_lines(out, left, right, budget):
        return
    pairwise = type(left) is type(right) and _pairwise_cost(left, right) < _dense_cost(left, right)
    if not pairwise:
        left = Dense(left.dense())
        right = left if same else Dense(right.dense())
    step = max(1, budget // max(1, _bytes_per_row(left, right)))
    if same:
        step = min(step, max(256, len(left) // 8))
    for start in range(0, len(left), step):
        stop = min(start + step, len(left))
        # A kernel of a set with itself is symmetric: blocks below the diagonal are left out, hence the short steps.
        first = start if same else 0
        _add_block(out[start:stop, first:], left.rows(start, stop), right.rows(first, len(right)))


def _pairwise_cost(left: Factor, right: Factor) -> float:
    pairs = float(len(left) * len(right))
    if isinstance(left, Outer) and isinstance(right, Outer):
        positions = left.inputs.shape[2] * right.inputs.shape[2]
        width = left.inputs.shape[3] + left.outputs.shape[3]
        # Beyond one position, a pass over memory for the product costs about as much as ten more columns.
        return pairs * left.inputs.shape[1] * positions * (width + (0 if positions == 1 else 10))
    return float("inf") if isinstance(left, Lookup) else 0.0


def _dense_cost(left: Factor, right: Factor) -> float:
    forming = 0.0
    for factor in (left, right):
        positions = factor.inputs.shape[2] if isinstance(factor, Outer) else 1
        forming += float(len(factor)) * positions * factor.size
    return forming + float(len(left) * len(right)) * left.size


def _bytes_per_row(left: Factor, right: Factor) -> int:
    positions = 1
    if isinstance(left, Outer) and isinstance(right, Outer):
        positions = left.inputs.shape[1] * left.inputs.shape[2] * right.inputs.shape[2]
    return 2 * len(right) * positions * 8


def _add_block(out: Tensor, left: Factor, right: Factor) -> None:
    if isinstance(left, Dense) and isinstance(right, Dense):
        out.addmm_(left.gradient, right.gradient.T)
    elif isinstance(left, Outer) and isinstance(right, Outer):
        if left.inputs.shape[1] == left.inputs.shape[2] == right.inputs.shape[2] == 1:
            products = left.inputs[:, 0, 0] @ right.inputs[:, 0, 0].T
            out.addcmul_(products, left.outputs[:, 0, 0] @ right.outputs[:, 0, 0].T)
        else:
            _add_positions(out, left, right)


def _add_positions(out: Tensor, left: Outer, right: Outer) -> None:
    for group in range(left.inputs.shape[1]):
        inputs = torch.einsum("isa,jta->ijst", left.inputs[:, group], right.inputs[:, group])
        outputs = torch.einsum("isb,jtb->ijst", left.outputs[:, group], right.outputs[:, group])
        out.add_(inputs.mul_(outputs).sum((2, 3)))


def _by_line(factor: Lookup) -> tuple[Tensor, Tensor, Tensor]:
    # What each row adds to each line that it reads, in order of lines: the row, the line, and what it adds (..., b).
    n = len(factor)
    keys = factor.indices * n + torch.arange(n, device=factor.indices.device)[:, None]
    found, places = keys.flatten().unique(return_inverse=True)
    outputs = factor.outputs.new_zeros(len(found), factor.outputs.shape[2])
    outputs.index_add_(0, places, factor.outputs.flatten(0, 1))
    return found % n, found // n, outputs


def _add_lines(out: Tensor, left: Lookup, right: Lookup, budget: int) -> bool:
    # Rows meet in the lines that both read, and in few tables are these many: adds their products, if that is cheaper
    # than products of whole tables, and tells.
    rows, lines, outputs = _by_line(left)
    others, other_lines, other_outputs = (rows, lines, outputs) if left is right else _by_line(right)
    first = torch.searchsorted(other_lines, lines)
    counts = torch.searchsorted(other_lines, lines, right=True) - first
    width = outputs.shape[1]
    # Fetching two lines costs about as much as multiplying them.
    if 4.0 * float(counts.sum()) * width > _dense_cost(left, right):
        return False
    at_once = max(1, budget // (3 * width * outputs.element_size() + 32))
    number = ((counts.cumsum(0) - 1) // at_once).clamp_min(0)
    found = out.new_zeros(out.numel())
    for part in torch.arange(len(lines), device=out.device).split(number.bincount(minlength=1).tolist()):
        here = counts[part]
        one = part.repeat_interleave(here)
        # Lines of the other side that meet one line lie side by side.
        two = torch.arange(len(one), device=out.device) - (here.cumsum(0) - here - first[part]).repeat_interleave(here)
        found.index_add_(0, rows[one] * out.shape[1] + others[two], (outputs[one] * other_outputs[two]).sum(1))
    out.add_(found.view_as(out))
    return True
