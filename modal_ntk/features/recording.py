"""Watch a module's forward pass, and read off every layer's inputs and output gradients.

Functions are watched, not modules, so a weight counts wherever it is used. Each call of a known layer function gets a
stand-in for its parameter: whatever gradient still reaches the real parameter came by another way, which is how a use
that `modal_ntk.features.layers` does not know is found out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modal_ntk.features.factors import Factor, joined
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.layers import LAYERS, Maker
from modal_ntk.features.pooling import max_pool2d
from modal_ntk.features.samples import Samples


@dataclass(frozen=True)
class Call:
    """One call of a layer function.

    Parameters
    ----------
    names : tuple of str
        Parameters that it read.
    edge : GradientEdge
        Where the gradient at its output arrives; unlike the output, it outlives changes in place.
    data : Tensor
        The input, which must not have been changed when it is read again.
    version : int
        The version of `data` at the call.
    make : callable
        From input and gradient at the output to the factor of a parameter.
    """

    names: tuple[str, ...]
    edge: GradientEdge
    data: Tensor
    version: int
    make: Maker


class _Watch(TorchFunctionMode):
    def __init__(self, leaves: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(leaf): name for name, leaf in leaves.items()}
        self.calls: list[Call] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.max_pool2d:
            return max_pool2d(*args, **kwargs)
        if func not in LAYERS:
            return func(*args, **kwargs)
        signature, maker = LAYERS[func]
        call = {**dict(zip(signature, args, strict=False)), **kwargs}
        names = {role: self.names[id(call[role])] for role in ("weight", "bias") if id(call.get(role)) in self.names}
        make = maker(call, names) if names else None
        if make is None:
            return func(*args, **kwargs)
        out = func(**{**call, **{role: call[role].detach().requires_grad_() for role in names}})
        data = call["input"]
        self.calls.append(Call(tuple(names.values()), get_gradient_edge(out), data, data._version, make))
        return out


class Recording:
    """What one pass over a batch, forward and back, tells about the gradients of its samples.

    Parameters
    ----------
    n : int
        Number of samples.
    calls : list of Call
        The layers' calls in order.
    gradients : list of Tensor or None
        Gradient (rows, r, ...) at the output of each call; None where the logits do not depend on it.
    attached : set of str
        Parameters that the logits depend on other than through the calls.
    """

    def __init__(self, n: int, calls: list[Call], gradients: list[Tensor | None], attached: set[str]) -> None:
        self.n = n
        self.uncovered = set(attached)
        self.layout: list[tuple[tuple[str, ...], int]] = []
        self._uses: dict[str, list[tuple[Call, Tensor]]] = {}
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                continue
            rows = len(gradient)
            self.layout.append((call.names, rows // n if rows % n == 0 else 0))
            if rows % n or call.data._version != call.version:
                self.uncovered.update(call.names)
                continue
            by_sample = gradient.reshape(n, rows // n, *gradient.shape[1:]).transpose(1, 2)
            for name in call.names:
                self._uses.setdefault(name, []).append((call, by_sample))

    @property
    def names(self) -> set[str]:
        """Parameters that factors can be had of."""
        return set(self._uses) - self.uncovered

    @property
    def n_bytes(self) -> int:
        """What the recording holds: inputs and output gradients of all calls."""
        by_call = {id(call): g.nbytes + call.data.nbytes for uses in self._uses.values() for call, g in uses}
        return sum(by_call.values())

    def factor(self, name: str, *, joint: bool, rows: slice = slice(None)) -> Factor | None:
        """Return the gradients of one parameter; None if its uses are too unlike to be added up.

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
        Factor or None
            Over the n samples wanted, or their n * r gradients.
        """
        start, stop, _ = rows.indices(self.n)
        made = []
        for call, gradient in self._uses[name]:
            m = gradient.shape[2]
            data = call.data.detach()[start * m : stop * m]
            made.append(call.make(data, gradient[start:stop], joint, name))
        return joined(made)


def record(
    net: FunctionalNet,
    batch: Samples,
    cotangents: Tensor | Callable[[Tensor], Tensor],
    *,
    find_attached: bool = True,
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
    find_attached : bool, default=True
        Whether to look for parameters that are used other than through known layers, at the price of the parameters'
        own gradient.

    Returns
    -------
    Recording
        From which the factors of each parameter are made when asked for.
    """
    leaves = net.leaves()
    with torch.enable_grad(), _Watch(leaves) as watch:
        logits = net(leaves, batch)
    if not logits.requires_grad:
        return Recording(len(batch), [], [], set())
    weights = cotangents(logits.detach()) if callable(cotangents) else cotangents
    by_direction: list[tuple[Tensor | None, ...]] = []
    attached: set[str] = set()
    targets: list[Any] = [*(call.edge for call in watch.calls), *(leaves.values() if find_attached else ())]
    for direction in weights.unbind(1) if targets else ():
        more = len(by_direction) + 1 < weights.shape[1]
        grads = torch.autograd.grad(logits, targets, direction, retain_graph=more, allow_unused=True)
        if find_attached and not by_direction:
            # Whether a gradient arrives does not depend on the direction, so one look is enough.
            found = zip(leaves, grads[len(watch.calls) :], strict=True)
            attached = {name for name, g in found if g is not None}
            targets = targets[: len(watch.calls)]
        by_direction.append(grads[: len(watch.calls)])
        if not targets:
            break
    stacked = [None if g[0] is None else _side_by_side(g) for g in zip(*by_direction, strict=True)]
    return Recording(len(batch), watch.calls, stacked, attached)


def _side_by_side(gradients: tuple[Tensor, ...]) -> Tensor:
    # A loss has one gradient per sample, and copying it would be for nothing.
    return gradients[0][:, None] if len(gradients) == 1 else torch.stack(gradients, 1)
