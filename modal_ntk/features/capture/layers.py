"""From a layer's input and the gradient at its output to the gradient of its parameters, sample by sample.

Each function takes the arguments of one call of a layer function and the names of the parameters in it, and returns
either None (not a case it knows) or a `Maker`. Nothing is computed before that is called, and any of the call's samples
may be asked for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modal_ntk.features.capture.proof import projected
from modal_ntk.features.factors import Dense, Factor, Lookup, Outer

Arguments = dict[str, Any]
Names = dict[str, str]
Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Maker:
    """How one call's gradients are made.

    Parameters
    ----------
    factor : callable
        From the input; the gradient at the output, laid out (n, r, m, ...): n samples, r weighted outputs of each, and
        m consecutive rows of the layer's first axis that belong to one sample (1 as a rule), these n * m rows being
        the input's; whether the r gradients of a sample are to be joined in one row; and the name asked for.
    project : callable, optional
        From input, gradient (r = 1), name and pairs of vectors to what `proof.projected` gives, where that has a
        cheaper way than by the factor.
    own_axes : tuple of int, optional
        How many last axes of the input, and of the output, one position has, where every position is treated alike;
        None where the first axis alone is such.
    input_role : str or None, default="input"
        The argument whose values are needed; None if none.
    spread : bool, default=False
        Whether that is to be broadcast to the output's shape.
    """

    factor: Callable[[Tensor, Tensor, bool, str], Factor]
    project: Callable[[Tensor, Tensor, str, Pairs], Tensor] | None = None
    own_axes: tuple[int, int] | None = None
    input_role: str | None = "input"
    spread: bool = False

    def projected(self, data: Tensor, gradient: Tensor, name: str, pairs: Pairs) -> Tensor:
        """Return the sum of all gradients, multiplied from both sides by pairs of vectors: (k,)."""
        if self.project is not None:
            return self.project(data, gradient, name, pairs)
        return projected(self.factor(data, gradient, True, name), pairs)


# Copying lines shorter than this one by one is slower than a copy of all lines for each axis.
_SHORT = 32


def merged(gradient: Tensor, joint: bool) -> Tensor:
    """Turn (n, r, ..., b) into (n, ..., r * b) for one row per sample, or (n * r, ..., b) for one per output."""
    if not joint:
        return gradient.flatten(0, 1)
    return gradient.movedim(1, -2).flatten(-2)


def matched(data: Tensor, gradient: Tensor, joint: bool) -> Tensor:
    """Return the input (n, ...) with one row for each row that `merged` makes."""
    return data if joint or gradient.shape[1] == 1 else data.repeat_interleave(gradient.shape[1], 0)


def _linear(call: Arguments, names: Names) -> Maker | None:
    if call["input"].ndim < 2:
        return None

    def factor(data: Tensor, gradient: Tensor, joint: bool, name: str) -> Factor:
        n, r = gradient.shape[:2]
        outputs = merged(gradient.reshape(n, r, -1, gradient.shape[-1]), joint)
        if names.get("weight") != name:
            return Dense(outputs.sum(1))
        return Outer(matched(data.reshape(n, 1, -1, data.shape[-1]), gradient, joint), outputs[:, None])

    return Maker(factor, own_axes=(1, 1))


def _convolution(call: Arguments, names: Names) -> Maker | None:
    weight = call["weight"]
    if call["input"].ndim != weight.ndim:
        return None
    groups = call.get("groups", 1)

    def factor(data: Tensor, gradient: Tensor, joint: bool, name: str) -> Factor:
        if names.get("weight") != name:
            return Dense(merged(gradient.flatten(4).sum((2, 4)), joint))
        n, r, m = gradient.shape[:3]
        by_group = gradient.reshape(n, r, m, groups, gradient.shape[3] // groups, -1)
        outputs = merged(by_group.permute(0, 1, 3, 2, 5, 4).flatten(3, 4), joint)
        patches = _patches(data, weight.shape[2:], call, groups)
        inputs = patches.reshape(n, m, *patches.shape[1:]).transpose(1, 2).flatten(2, 3)
        return Outer(matched(inputs, gradient, joint), outputs)

    def project(data: Tensor, gradient: Tensor, name: str, pairs: Pairs) -> Tensor:
        if names.get("weight") != name:
            return projected(factor(data, gradient, True, name), pairs)
        # The patches' products with some vectors are a convolution of few outputs.
        left, right = pairs
        k = len(left)
        kernels = right.view(1, k, *weight.shape[1:]).expand(groups, *[-1] * (weight.ndim)).flatten(0, 1)
        settings = {name: call[name] for name in ("stride", "padding", "dilation") if name in call}
        seen = _CONVOLVE[weight.ndim - 3](data, kernels, groups=groups, **settings).reshape(len(data), groups, k, -1)
        outputs = gradient.reshape(len(data), groups, -1, math.prod(gradient.shape[4:]))
        return ((left.view(k, groups, -1).transpose(0, 1) @ outputs) * seen).sum((0, 1, 3))

    return Maker(factor, project)


_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)


def _patches(data: Tensor, kernel: torch.Size, call: Arguments, groups: int) -> Tensor:
    """Cut the input into the patches that a convolution sees: (rows, groups, positions, patch)."""
    d = len(kernel)
    stride, dilation = (per_axis(call.get(key, 1), d) for key in ("stride", "dilation"))
    positions = F.pad(data, _padding(call.get("padding", 0), kernel, dilation))
    for axis in reversed(range(d)):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        # Axes of the patch pile up in front of those still whole, so the one to cut stays in its place, and positions
        # stay last in memory, where neighbours are neighbours.
        cut = positions.unfold(1 + d, span, stride[axis])[..., :: dilation[axis]]
        positions = cut.movedim(-1, 2)
        if positions.shape[-1] < _SHORT:
            positions = positions.contiguous()
    return positions.reshape(len(data), groups, -1, math.prod(positions.shape[2 + d :])).mT


def _padding(padding: Any, kernel: torch.Size, dilation: list[int]) -> list[int]:
    """Return padding in the order of `F.pad`: the last axis first, before and after."""
    d = len(kernel)
    if padding == "same":
        totals = [dilation[axis] * (kernel[axis] - 1) for axis in range(d)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(p, p) for p in per_axis(0 if padding == "valid" else padding, d)]
    return [side for pair in reversed(pairs) for side in pair]


def per_axis(value: Any, d: int) -> list[int]:
    """Return a layer's size for each of d axes, given one for all or one for each."""
    values = [value] * d if isinstance(value, int) else list(value)
    return values * d if len(values) == 1 else values


