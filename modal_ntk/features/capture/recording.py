"""What one pass over a batch, forward and back, tells: each call's inputs and output gradients, and a proof's truth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modal_ntk.features.capture.graphs import apart, is_special
from modal_ntk.features.capture.owners import grouped, owners_of
from modal_ntk.features.capture.proof import coarsest, multiplied
from modal_ntk.features.capture.watching import Call, Operand, Watch, mark_samples
from modal_ntk.features.factors import Dense, Factor, joined, total
from modal_ntk.features.functional import FunctionalNet, dense, differentiated
from modal_ntk.features.samples import Samples

Cotangents = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Use:
    """A call's part in the gradients of what it read, sample by sample.

    Parameters
    ----------
    call : Call
        The call.
    data : Tensor (n * m, ...) or None
        Its input.
    gradient : Tensor (n, r, m, ...)
        Gradient at its output.
    """

    call: Call
    data: Tensor | None
    gradient: Tensor

    def factor(self, operand: Operand, rows: slice, joint: bool) -> Factor:
        """Return the gradients of an operand by some consecutive samples."""
        m = self.gradient.shape[2]
        data = None if self.data is None else self.data[rows.start * m : rows.stop * m]
        return self.call.make.factor(data, self.gradient[rows], joint, operand.name)  # type: ignore[arg-type]

    def some(self, rows: list[int]) -> Use:
        """Return the part of some samples."""
        m = self.gradient.shape[2]
        data = self.data
        if data is not None:
            data = data.reshape(len(self.gradient), m, *data.shape[1:])[rows].flatten(0, 1)
        return Use(self.call, data, self.gradient[rows])

    def weighted(self, weights: Tensor) -> Tensor:
        """Return the gradient summed over weighted outputs: (n, 1, m, ...)."""
        shape = (*weights.shape, *[1] * (self.gradient.ndim - 2))
        return (self.gradient * weights.view(shape)).sum(1, keepdim=True)


class Recording:
    """The gradients of a batch by factors.

    Parameters
    ----------
    n : int
        Number of samples.
    logits : Tensor (n, K)
        Outputs.
    cotangents : Tensor (n, r, K)
        Weights of the outputs.
    parameters : dict of str to Tensor
        The leaves, by name.
    held_dtype : torch.dtype
        Type in which gradients are held.

    Attributes
    ----------
    truth : dict of str to Tensor
        Only if asked for: the gradient of the randomly weighted outputs, by parameter; those not reached are left out.
    weights : Tensor (n, r) or None
        These random weights.
    coarsest : torch.dtype
        The float type of least precision seen.
    is_plain : bool
        Whether the graph shows that the gradients are those of the samples; then `truth` is that of the outputs as
        they are, by those parameters alone that special calls read.
    is_proof : bool
        Whether `truth` is that of the randomly weighted outputs, by all parameters.
    """

    def __init__(
        self, n: int, logits: Tensor, cotangents: Tensor, parameters: dict[str, Tensor], held_dtype: torch.dtype
    ) -> None:
        self.n, self.logits, self.cotangents = n, logits, cotangents
        self.truth: dict[str, Tensor] = {}
        self.weights: Tensor | None = None
        self.coarsest = logits.dtype
        self.is_plain = self.is_proof = False
        self._parameters, self._dtype = parameters, held_dtype
        self._uses: dict[str, list[tuple[Use, Operand]]] = {}
        self._unread: set[str] = set()
        self._calls: list[tuple[tuple[str, ...], Call, int]] = []
        self.operands: set[str] = set()

    def add(self, call: Call, gradient: Tensor | None, owners: Tensor | None = None) -> None:
        """Take up the gradient (rows, r, ...) at a call's output; `owners` tells whose each row is, if known."""
        names = {id(operand): self._reached(operand) for operand in call.operands}
        reached = tuple(sorted({name for found in names.values() for name in found}))
        if gradient is None or not reached:
            return
        self.operands.update(operand.name for operand in call.operands if names[id(operand)])
        use = self._use(call, gradient.to(self._dtype), owners)
        self._calls.append((reached, call, 0 if use is None else use.gradient.shape[2]))
        if use is None:
            self._unread.update(reached)
            return
        for operand in call.operands:
            for name in names[id(operand)]:
                self._uses.setdefault(name, []).append((use, operand))

    def _reached(self, operand: Operand) -> list[str]:
        if operand.is_parameter:
            return [operand.name]
        leaves = list(self._parameters.values())
        found = torch.autograd.grad(operand.origin.sum(), leaves, retain_graph=True, allow_unused=True)
        return [name for name, g in zip(self._parameters, found, strict=True) if g is not None]

    def _use(self, call: Call, gradient: Tensor, owners: Tensor | None) -> Use | None:
        if call.data is not None and call.data._version != call.version:
            return None
        data = None if call.data is None else call.data.detach()
        data = data.to(self._dtype) if data is not None and data.is_floating_point() else data
        if owners is not None:
            found = grouped(call.make, data, gradient, owners, self.n)
            return None if found is None else Use(call, *found)
        rows = len(gradient)
        if rows % self.n or (data is not None and (data.ndim == 0 or len(data) != rows)):
            return None
        return Use(call, data, gradient.reshape(self.n, rows // self.n, *gradient.shape[1:]).transpose(1, 2))

    @property
    def names(self) -> set[str]:
        """Parameters that factors can be had of."""
        return set(self._uses) - self._unread

    @property
    def seen(self) -> set[str]:
        """Parameters that some call read."""
        return {name for names, *_ in self._calls for name in names}

    @property
    def n_bytes(self) -> int:
        """What the recording holds: inputs and output gradients of all calls."""
        return sum(tensor.nbytes for tensor in self._held())

    @property
    def is_finite(self) -> bool:
        """Whether all that is held is finite."""
        # A finite sum has finite terms only, and is had in one pass; an infinite one may have, too.
        return all(bool(t.sum().isfinite()) or bool(t.isfinite().all()) for t in self._held())

    def keys_of(self, names: set[str]) -> set[tuple[Any, ...]]:
        """Return the keys of the calls that read only some parameters."""
        return {call.key for reached, call, _ in self._calls if names.issuperset(reached)}

    def layout(self, names: set[str]) -> list[tuple[tuple[str, ...], int]]:
        """Return which parameters each call read that read any of some, and how many rows a sample had in it."""
        return [(reached, n_rows) for reached, _, n_rows in self._calls if names.intersection(reached)]

    def _all_uses(self) -> list[Use]:
        return list({id(use): use for found in self._uses.values() for use, _ in found}.values())

    def _held(self) -> list[Tensor]:
        return [t for use in self._all_uses() for t in (use.gradient, use.data) if t is not None]

    def part(self, rows: list[int], alone: Recording) -> Recording:
        """Return the recording of some samples, with the truth that is known of them alone."""
        found = Recording(len(rows), self.logits[rows], self.cotangents[rows], self._parameters, self._dtype)
        found.truth, found.weights, found.coarsest = alone.truth, alone.weights, self.coarsest
        uses = {id(use): use.some(rows) for use in self._all_uses()}
        found._uses = {name: [(uses[id(use)], o) for use, o in pairs] for name, pairs in self._uses.items()}
        return found

    def factor(self, name: str, *, joint: bool, rows: slice = slice(None)) -> Factor:
        """Return the gradients of one parameter.

        Parameters
        ----------
        name : str
            One of `names`.
        joint : bool
            True lays the r gradients of a sample side by side in one row, False makes them r rows.
        rows : slice, default=slice(None)
            The consecutive samples wanted, all by default.

        Returns
        -------
        Factor
            Over the n samples wanted, or their n * r gradients.
        """
        start, stop, _ = rows.indices(self.n)
        uses = self._uses[name]
        if all(operand.is_parameter for _, operand in uses):
            found = joined([use.factor(operand, slice(start, stop), joint) for use, operand in uses])
            if found is not None:
                return found
        # Uses of unlike forms, or by way of something made of the parameter, add up only when written out.
        written = [
            _led_back(operand, self._parameters[name], use.factor(operand, slice(start, stop), False).dense())
            for use, operand in uses
        ]
        summed = written[0] if len(written) == 1 else torch.stack(written).sum(0)
        return Dense(summed.reshape(stop - start, -1) if joint else summed)

    def projected(self, name: str, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Return the randomly weighted sum of a parameter's gradients, multiplied from both sides by pairs."""
        assert self.weights is not None  # the recording was asked for a truth
        found = []
        for use, operand in self._uses[name]:
            gradient = use.weighted(self.weights)
            if operand.is_parameter:
                found.append(use.call.make.projected(use.data, gradient, name, pairs))  # type: ignore[arg-type]
            else:
                whole = total(use.call.make.factor(use.data, gradient, True, operand.name))  # type: ignore[arg-type]
                led = _led_back(operand, self._parameters[name], whole[None])
                found.append(multiplied(led[0], pairs))
        return torch.stack(found).sum(0)


def _led_back(operand: Operand, parameter: Tensor, gradients: Tensor) -> Tensor:
    # By the chain rule from what was made of a parameter, gradients (n, ...), to the parameter itself: (n, p).
    if operand.is_parameter:
        return gradients
    origin = operand.origin
    along = gradients.reshape(-1, *origin.shape).to(origin.dtype)

    def back(g: Tensor, batched: bool) -> Tensor:
        (found,) = torch.autograd.grad(origin, parameter, g, retain_graph=True, is_grads_batched=batched)
        return found

    try:
        found = back(along, True)
    except RuntimeError:  # what vmap cannot batch
        found = torch.stack([back(g, False) for g in along])
    return found.detach().reshape(len(along), -1).to(gradients.dtype)


def record(
    net: FunctionalNet,
    batch: Samples,
    cotangents: Cotangents,
    *,
    weigh: Callable[[int, int, Tensor], Tensor] | None = None,
    watched: bool = True,
    sort: bool = False,
    known: Callable[[Call], bool] | None = None,
) -> Recording:
    """Run a batch through a module once, and back once for each weighted output.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    batch : Tensor (n, ...) or NamedTensors
        Samples.
    cotangents : Tensor (n, r, K), or callable
        Weights of the outputs: the gradients are those of ``cotangents[i, j] @ logits[i]``. A callable makes them of
        the logits (n, K), which spares a pass where they depend on these.
    weigh : callable, optional
        Makes random weights (n, r); with it, the recording has the gradient of the outputs so weighted, as one more
        backward pass gives it.
    watched : bool, default=True
        Whether calls are recorded.
    sort : bool, default=False
        Whether each row of a call is given to the sample in whose weight its gradient grew, instead of by its place.
    known : callable, optional
        Tells whether the rule of a call is known to be right. Where all are, and the graph shows that samples are apart
        and that nothing else reads parameters, the pass of random weights is left out.

    Returns
    -------
    Recording
        From which the factors of each parameter are made when asked for.
    """
    # Forward, watched.
    leaves = net.leaves()
    watch = Watch(leaves, len(batch), keep=watched)
    mark_samples(batch)
    with torch.enable_grad(), watch:
        logits = net(leaves, batch)
    seen = logits.detach().to(net.held_dtype)
    weights = cotangents(seen) if callable(cotangents) else cotangents
    recording = Recording(len(batch), seen, weights, leaves, net.held_dtype)
    recording.coarsest = coarsest(recording.coarsest, logits.dtype, *watch.dtypes)
    if not logits.requires_grad:
        return recording
    # Whether the graph shows what random weights would prove: then only special calls are compared, by `names`.
    calls = watch.calls
    special = [operand for call in calls if is_special(call) for operand in call.operands]
    reached = None
    if known is not None and not watch.hooked and all(map(known, calls)) and all(o.is_parameter for o in special):
        reached = apart(logits, len(batch), calls, leaves)
    weigh = weigh if reached is None else None
    names = [] if reached is None else list(dict.fromkeys(operand.name for operand in special))
    # Back once for each weighted output, as far as the outputs of the calls.
    edges: list[Any] = [call.edge for call in calls]
    targets = [*edges, *(leaves[name] for name in names)]
    by_direction: list[tuple[Tensor | None, ...]] = []
    for number, direction in enumerate(weights.unbind(1) if edges else ()):
        more = weigh is not None or number + 1 < weights.shape[1]
        along = direction.to(logits.dtype)
        by_direction.append(differentiated(logits, targets, along, leaves, retain_graph=more))
    by_target = list(zip(*by_direction, strict=True))
    stacked = [None if g[0] is None else _side_by_side(g) for g in by_target[: len(edges)]]
    # Back once more from the outputs randomly weighted, as far as the parameters.
    owners: list[Tensor | None] = [None] * len(calls)
    if weigh is not None:
        drawn = weigh(len(batch), weights.shape[1], weights)
        drawn = drawn[:, :1].expand_as(drawn) if sort else drawn
        along = (drawn[:, :, None] * weights).sum(1).to(logits.dtype)
        stand_ins = [o for call in calls for o in call.operands if not o.is_parameter]
        targets = [*leaves.values(), *(o.met for o in stand_ins), *(edges if sort else ())]
        found = differentiated(logits, targets, along, leaves)
        recording.weights, recording.is_proof = drawn, True
        recording.truth = _truth(leaves, stand_ins, found, net.held_dtype)
        if sort:
            again = found[len(targets) - len(edges) :]
            owners = [owners_of(c.make, g, s, drawn[:, 0]) for c, g, s in zip(calls, stacked, again, strict=True)]
    for call, gradient, owner in zip(calls, stacked, owners, strict=True):
        recording.add(call, gradient, owner)
    recording.is_plain = reached is not None and reached == recording.operands and recording.names == recording.seen
    if recording.is_plain:
        recording.weights = torch.ones_like(weights[..., 0])
        recording.truth = _sums(names, by_target[len(edges) :], net.held_dtype)
    return recording


def _truth(
    leaves: dict[str, Tensor], stand_ins: list[Operand], found: tuple[Tensor | None, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    # What reaches the parameters themselves, and by the chain rule through what was made of them.
    met = [(o.origin, g) for o, g in zip(stand_ins, found[len(leaves) :], strict=False) if g is not None]
    led: Sequence[Tensor | None] = [None] * len(leaves)
    if met:
        origins, along = zip(*met, strict=True)
        led = torch.autograd.grad(origins, list(leaves.values()), along, retain_graph=True, allow_unused=True)
    return _sums(leaves, zip(found[: len(leaves)], led, strict=True), dtype)


def _sums(names: Iterable[str], gradients: Iterable[Sequence[Tensor | None]], dtype: torch.dtype) -> dict[str, Tensor]:
    # Of the gradients of each parameter; one without any is left out.
    found = [[dense(g).detach().to(dtype) for g in own if g is not None] for own in gradients]
    return {name: functools.reduce(torch.add, own) for name, own in zip(names, found, strict=True) if own}


def _side_by_side(gradients: tuple[Tensor | None, ...]) -> Tensor:
    found = [g for g in gradients if g is not None]
    # A loss has one gradient per sample, and copying it would be for nothing.
    return found[0][:, None] if len(found) == 1 else torch.stack(found, 1)
