"""Contexts that leave a module, and every random generator, as they were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy


@contextmanager
def no_trace(module: nn.Module | None) -> Iterator[None]:
    """Undo on leaving, also after an error, whatever reading a module may change.

    Restored are training mode, ``requires_grad``, gradients and buffers, the hooks of every submodule,
    the attributes that forward sets, such as caches and attention maps,
    and the global torch generators (a data loader draws from them even when it does not shuffle).
    Parameters themselves are only read by this library, so they are not copied. A lazy layer that is made inside stays
    made.

    Parameters
    ----------
    module : torch.nn.Module or None
        The module; None guards the generators alone.

    Yields
    ------
    None
        Nothing: work with `module` inside.

    Examples
    --------
    >>> net = nn.Linear(2, 1)
    >>> with no_trace(net):
    ...     _ = net.eval()
    >>> net.training
    True
    """
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda}) if module is not None else []
    with torch.random.fork_rng(devices=devices):
        if module is None:
            yield
            return
        modes = [(part, part.training) for part in module.modules()]
        flags = [(p, p.requires_grad, p.grad) for p in module.parameters()]
        buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if not is_lazy(buffer)]
        hooks = [
            (part, type(part), [(table, dict(table)) for table in _hook_tables(part)]) for part in module.modules()
        ]
        try:
            with attributes_restored(module):
                yield
        finally:
            for part, kind, tables in hooks:
                if type(part) is not kind:
                    continue  # a lazy layer that was made inside: the hooks that made it are gone
                for table, entries in tables:
                    table.clear()
                    table.update(entries)
            for part, mode in modes:
                part.training = mode
            for parameter, requires_grad, grad in flags:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


@contextmanager
def attributes_restored(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Put plain attributes of a module and of its parts back on leaving: values, and the contents of lists and dicts.

    What a forward pass sets would otherwise keep tensors of our graph, of which not even a copy can be made.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Yields
    ------
    callable
        Puts them back at once.

    Examples
    --------
    >>> net = nn.Linear(2, 1)
    >>> with attributes_restored(net):
    ...     net.seen = 3
    >>> hasattr(net, "seen")
    False
    """
    found = [(part, type(part), _plain(part)) for part in module.modules()]
    held = [(value, value.copy()) for _, _, plain in found for value in _holders(list(plain.values()), set())]

    def restore() -> None:
        for part, kind, plain in found:
            if type(part) is not kind:
                continue  # a lazy layer that was made inside stays made
            now = vars(part)
            for name in [name for name in now if name not in plain and name not in _LOOKED_AFTER]:
                del now[name]
            now.update(plain)
        for holder, contents in held:
            holder.clear()
            holder.extend(contents) if isinstance(holder, list) else holder.update(contents)

    try:
        yield restore
    finally:
        restore()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch and NumPy inside, and put them back on leaving.

    Nets draw weights, dropout and batch order from torch's global generator; this is the one way to make a
    fit repeatable without leaving the user's generators elsewhere than they were.

    Parameters
    ----------
    seed : int
        The seed, below 2**32.

    Yields
    ------
    None
        Nothing: fit inside.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     print(bool(first == torch.rand(1)))
    True
    """
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global generator is what is guarded
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002


# What torch keeps in a module itself, each looked after in its own way.
_LOOKED_AFTER = frozenset(vars(nn.Module()))


def _plain(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in _LOOKED_AFTER}


def _holders(values: list[Any], seen: set[int]) -> Iterator[Any]:
    for value in values:
        if type(value) in (list, dict, set) and id(value) not in seen:
            seen.add(id(value))
            yield value
            if type(value) is not set:
                yield from _holders(list(value.values()) if isinstance(value, dict) else value, seen)


def _hook_tables(part: nn.Module) -> list[dict[int, object]]:
    return [table for name, table in vars(part).items() if name.endswith("_hooks") and isinstance(table, dict)]
