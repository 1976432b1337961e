"""Watch a module's forward pass for the calls in which parameters meet samples.

Functions are watched, not modules, so a weight counts wherever it is used. What is made of parameters alone (a
normalised weight, the positions' lines of a table) is followed as far as the call in which a sample first meets it;
that call is recorded, and the chain rule leads back from there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modal_ntk.features.capture.arithmetic import ARITHMETIC
from modal_ntk.features.capture.layers import LAYERS, Maker
from modal_ntk.features.capture.pooling import adaptive_avg_pool2d, max_pool2d
from modal_ntk.features.capture.recurrent import states_of, written_out
from modal_ntk.features.samples import NamedTensors, Samples

# Python attributes that mark tensors: made of samples; made of parameters alone.
_OF_SAMPLES, _OF_PARAMETERS = "_modal_ntk_of_samples", "_modal_ntk_of_parameters"


@dataclass(frozen=True)
class Operand:
    """Something made of parameters alone that samples met.

    Parameters
    ----------
    name : str
        Of the parameter, or of the call and the operand's place in it.
    origin : Tensor
        Itself, in the graph that leads back to parameters; a parameter is its own.
    met : Tensor
        What the call was given: the parameter, or a stand-in, so that the two graphs are apart.
    """

    name: str
    origin: Tensor
    met: Tensor

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter as it stands."""
        return self.met is self.origin


@dataclass(frozen=True)
class Call:
    """One call of a layer function.

    Parameters
    ----------
    operands : tuple of Operand
        What it read of parameters.
    edge : GradientEdge
        Where the gradient at its output arrives; unlike the output, it outlives changes in place.
    data : Tensor or None
        The input, if it is needed, which must not have been changed when it is read again.
    version : int
        The version of `data` at the call.
    make : Maker
        From input and gradient at the output to the gradients of an operand.
    key : tuple
        Function and arguments: tensors by shape and type, less what differs from batch to batch.
    """

    operands: tuple[Operand, ...]
    edge: GradientEdge
    data: Tensor | None
    version: int
    make: Maker
    key: tuple[Any, ...] = ()


