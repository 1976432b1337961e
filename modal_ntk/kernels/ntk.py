"""The empirical neural tangent kernel of a torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import torch
from torch import Tensor, nn

from modal_ntk import checks, progress
from modal_ntk.features.capture.routes import Routes, SampleGradients
from modal_ntk.features.cotangents import KINDS, Combined
from modal_ntk.features.factors import Dense, Factor, add_gram
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.packed import PackedGradients, held_together, mirror, packed
from modal_ntk.features.sketches import seeds_of, sketch
from modal_ntk.nets.room import in_parts

if TYPE_CHECKING:
    from typing_extensions import Unpack

Kind = Literal["pseudo", "trace", "full", "labelled", "loss", "mse"]
Method = Literal["auto", "explicit", "factored", "sketch"]
Info = dict[str, Any]
Form = Callable[[SampleGradients], dict[str, Factor]]


class _Options(TypedDict, total=False):
    # Of `empirical_ntk`, whatever it returns.
    kind: Kind
    signs: Any
    labels: Any
    method: Method
    memory_budget: int
    dtype: torch.dtype | None
    sketch_dim: int
    random_state: Any
    verbose: int
    verify: bool


@overload
def empirical_ntk(
    module: nn.Module, x1: Any, x2: Any = None, *, return_info: Literal[False] = False, **options: Unpack[_Options]
) -> Tensor: ...


@overload
def empirical_ntk(
    module: nn.Module, x1: Any, x2: Any = None, *, return_info: Literal[True], **options: Unpack[_Options]
) -> tuple[Tensor, Info]: ...


def empirical_ntk(
    module: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    kind: Kind = "pseudo",
    signs: Any = None,
    labels: Any = None,
    method: Method = "auto",
    memory_budget: int = 2**30,
    dtype: torch.dtype | None = None,
    sketch_dim: int = 1024,
    random_state: Any = None,
    verbose: int = 0,
    verify: bool = True,
    return_info: bool = False,
) -> Tensor | tuple[Tensor, Info]:
    """Compute inner products of a network's parameter gradients between samples.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode, by those of
        its parameters that require gradients; left as found.
    x1 : Tensor (n1, ...), or dict of them by argument
        Samples of the rows.
    x2 : Tensor (n2, ...), or dict of them, optional
        Samples of the columns; those of the rows by default.
    kind : {"pseudo", "trace", "full", "labelled", "loss", "mse"}, default="pseudo"
        What is differentiated: the sum of the outputs over root K; each output, kernels averaged; each output, kernels
        of all pairs kept apart; the outputs signed by label over root K (lpNTK); the cross-entropy; half
        the squared error of the outputs to the one-hot label.
    signs : Tensor (n1, K), or a tuple for rows and columns, optional
        For "labelled", weights of the outputs in place of +1 at the label and -1 elsewhere.
    labels : array-like (n1,), or a tuple for rows and columns, optional
        Class numbers, for "labelled", "loss" and "mse".
    method : {"auto", "explicit", "factored", "sketch"}, default="auto"
        "explicit" writes per-sample gradients out; "factored" does so only where a layer's structure makes that the
        cheaper way; "sketch" projects them at random. "auto" is "factored", which is exact and weighs costs by layer.
    memory_budget : int, default=2**30
        Bytes for what is held beside module and result, as estimated from two samples; the samples are taken in
        chunks to keep to it, one sample at least.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.
    sketch_dim : int, default=1024
        For "sketch", the dimension that each parameter's gradient is projected to.
    random_state : int, generator or None, default=None
        Seed of the sketch.
    verbose : int, default=0
        Whether to show progress.
    verify : bool, default=True
        Whether gradients are compared with plain autograd on every chunk; otherwise on two samples alone.
    return_info : bool, default=False
        Whether to return also how it was done.

    Returns
    -------
    kernel : Tensor (n1, n2), or (n1, n2, K, K) for "full"
        On the module's device, in the type computed in (float32 for half precision); symmetric to the last bit if
        `x2` is not given.
    info : dict
        Only if asked for: ``routes``, by parameter one of "factored", "backpack", "torch.func", "loop" (one sample
        at a time) and "none" (the outputs do not depend on it), the slowest that a chunk took; ``n_chunk``, the samples
        taken at once; ``verified``;
        ``backpack_error``, what kept BackPACK from following the module, or None.

    Raises
    ------
    InvalidInputError
        If an argument is unusable, a needed label is missing, outputs or gradients are not finite, or they depend on
        which samples share a batch.

    Warns
    -----
    ModalNTKWarning
        If some parameters can only be served one sample at a time, or a route that was right fails on a later chunk.

    Notes
    -----
    For a linear layer with input h and output gradient d, the gradients' inner product is (h.h')(d.d'), so the
    (n, p) matrix of gradients is never formed; sums over positions and over several uses of a weight keep that form.
    On every chunk, the gradients of randomly weighted outputs are added up and compared with one backward pass of
    these, and the outputs of a part of the chunk with those of the whole: a parameter whose route is not right to
    rounding takes the next route. The pseudo-kernel is that of
    Mohamadi and Sutherland, "labelled" is equation 3 of lpNTK. The factor 1/K is part of all but "full",
    "loss" and "mse".

    Examples
    --------
    >>> net = nn.Linear(2, 3, bias=False)
    >>> empirical_ntk(net, torch.tensor([[1.0, 2.0], [0.0, 1.0]])).round(decimals=3).tolist()
    [[5.0, 2.0], [2.0, 1.0]]
    """
    checks.check_choice("kind", kind, KINDS)
    checks.check_choice("method", method, ("auto", "explicit", "factored", "sketch"))
    budget = checks.check_integer("memory_budget", memory_budget)
    net = FunctionalNet(module, dtype)

    def side(x: Any, number: int) -> Combined:
        pairs = (own if isinstance(own, tuple) else (own, None) for own in (signs, labels))
        return Combined(net.batch(x), kind, *(pair[number] for pair in pairs))

    left, right = side(x1, 0), None if x2 is None else side(x2, 1)
    with progress.work("empirical_ntk", verbose), net.evaluating():
        job = _Job(net, Routes(net, left.x, explicit=method == "explicit", verify=verify), kind, budget)
        if method == "sketch":
            seed = int(checks.check_random_state(random_state).integers(2**31))
            kernel = job.sketched(left, right, checks.check_integer("sketch_dim", sketch_dim), seed)
        else:
            kernel = job.exact(left, right)
    routes = job.routes
    info = {
        "routes": routes.by_name, "n_chunk": job.n_chunk, "verified": verify, "backpack_error": routes.backpack_error
    }  # fmt: skip
    return (kernel, info) if return_info else kernel


class _Job:
    """One kernel under way: chunks of rows against chunks of columns, parameter by parameter."""

    def __init__(self, net: FunctionalNet, routes: Routes, kind: str, budget: int) -> None:
        self.net, self.routes, self.kind, self.budget = net, routes, kind, budget
        self.joint = kind != "full"
        self.width = 1 if self.joint else routes.n_outputs
        self.n_directions = routes.n_outputs if kind in ("trace", "full") else 1
        self.n_chunk = max(1, budget // max(1, routes.bytes_per_direction * self.n_directions))

    def exact(self, left: Combined, right: Combined | None) -> Tensor:
        other = left if right is None else right
        n = len(left) + (0 if right is None else len(right))
        whole = n <= self.n_chunk
        out = self._zeros(left, other)
        if not whole and len(left) and len(other) and self._can_hold(n, left):
            # Every sample is read once for each output, and none of them again for another chunk.
            step = max(1, self.n_chunk * self.n_directions // 2)
            for direction in range(self.n_directions):
                self._add_held(out, left, right, _packed, step, direction)
            return self._shaped(out, left, right)
        # Columns are recomputed for every chunk of rows, so rows get the larger share.
        n_rows = self.n_chunk if whole else max(1, self.n_chunk * 3 // 4)
        n_columns = max(1, len(other) if whole else self.n_chunk - n_rows)
        w = self.width

        def fill(start: int, stop: int) -> None:
            rows = self._gradients(left[start:stop])
            band = out[start * w : stop * w]
            if right is None:
                self._fill(band[:, start * w : stop * w], rows, rows)

            def fill_beside(begin: int, end: int) -> None:
                self._fill(band[:, begin * w : end * w], rows, self._gradients(other[begin:end]))

            list(in_parts(fill_beside, len(other), n_columns, start=stop if right is None else 0))

        list(in_parts(fill, len(left), n_rows, stage="kernel"))
        return self._shaped(out, left, right)

    def _can_hold(self, n: int, left: Combined) -> bool:
        # Where not all samples can be read at once, their gradients alone may still fit: half of the budget is theirs.
        if not self.joint or not self.routes.names():
            return False
        one = _packed(self._gradients(left[:1], 0))
        return 2 * n * sum(factor.held_bytes for factor in one.values()) <= self.budget

    def _add_held(
        self, out: Tensor, left: Combined, right: Combined | None, form: Form, step: int, direction: int | None = None
    ) -> None:
        # Adds the products of gradients that are all held at once, in the form given.
        def held(side: Combined) -> PackedGradients:
            def part(start: int, stop: int) -> tuple[int, dict[str, Factor]]:
                return (stop - start) * self.width, form(self._gradients(side[start:stop], direction))

            return held_together(list(in_parts(part, len(side), step, stage="kernel")), self.net)

        held(left).add_gram_to(out, None if right is None else held(right))

    def sketched(self, left: Combined, right: Combined | None, dim: int, seed: int) -> Tensor:
        seeds = seeds_of(self.net.parameters, seed)

        def projected(gradients: SampleGradients) -> dict[str, Factor]:
            # Rows are samples and outputs by turns: the kinds that sum over outputs take a sample's as one.
            n_rows = len(gradients.recording.logits) * self.width
            sketches = {name: sketch(gradients.factor(name, joint=False), dim, seeds[name]) for name in gradients.names}
            return {name: Dense(numbers.reshape(n_rows, -1)) for name, numbers in sketches.items()}

        out = self._zeros(left, left if right is None else right)
        self._add_held(out, left, right, projected, self.n_chunk)
        return self._shaped(out, left, right)

    def _gradients(self, side: Combined, direction: int | None = None) -> SampleGradients:
        one = slice(None) if direction is None else slice(direction, direction + 1)
        return self.routes.gradients(side.x, lambda logits: side.weights(logits)[:, one])

    def _fill(self, block: Tensor, rows: SampleGradients, columns: SampleGradients) -> None:
        block.zero_()
        for name in [name for name in rows.names if name in columns.names]:
            factor = rows.factor(name, joint=self.joint)
            other = factor if columns is rows else columns.factor(name, joint=self.joint)
            add_gram(block, factor, other, budget=self.budget // 4)

    def _zeros(self, left: Combined, right: Combined) -> Tensor:
        shape = (len(left) * self.width, len(right) * self.width)
        return torch.zeros(shape, dtype=self.net.held_dtype, device=self.net.device)

    def _shaped(self, out: Tensor, left: Combined, right: Combined | None) -> Tensor:
        if right is None:
            mirror(out)
        if self.joint:
            return out
        return out.view(len(left), self.width, out.shape[1] // self.width, self.width).transpose(1, 2).contiguous()


def _packed(gradients: SampleGradients) -> dict[str, Factor]:
    return {name: packed(gradients.factor(name, joint=True)) for name in gradients.names}
