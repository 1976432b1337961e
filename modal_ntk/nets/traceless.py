"""Contexts that leave a module, and every random generator, as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def no_trace(module: nn.Module | None) -> Iterator[None]:
    """Undo on leaving, also after an error, whatever reading a module may change.

    Restored are training mode, ``requires_grad``, gradients and buffers, the hooks of every submodule,
    and the global torch generators (a data loader draws from them even when it does not shuffle).
    Parameters themselves are only read by this library, so they are not copied.

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
        buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
        hooks = [(table, dict(table)) for part in module.modules() for table in _hook_tables(part)]
        try:
            yield
        finally:
            for table, entries in hooks:
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


def _hook_tables(part: nn.Module) -> list[dict[int, object]]:
    return [table for name, table in vars(part).items() if name.endswith("_hooks") and isinstance(table, dict)]
