"""Parameters that meet samples in arithmetic: gates, scales, shifts, positions, class tokens, plain matrices.

As in `modal_ntk.features.capture.layers`, from the arguments of one call to how its gradients are made; known by the
names that torch gives to functions and methods alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modal_ntk.features.capture.layers import Arguments, Maker, Names, matched, merged
from modal_ntk.features.factors import Dense, Factor, Lookup, Outer


def _elementwise(
    derivative: Callable[[Any, Tensor, str], Any], reads: bool = True
) -> Callable[[Arguments, Names], Maker | None]:
    # `derivative` gives that of the result by the operand, from the other operand, the operand and its role.
    def known(call: Arguments, names: Names) -> Maker | None:
        if len(names) != 1 or call.get("alpha", 1) != 1 or call.get("rounding_mode") is not None:
            return None
        (role,) = names
        operand, other = call[role], call["other" if role == "input" else "input"]
        shape = torch.broadcast_shapes(operand.shape, other.shape if isinstance(other, Tensor) else ())
        axes = len(shape) - operand.ndim
        if axes < 0 or not shape or (axes == 0 and operand.shape[0] != 1):
            return None
        fixed = operand.detach()

        def factor(data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
            n, _, m = gradient.shape[:3]
            slope = derivative(data, fixed.to(gradient.dtype), role)
            if isinstance(slope, Tensor):
                slope = slope.expand(n * m, *shape[1:]).reshape(n, 1, m, *shape[1:])
            return _gathered(gradient * slope, fixed, joint)

        input_role = None if not reads else "other" if role == "input" else "input"
        return Maker(factor, input_role=input_role, spread=True)

    return known


def _gathered(product: Tensor, operand: Tensor, joint: bool) -> Dense:
    # The sum of (n, r, m, ...) over m, and over the axes along which an operand was spread.
    n, r = product.shape[:2]
    axes = product.ndim - 2 - operand.ndim
    own = (1,) * axes + tuple(operand.shape)
    return Dense(merged(product.sum(2).sum_to_size(n, r, *own[1:]).reshape(n, r, -1), joint))


def _quotient(data: Any, operand: Tensor, role: str) -> Any:
    return 1 / data if role == "input" else -data / operand.square()


def _expanded(call: Arguments, _names: Names) -> Maker:
    operand = call["input"]

    def factor(_data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
        return _gathered(gradient, operand, joint)

    return Maker(factor, input_role=None)


def _product(call: Arguments, names: Names) -> Maker | None:
    if set(names) != {"other"} or call["other"].ndim > 2 or call["input"].ndim < 2:
        return None
    return _by_matrix(call["other"].ndim == 1)


def _sum_and_product(call: Arguments, names: Names) -> Maker | None:
    if "mat1" in names or call.get("beta", 1) != 1 or call.get("alpha", 1) != 1:
        return None
    if "input" in names and call["input"].ndim != 1:
        return None
    by_matrix = _by_matrix(False).factor

    def factor(data: Tensor, gradient: Tensor, joint: bool, name: str) -> Factor:
        if names.get("mat2") == name:
            return by_matrix(data, gradient, joint, name)
        return Dense(merged(gradient.sum(2), joint))

    return Maker(factor, own_axes=(1, 1), input_role="mat1")


def _by_matrix(vector: bool) -> Maker:
    def factor(data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
        n, r = gradient.shape[:2]
        last = 1 if vector else gradient.shape[-1]
        outputs = merged(gradient.reshape(n, r, -1, last), joint)
        # The matrix has the input's axis first: what linear layers call inputs and outputs change places.
        inputs = matched(data.reshape(n, 1, -1, data.shape[-1]), gradient, joint)
        return Outer(outputs[:, None], inputs)

    return Maker(factor, own_axes=None if vector else (1, 1))


def _line(call: Arguments, names: Names) -> Maker | None:
    lines = call["index"]
    if set(names) != {"input"} or not isinstance(lines, Tensor) or lines.dtype != torch.long or lines.ndim < 1:
        return None
    n_lines, width = len(call["input"]), call["input"].shape[1:].numel()

    def factor(data: Tensor, gradient: Tensor, joint: bool, _name: str) -> Factor:
        n, r = gradient.shape[:2]
        outputs = merged(gradient.reshape(n, r, -1, width), joint)
        return Lookup(matched(data.reshape(n, -1) % n_lines, gradient, joint), outputs, n_lines)

    return Maker(factor, input_role="index", own_axes=(0, call["input"].ndim - 1))


_TWO = ("input", "other")
_ADD = (_TWO, _elementwise(lambda _data, _operand, _role: 1, reads=False))
_SUBTRACT = (_TWO, _elementwise(lambda _data, _operand, role: 1 if role == "input" else -1, reads=False))
_MULTIPLY = (_TWO, _elementwise(lambda data, _operand, _role: data))
_DIVIDE = (_TWO, _elementwise(_quotient))

ARITHMETIC: dict[str, tuple[tuple[str, ...], Callable[[Arguments, Names], Maker | None]]] = {
    **dict.fromkeys(("add", "add_", "__radd__", "__iadd__"), _ADD),
    **dict.fromkeys(("sub", "sub_", "__isub__"), _SUBTRACT),
    **dict.fromkeys(("mul", "mul_", "multiply", "__rmul__", "__imul__"), _MULTIPLY),
    **dict.fromkeys(("div", "div_", "divide", "true_divide", "__itruediv__"), _DIVIDE),
    **dict.fromkeys(("matmul", "mm", "mv"), (_TWO, _product)),
    "__getitem__": (("input", "index"), _line),
    "addmm": (("input", "mat1", "mat2"), _sum_and_product),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), (("input",), _expanded)),
}
"""The functions that are known: the names of their arguments in order, and how their gradients arise."""
