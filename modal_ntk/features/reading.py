"""How a module is read: as it stands, in plain operations, each call a pure function, and put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from modal_ntk import checks
from modal_ntk.nets.traceless import attributes_restored, no_trace


def unwrapped(module: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that a compiled or a data-parallel one stands for, and the prefix of its parameters' names.

    Parameters
    ----------
    module : torch.nn.Module
        As users hold it.

    Returns
    -------
    tuple of torch.nn.Module and str
        The module itself and "" if it stands for none.

    Raises
    ------
    InvalidInputError
        If the module's gradients cannot be read: it is scripted, exported or not yet initialised.

    Examples
    --------
    >>> net = nn.Linear(2, 1)
    >>> unwrapped(nn.DataParallel(net)) == (net, "module.")
    True
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    prefix = ""
    while True:
        name = "module" if isinstance(module, parallel) else "_orig_mod" if hasattr(module, "_orig_mod") else None
        if name is None:
            break
        module, prefix = getattr(module, name), f"{prefix}{name}."
    if not isinstance(module, nn.Module):
        remedy = "Pass the module whose gradients make the kernel."
        raise checks.expected("a torch.nn.Module", type(module).__name__, remedy)
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            remedy = "Pass the module that it was made of: a compiled graph's parameters cannot be exchanged."
            raise checks.expected("a module in Python", f"a {type(part).__name__} of torch.jit", remedy)
        for name, p in part.named_parameters(recurse=False):
            if torch.nn.parameter.is_lazy(p):
                remedy = "Send one batch through the module first: module(x)."
                raise checks.expected("initialised parameters", f"{name} of {type(part).__name__} without", remedy)
    return module, prefix


@contextmanager
def plainly(module: nn.Module, device: torch.device) -> Iterator[Callable[[], None]]:
    """Put a module into evaluation mode, on plain operations, and leave all as found.

    Fused and lossy substitutes are switched off: attention's fused kernels, which have no forward-mode derivative;
    the encoder's fast path, which gives other outputs without gradients than with them; the caller's autocast;
    checkpointing, which runs parts again; and cuDNN for recurrent layers, which has no backward pass in this mode.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    device : torch.device
        Where it computes.

    Yields
    ------
    callable
        Puts attributes that the module's forward has set back to what they were.
    """
    with ExitStack() as stack:
        stack.enter_context(no_trace(module))
        restore = stack.enter_context(attributes_restored(module))
        if hasattr(nn, "attention"):  # torch 2.3
            stack.enter_context(nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        # Parts that are compiled run as they were written: what is compiled cannot be watched. Nothing is where torch
        # has not loaded its compiler, which takes seconds.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # torch 2.6
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(without_checkpoints())
        for kind in {"cpu", device.type}:
            with suppress(RuntimeError):  # a device without autocast
                stack.enter_context(torch.autocast(kind, enabled=False))
        if device.type == "cuda" and any(isinstance(part, nn.RNNBase) for part in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            module.eval()
        except NotImplementedError as error:
            remedy = "Pass the module that was exported."
            raise checks.expected("a module with an evaluation mode", f"{error}", remedy) from error
        yield restore


class _Unchecked:
    # Stands for torch's reentrant checkpoint: the function is run, and its graph kept where that one's would be.
    @staticmethod
    def apply(function: Callable[..., Any], _preserve: bool, *args: Any) -> Any:
        reached = any(isinstance(value, torch.Tensor) and value.requires_grad for value in args)
        with torch.set_grad_enabled(torch.is_grad_enabled() and reached):
            return function(*args)


def _run_once(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Run what is checkpointed once, in the graph that it stands in."""
    # Both kinds are looked up here by torch's `checkpoint`, under whatever name a module imported that.
    names = {"CheckpointFunction": _Unchecked, "_checkpoint_without_reentrant_generator": _run_once}
    module = torch.utils.checkpoint
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, names[name])
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