def _scale_and_shift(normalise: Callable[[Tensor], Tensor], n_axes: int, names: Names) -> Maker:
    def factor(data: Tensor, gradient: Tensor, joint: bool, name: str) -> Factor:
        n, _, m = gradient.shape[:3]
        product = gradient
        if names.get("weight") == name:
            product = gradient * normalise(data).reshape(n, 1, m, *data.shape[1:])
        return Dense(merged(_summed(product, n_axes), joint))

    return Maker(factor, own_axes=(n_axes, n_axes) if n_axes else None)


def _summed(product: Tensor, n_axes: int) -> Tensor:
    """Sum (n, r, m, ...) over all but the channels (`n_axes` zero: the axis after m) or the last `n_axes` axes."""
    n, r = product.shape[:2]
    if n_axes == 0:
        return product.reshape(*product.shape[:4], -1).sum((2, 4))
    return product.flatten(-n_axes).reshape(n, r, -1, math.prod(product.shape[-n_axes:])).sum(2)


def _batch_norm(call: Arguments, names: Names) -> Maker | None:
    if call.get("training") or call.get("running_mean") is None:
        return None
    shape = (1, -1, *[1] * (call["input"].ndim - 2))
    mean, scale = call["running_mean"].view(shape), (call["running_var"] + call.get("eps", 1e-5)).rsqrt().view(shape)
    return _scale_and_shift(lambda data: (data - mean) * scale, 0, names)


def _own_norm(function: Any, *settings: str) -> Callable[[Arguments, Names], Maker | None]:
    # A layer that normalises each sample by its own numbers: called again without weight and bias.
    def known(call: Arguments, names: Names) -> Maker | None:
        given = {name: call[name] for name in settings if name in call}
        n_axes = len(given.get("normalized_shape", ()))
        if n_axes and call["input"].ndim <= n_axes:
            return None
        return _scale_and_shift(lambda data: function(data, **given), n_axes, names)

    return known


def _instance_norm(call: Arguments, names: Names) -> Maker | None:
    if not call.get("use_input_stats", True):
        return _batch_norm({**call, "training": False}, names)
    return _own_norm(F.instance_norm, "eps")(call, names)


def _embedding(call: Arguments, _names: Names) -> Maker | None:
    n_lines = len(call["weight"])
    if call.get("max_norm") is not None or call.get("scale_grad_by_freq") or call["input"].ndim < 1:
        return None
    padding = call.get("padding_idx")

    def factor(data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
        n, r = gradient.shape[:2]
        flat, lines = gradient.reshape(n, r, -1, gradient.shape[-1]), data.reshape(n, -1)
        if padding is not None:
            flat = flat * (lines != padding % n_lines)[:, None, :, None]
        return Lookup(matched(lines, gradient, joint), merged(flat, joint), n_lines)

    return Maker(factor, own_axes=(0, 1))


def _prelu(call: Arguments, _names: Names) -> Maker:
    one = call["weight"].numel() == 1

    def factor(data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
        n, _, m = gradient.shape[:3]
        product = gradient * data.clamp_max(0).reshape(n, 1, m, *data.shape[1:])
        return Dense(merged(product.flatten(2).sum(2, keepdim=True) if one else _summed(product, 0), joint))

    return Maker(factor)


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

_BY_OWN_SIGNATURE: dict[Any, Callable[[Arguments, Names], Maker | None]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _own_norm(F.layer_norm, "normalized_shape", "eps"),
    F.group_norm: _own_norm(F.group_norm, "num_groups", "eps"),
    F.instance_norm: _instance_norm,
    F.embedding: _embedding,
}
if hasattr(F, "rms_norm"):  # torch 2.4
    _BY_OWN_SIGNATURE[F.rms_norm] = _own_norm(F.rms_norm, "normalized_shape", "eps")

LAYERS: dict[Any, tuple[tuple[str, ...], Callable[[Arguments, Names], Maker | None]]] = {
    F.linear: (("input", "weight", "bias"), _linear),
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (_CONVOLUTION, _convolution)),
    F.prelu: (("input", "weight"), _prelu),
    **{layer: (tuple(inspect.signature(layer).parameters), rule) for layer, rule in _BY_OWN_SIGNATURE.items()},
}
"""The layer functions that are known: the names of their arguments in order, and how their gradients arise."""
