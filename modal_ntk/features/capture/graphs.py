"""What the graph of a batch shows before anything is differentiated: samples apart, parameters where they were seen.

A node of torch's graph that is known to treat the rows of its first axis each for itself lets no gradient pass from
one sample to another. If all nodes between the outputs and the parameters are such, and the parameters are read by
recorded calls alone, then the recorded gradients are those of the samples, whatever the numbers are. What is not known
here is not wrong: it is proved by numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modal_ntk.features.capture.pooling import Maxima
from modal_ntk.features.capture.watching import Call

Shape = tuple[int, ...]
Rule = Callable[[Any, Shape, list[Shape | None]], bool]

# Calls whose rules treat some lines of a table, or some numbers, unlike others. Any other call's gradients are
# polynomials of input and output gradient, or sums over rows: right for two samples, its rule is right for all.
_SPECIAL = ("embedding", "prelu", "__getitem__")


def apart(logits: Tensor, n: int, calls: Sequence[Call], leaves: dict[str, Tensor]) -> set[str] | None:
    """Return the operands that the outputs of a batch depend on, if the graph shows that calls tell of them all.

    Parameters
    ----------
    logits : Tensor (n, K)
        Outputs, not yet differentiated.
    n : int
        Number of samples.
    calls : sequence of Call
        What was recorded on the way.
    leaves : dict of str to Tensor
        The parameters.

    Returns
    -------
    set of str or None
        Names; None if the graph has something that is not known, reads parameters elsewhere than in the calls, or may
        mix samples.
    """
    seen_by = {_reader(call.edge.node): [o.name for o in call.operands] for call in calls}
    if len(seen_by) < len(calls):
        return None
    names = {id(leaf): name for name, leaf in leaves.items()}
    names.update({id(o.met): o.name for call in calls for o in call.operands})
    found: set[str] = set()
    first: Any = logits.grad_fn
    waiting, visited = [first], {first}
    while waiting:
        node = waiting.pop()
        shapes = _shapes(node)
        if not shapes or any(not shape or shape[0] % n for shape in shapes):
            return None
        given: list[Shape | None] = []
        for ahead, number in node.next_functions:
            leaf = _leaf(ahead)
            if leaf is not None:
                name = names.get(id(leaf))
                if name is None or seen_by.get(node, []).count(name) != 1:
                    return None
                found.add(name)
            given.append(None if ahead is None or leaf is not None else _shape(ahead, number))
            if given[-1] is not None and ahead not in visited:
                visited.add(ahead)
                waiting.append(ahead)
        rule = _as_many if isinstance(node, Maxima._backward_cls) else _RULES.get(node.name())
        if rule is None or not all(rule(node, shape, given) for shape in shapes):
            return None
    return found


def is_special(call: Call) -> bool:
    """Tell whether a call's rule may be right for some numbers and wrong for others."""
    return call.key[0] in _SPECIAL


def _shapes(node: Any) -> list[Shape]:
    # What the outputs of a node's forward step were like; none where torch does not tell, as of outputs without use.
    try:
        return [tuple(about.shape) for about in node._input_metadata]
    except RuntimeError:
        return []


def _shape(node: Any, number: int) -> Shape:
    shapes = _shapes(node)
    return shapes[number] if shapes else ()


def _leaf(node: Any) -> Tensor | None:
    # The parameter that a node stands for, as it is or transposed.
    if node is not None and node.name() == "TBackward0":
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def _reader(node: Any) -> Any:
    # The node that reads a call's parameters, which may end in a view.
    while node.name() in _VIEWS:
        node = node.next_functions[0][0]
    return node


def _axis(dim: int, n_axes: int) -> int:
    # Torch gives negative numbers as they look without their sign.
    return (dim - 2**64 if dim >= 2**63 else dim) % max(1, n_axes)


