"""A device that is not there: its tensors lie in the CPU's memory, but meet the CPU's own only where a GPU's would.

Inside `pretended()` the name ``"lazy"`` is such a device, which torch knows and no build of it has. A tensor that
forgets its device is an error there, as on a GPU, and every number is the CPU's to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "lazy"
ROOM: int | None = None
"""Entries of the largest tensor that the device has room for; what a test sets."""
_aten = torch.ops.aten
# What takes tensors of both on a GPU as well: copies, picks by row numbers, and recurrent nets' batch sizes.
_MEET = {_aten.copy_, _aten._copy_from, _aten.lift_fresh, _aten._pack_padded_sequence, _aten._pad_packed_sequence}
_PICK = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}


class Elsewhere(Tensor):
    """A tensor on the pretended device."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        """Stand for a tensor of the CPU."""
        plain = inner.layout is torch.strided
        place = {"strides": inner.stride(), "storage_offset": inner.storage_offset()} if plain else {}
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, layout=inner.layout, device=torch.device(NAME, 0),
            dispatch_layout=not plain, **place,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def tolist(self) -> Any:
        """Return numbers, which any device gives."""
        return self.inner.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Keep the tensor that it stands for, and what it is asked for."""
        return _restored, (self.inner, self.requires_grad, isinstance(self, torch.nn.Parameter))

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out a function that such a tensor is given to."""
        return _run(function, args, kwargs or {})


class _Pretended(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[str]:
    """Context in which there is the device.

    Yields
    ------
    str
        Its name.
    """
    # Numbers of Python's become tensors of the CPU, which then go to the device.
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Pretended():
            yield NAME
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def _restored(inner: Tensor, requires_grad: bool, is_parameter: bool) -> Tensor:
    found = Elsewhere(inner).requires_grad_(requires_grad)
    return torch.nn.Parameter(found, requires_grad) if is_parameter else found


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, Elsewhere)]
    target = kwargs.get("device")
    if function is torch.ops.prim.layout.default:
        return args[0].inner.layout
    if there:
        _check_one_device(function, args, flat)
    goes = bool(there) if target is None else torch.device(target).type == NAME
    if goes and any(isinstance(x, torch.Generator) for x in flat):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu': {function}")
    if not goes and not there:
        return function(*args, **kwargs)
    inner_args, inner_kwargs = tree_unflatten([_inner(x) for x in flat], spec)
    if target is not None:
        inner_kwargs = {**inner_kwargs, "device": torch.device("cpu") if goes else target}
        if function is _aten._to_copy.default:
            inner_kwargs["device"] = None
            if not goes:  # a copy in any case
                return function(*inner_args, **inner_kwargs)
    out = function(*inner_args, **inner_kwargs)
    if goes:
        if ROOM is not None and isinstance(out, Tensor) and out.numel() > ROOM:
            raise torch.cuda.OutOfMemoryError(f"no room for {out.numel()} entries")
        out = tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out)
    return return_and_correct_aliasing(function, args, kwargs, out) if there and goes else out


def _check_one_device(function: Any, args: Any, flat: list[Any]) -> None:
    packet = function.overloadpacket
    here = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Elsewhere)]
    if not here or packet in _MEET:
        return
    if packet in _PICK and isinstance(args[0], Elsewhere):
        here = [x for x in args[2:] if isinstance(x, Tensor) and not isinstance(x, Elsewhere) and x.ndim]
    elif torch.Tag.pointwise in function.tags:  # a single number of the CPU's goes along
        here = [x for x in here if x.ndim or (x is args[0] and function._schema.is_mutable)]
    if here:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"(when calling {function})"
        )