class Watch(TorchFunctionMode):
    """Record calls while active.

    Parameters
    ----------
    leaves : dict of str to Tensor
        The parameters.
    n : int
        Number of samples.
    keep : bool, default=True
        Whether calls are kept, or types alone.

    Attributes
    ----------
    calls : list of Call
        In order.
    dtypes : set of torch.dtype
        Of whatever gradients pass.
    hooked : bool
        Whether gradients may be changed on their way.
    """

    def __init__(self, leaves: dict[str, Tensor], n: int, *, keep: bool = True) -> None:
        super().__init__()
        self.keep = keep
        self.dtypes: set[torch.dtype] = set()
        self.names = {id(leaf): name for name, leaf in leaves.items()}
        self.n = n
        self.calls: list[Call] = []
        self.hooked = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        func = _IN_OTHER_WORDS.get(func, func)
        self.hooked |= func in _OPEN_GRADIENTS
        if func is F.multi_head_attention_forward:
            with self:
                return _opened(func)(*args, **kwargs)
        stepwise = written_out(func, args) if self.keep else None
        if stepwise is not None:
            for state in _tensors(states_of(func, args)):
                # Zeros to start from are there for every sample, and not made of samples.
                setattr(state, _OF_SAMPLES, not self._of_parameters(state))
            with self:
                return stepwise()
        given = list(_tensors((args, kwargs)))
        shared = any(self._of_parameters(t) for t in given)
        of_samples = any(self._of_samples(t) for t in given)
        known = (LAYERS.get(func) or ARITHMETIC.get(getattr(func, "__name__", ""))) if shared and self.keep else None
        if known is not None:
            call = {**dict(zip(known[0], args, strict=False)), **kwargs}
            if of_samples or self._by_sample(func, call, args):
                return self._recorded(func, known, call, args, kwargs)
        out = func(*args, **kwargs)
        if of_samples:
            return self._marked(out, func, args)
        for tensor in _tensors(out) if shared else ():
            if tensor.requires_grad and id(tensor) not in self.names:
                setattr(tensor, _OF_PARAMETERS, True)
        return out

    def _by_sample(self, func: Any, call: dict[str, Any], args: tuple[Any, ...]) -> bool:
        # Numbers of lines, and sizes, may be there for every sample without being made of samples.
        if func is F.embedding:
            return call["input"].shape[:1] == (self.n,)
        if getattr(func, "__name__", "") in ("expand", "expand_as", "broadcast_to"):
            out = func(*args)
            operand = call["input"]
            return out.shape[:1] == (self.n,) and (out.ndim > operand.ndim or operand.shape[0] == 1)
        return False

    def _recorded(
        self, func: Any, known: Any, call: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        operands = {
            role: self._operand(value, role)
            for role, value in call.items()
            if role in known[0] and isinstance(value, Tensor) and self._of_parameters(value)
        }
        names = {role: operand.name for role, operand in operands.items()}
        # Of complex numbers the layers' rules are not known.
        plain = not any(operand.origin.is_complex() for operand in operands.values())
        make = known[1](call, names) if plain and (func not in LAYERS or "input" not in names) else None
        if make is None:
            return self._marked(func(*args, **kwargs), func, args)
        data = None if make.input_role is None else call[make.input_role]
        version = 0 if data is None else data._version
        met = {id(operand.origin): operand.met for operand in operands.values()}
        given = [met.get(id(value), value) for value in args]
        out = func(*given, **{key: met.get(id(value), value) for key, value in kwargs.items()})
        self._marked(out, func, ())
        if not out.requires_grad:
            return out
        if data is not None and make.spread:
            data = data.expand(out.shape)
        arguments = ((role, _described(value, names.get(role))) for role, value in call.items())
        key = (getattr(func, "__name__", ""), *arguments)
        self.calls.append(Call(tuple(operands.values()), get_gradient_edge(out), data, version, make, key))
        return out

    def _marked(self, out: Any, func: Any, args: tuple[Any, ...]) -> Any:
        # What samples go into is made of samples, and so is what they are written to.
        name = getattr(func, "__name__", "")
        written = args[:1] if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) else ()
        for tensor in _tensors([out, *written]):
            setattr(tensor, _OF_SAMPLES, True)
            setattr(tensor, _OF_PARAMETERS, False)
            if tensor.requires_grad:
                self.dtypes.add(tensor.dtype)
        return out

    def _operand(self, tensor: Tensor, role: str) -> Operand:
        if id(tensor) in self.names:
            return Operand(self.names[id(tensor)], tensor, tensor)
        return Operand(f"{len(self.calls)}.{role}", tensor, tensor.detach().requires_grad_())

    def _of_parameters(self, tensor: Tensor) -> bool:
        return id(tensor) in self.names or getattr(tensor, _OF_PARAMETERS, False)

    def _of_samples(self, tensor: Tensor) -> bool:
        if id(tensor) in self.names or getattr(tensor, _OF_PARAMETERS, False):
            return False
        return getattr(tensor, _OF_SAMPLES, False) or tensor.requires_grad


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _described(value: Any, name: str | None) -> Any:
    if isinstance(value, Tensor):
        return name, tuple(value.shape) if name else tuple(value.shape[1:]), value.dtype
    return repr(value)


_IN_OTHER_WORDS = {F.max_pool2d: max_pool2d, F.adaptive_avg_pool2d: adaptive_avg_pool2d}

# By these a forward pass reaches for the gradients of the backward pass.
_OPEN_GRADIENTS = (Tensor.register_hook, inspect.getattr_static(Tensor, "grad_fn").__get__)


@functools.cache
def _opened(func: Any) -> Any:
    # Torch's own function, its parts seen by the watch: the same code, that does not hand itself over as a whole.
    body = inspect.unwrap(func)
    space = {**body.__globals__, "has_torch_function": lambda _: False}
    opened = FunctionType(body.__code__, space, body.__name__, body.__defaults__, body.__closure__)
    opened.__kwdefaults__ = body.__kwdefaults__
    return opened


def mark_samples(batch: Samples) -> None:
    """Mark what a module is given as samples."""
    for part in batch.parts.values() if isinstance(batch, NamedTensors) else (batch,):
        setattr(part, _OF_SAMPLES, True)