def _alike(_node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    # Entry by entry; what is one wide may be spread along any axis but the first.
    return all(one is None or (len(one) == len(shape) and one[0] == shape[0]) for one in given)


def _as_many(_node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return all(one is None or one[0] == shape[0] for one in given)


def _viewed(_node: Any, _shape: Shape, given: list[Shape | None]) -> bool:
    # Numbers keep their order, so a sample's stay together.
    return len(given) == 1


def _first(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return all(one is None for one in given[1:]) and _as_many(node, shape, given)


def _second(_node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return given[0] is given[2] is None and (given[1] is None or given[1][0] == shape[0])


def _settled(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return not node._saved_training and _first(node, shape, given)


def _last_axes(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return len(node._saved_normalized_shape) < len(shape) and _first(node, shape, given)


def _reduced(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    axes = node._saved_dim if isinstance(node._saved_dim, (tuple, list)) else [node._saved_dim]
    one = given[0]
    # No axes stand for all.
    return one is None or (len(axes) > 0 and all(_axis(a, len(one)) for a in axes) and one[0] == shape[0])


def _along(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    return _axis(node._saved_dim, len(shape)) != 0 and _as_many(node, shape, given)


def _along_of_input(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    one = given[0]
    return one is None or (_axis(node._saved_dim, len(one)) != 0 and one[0] == shape[0])


def _chosen(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    # The numbers of all rows in order, each beside places of its own.
    lines = [index for index in node._saved_indices if index is not None]
    one = given[0]
    if node._saved_indices[0] is None or one is None or any(index.dtype != torch.long for index in lines):
        return False
    rows = torch.broadcast_tensors(*lines)[0]
    if not len(rows) == one[0] == shape[0]:
        return False
    return bool((rows.movedim(0, -1) == torch.arange(one[0], device=rows.device)).all())


def _turned(node: Any, shape: Shape, given: list[Shape | None]) -> bool:
    axes = (node._saved_dim0, node._saved_dim1)
    return all(_axis(axis, len(shape)) for axis in axes) and _as_many(node, shape, given)


def _permuted(node: Any, shape: Shape, _given: list[Shape | None]) -> bool:
    return _axis(node._saved_dims[0], len(shape)) == 0


_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")

_EACH = (
    "Abs", "Add", "Clamp", "ClampMin", "ClampMax", "Clone", "Cos", "Div", "Elu", "Erf", "Exp", "Gelu", "Hardsigmoid",
    "Hardswish", "Hardtanh", "LeakyRelu", "Log", "LogSigmoid", "Mish", "Mul", "Neg", "Pow", "Relu", "Rsqrt", "Sigmoid",
    "Silu", "Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Threshold",
)  # fmt: skip
_ROWS = (
    "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "Bmm", "MaxPool2DWithIndices",
    "MaxPool3DWithIndices",
)  # fmt: skip

_RULES: dict[str, Rule] = {
    **{f"{name}Backward{number}": _alike for name in _EACH for number in (0, 1)},
    **{f"{name}Backward0": _as_many for name in _ROWS},
    **dict.fromkeys((*_VIEWS, "UnsqueezeBackward0", *(f"SqueezeBackward{k}" for k in range(3))), _viewed),
    "AddmmBackward0": _second,
    **dict.fromkeys(("MmBackward0", "ConvolutionBackward0", "NativeGroupNormBackward0"), _first),
    **dict.fromkeys(("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0"), _settled),
    "NativeLayerNormBackward0": _last_axes,
    **dict.fromkeys(("MeanBackward1", "SumBackward1"), _reduced),
    **dict.fromkeys(("SoftmaxBackward0", "SafeSoftmaxBackward0", "LogSoftmaxBackward0"), _along),
    **dict.fromkeys(("CatBackward0", "StackBackward0"), _along),
    **dict.fromkeys(("SelectBackward0", "SliceBackward0", "SplitBackward0", "UnbindBackward0"), _along_of_input),
    "IndexBackward0": _chosen,
    "EmbeddingBackward0": _alike,
    "TransposeBackward0": _turned,
    "PermuteBackward0": _permuted,
    "ExpandBackward0": _alike,
}
