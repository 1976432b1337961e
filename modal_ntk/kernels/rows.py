"""A kernel over many samples that gives its diagonal, single rows and blocks, without being held."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modal_ntk import checks, progress
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.cotangents import Combined
from modal_ntk.features.factors import Dense, Factor
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.packed import PackedGradients, held_together, packed
from modal_ntk.features.reporting import warn
from modal_ntk.features.sketches import seeds_of, sketch
from modal_ntk.nets.room import in_parts

RowKind = Literal["pseudo", "labelled", "loss"]
RowMethod = Literal["auto", "exact", "sketch"]


class KernelRows:
    """Inner products of the gradients of many samples, computed for the rows that are asked for.

    Parameters
    ----------
    gradients : PackedGradients
        Gradients of n samples.
    info : dict
        How they were made: ``method`` and ``bytes``.

    Examples
    --------
    >>> rows = kernel_rows(nn.Linear(2, 4, bias=False), torch.eye(2), kind="pseudo")
    >>> len(rows), rows.diagonal().tolist(), rows.row(1).tolist()
    (2, [1.0, 1.0], [0.0, 1.0])
    """

    def __init__(self, gradients: PackedGradients, info: dict[str, Any] | None = None) -> None:
        self.gradients = gradients
        self.info = {} if info is None else info

    def __len__(self) -> int:
        return len(self.gradients)

    def diagonal(self) -> np.ndarray:
        """Return the kernel of every sample with itself: (n,)."""
        return _array(self.gradients.squared_norms())

    def inverse_lengths(self) -> np.ndarray:
        """Return what products are scaled by to be cosines: (n,) float64, zero for a sample without gradient."""
        lengths = np.sqrt(np.maximum(self.diagonal(), 0)).astype(np.float64)
        return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)

    def row(self, i: int) -> np.ndarray:
        """Return the kernel of one sample with all: (n,)."""
        return self.block(i, i + 1)[0]

    def rows_at(self, rows: Any) -> np.ndarray:
        """Return the kernel of some samples, by number, with all: (k, n)."""
        return self.take(rows).cross(self)

    def block(self, start: int, stop: int, n_columns: int | None = None) -> np.ndarray:
        """Return the kernel of consecutive samples with all, or with the first `n_columns`: (stop - start, n)."""
        return _array(self.gradients.gram(start, stop, n_columns=n_columns))

    def cross(self, other: KernelRows) -> np.ndarray:
        """Return the kernel of all samples with those of other rows of the same net: (n, m)."""
        return _array(self.gradients.gram(0, len(self), other.gradients))

    def take(self, rows: Any) -> KernelRows:
        """Return the kernel over some of the samples, by number, in that order.

        Parameters
        ----------
        rows : array-like (k,) of int
            Numbers of distinct samples.

        Returns
        -------
        KernelRows
            Over k samples; their gradients are copied.
        """
        chosen = torch.from_numpy(checks.check_rows("rows", rows, len(self)))
        return KernelRows(self.gradients.take(chosen), self.info)

    def matrix(self) -> np.ndarray:
        """Return the whole kernel, symmetric to the last bit: (n, n)."""
        return _array(self.gradients.matrix())


def kernel_rows(
    module: nn.Module,
    x: Any,
    *,
    kind: RowKind = "labelled",
    labels: Any = None,
    signs: Any = None,
    method: RowMethod = "auto",
    memory_budget: int = 2**32,
    dtype: torch.dtype | None = None,
    sketch_dim: int = 1024,
    random_state: Any = None,
    verbose: int = 0,
    verify: bool = True,
) -> KernelRows:
    """Prepare a network's tangent kernel over samples, to be read by rows.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples.
    kind : {"labelled", "pseudo", "loss"}, default="labelled"
        As in `empirical_ntk`.
    labels : array-like (n,), optional
        Class numbers, for "labelled" and "loss".
    signs : Tensor (n, K), optional
        For "labelled", weights of the outputs in place of +1 at the label and -1 elsewhere.
    method : {"auto", "exact", "sketch"}, default="auto"
        "exact" holds each layer's gradients as inputs and output gradients, or written out where that is smaller;
        "sketch" projects each parameter's to `sketch_dim` numbers; "auto" is exact if that keeps to `memory_budget`.
    memory_budget : int, default=2**32
        Bytes that exact gradients of all samples may take; on the way twice as many are held. What is projected takes
        `sketch_dim` numbers a sample and parameter at most, whatever the budget.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.
    sketch_dim : int, default=1024
        Numbers kept for each parameter by "sketch"; gradients with fewer are kept exactly.
    random_state : int, generator or None, default=None
        Seed of the sketch.
    verbose : int, default=0
        Whether to show progress.
    verify : bool, default=True
        Whether gradients are compared with plain autograd on every batch; otherwise on two samples alone.

    Returns
    -------
    KernelRows
        The kernel; ``info`` tells the method used.

    Raises
    ------
    InvalidInputError
        If an argument is unusable, or exact gradients are asked for and would not fit.

    Warns
    -----
    ModalNTKWarning
        If "auto" sketches, because exact gradients would not fit.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> kernel_rows(net, torch.tensor([[1.0], [2.0]]), labels=[0, 1]).matrix().round(3).tolist()
    [[1.0, -2.0], [-2.0, 4.0]]
    """
    checks.check_choice("kind", kind, ("labelled", "pseudo", "loss"))
    checks.check_choice("method", method, ("auto", "exact", "sketch"))
    budget = checks.check_integer("memory_budget", memory_budget)
    dim = checks.check_integer("sketch_dim", sketch_dim)
    seed = int(checks.check_random_state(random_state).integers(2**31))
    net = FunctionalNet(module, dtype)
    every = Combined(net.batch(x), kind, signs, labels)
    n = len(every)
    seeds = seeds_of(net.parameters, seed)
    with progress.work("kernel_rows", verbose), net.evaluating():
        routes = Routes(net, every.x, verify=verify)

        def factors(start: int, stop: int) -> dict[str, Factor]:
            part = every[start:stop]
            gradients = routes.gradients(part.x, part.weights)
            return {name: gradients.factor(name, joint=True) for name in gradients.names}

        first = factors(0, 1).values()
        needed = n * sum(packed(factor).held_bytes for factor in first)
        if method == "auto":
            method = "exact" if needed <= budget else "sketch"
            if method == "sketch":
                projected = n * sum(min(factor.size, dim) for factor in first) * net.held_dtype.itemsize
                warn(
                    f"Exact gradients of all samples would take {_size(needed)}, more than memory_budget "
                    f"({_size(budget)}): each parameter's are projected to {dim} numbers instead, which take "
                    f"{_size(projected)}."
                )
        elif method == "exact" and needed > budget:
            remedy = 'Raise memory_budget, or use method="sketch".'
            raise checks.expected(f"gradients of at most {budget} bytes", f"{needed}", remedy)
        step = max(1, min(1024, budget // max(1, 4 * routes.bytes_per_direction)))

        def part(start: int, stop: int) -> tuple[int, dict[str, Factor]]:
            return stop - start, {
                name: packed(factor) if method == "exact" else Dense(sketch(factor, dim, seeds[name]))
                for name, factor in factors(start, stop).items()
            }

        gradients = held_together(list(in_parts(part, n, step, stage="gradients")), net)
    return KernelRows(gradients, {"method": method, "bytes": gradients.n_bytes, "routes": routes.by_name})


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes >= 2**20 else f"{n_bytes:,} bytes"


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
