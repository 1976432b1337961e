"""What a query must leave alone, copied before and compared after."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from modal_ntk.testing.trial import require


def state_of(module: nn.Module) -> dict[str, Any]:
    """Copy everything about a module that a query must leave alone.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    dict
        Parameters and buffers, training modes, ``requires_grad``, gradients, numbers of hooks, devices.

    Examples
    --------
    >>> sorted(state_of(nn.Linear(1, 1)))
    ['devices', 'gradients', 'hooks', 'requires_grad', 'tensors', 'training']
    """
    named = dict(module.named_parameters())
    return {
        "tensors": {name: tensor.detach().clone() for name, tensor in module.state_dict().items()},
        "gradients": {name: p.grad.clone() for name, p in named.items() if p.grad is not None},
        "training": {name: part.training for name, part in module.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in named.items()},
        "devices": {name: p.device for name, p in named.items()},
        "hooks": {
            f"{name}.{table}": len(hooks)
            for name, part in module.named_modules()
            for table, hooks in vars(part).items()
            if table.endswith("_hooks")
        },
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare two copies made by `state_of`, bit by bit.

    Parameters
    ----------
    before, after : dict
        What `state_of` returned.

    Raises
    ------
    ContractError
        Naming what changed.
    """
    for aspect, old in before.items():
        new = after[aspect]
        changed = sorted(old.keys() ^ new.keys()) or [name for name in old if not _equal(old[name], new[name])]
        require(not changed, f"the module's {aspect} to be as they were", f"changes in {', '.join(changed)}")


def _equal(old: Any, new: Any) -> bool:
    return torch.equal(old, new) if isinstance(old, torch.Tensor) else bool(old == new)


@contextmanager
def generators_untouched() -> Iterator[None]:
    """Check that the global generators of Python, NumPy and torch are the same after the body.

    Yields
    ------
    None
        Nothing: query inside.

    Raises
    ------
    ContractError
        Naming the generator that moved.
    """
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    require(random.getstate() == python, "Python's global generator untouched", "it moved")
    now = np.random.get_state()  # noqa: NPY002 - the global generator is what is guarded
    same = all(np.array_equal(a, b) for a, b in zip(numpy, now, strict=True))
    require(same, "NumPy's global generator untouched", "it moved")
    require(torch.equal(torch.get_rng_state(), torch_state), "torch's global generator untouched", "it moved")


@contextmanager
def watched(module: nn.Module, *, broken: bool = False) -> Iterator[SimpleNamespace]:
    """Count the passes through a module's last linear layer, or have it raise.

    Parameters
    ----------
    module : torch.nn.Module
        With a linear layer.
    broken : bool, default=False
        Whether the layer raises instead of answering.

    Yields
    ------
    SimpleNamespace
        With ``n_passes``, the count so far.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> with watched(net) as watch:
    ...     _ = net(torch.zeros(1, 1))
    >>> watch.n_passes
    1
    """
    # By replacing forward on the object: hooks would be part of what a query is held to leave alone.
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    forward, watch = last.forward, SimpleNamespace(n_passes=0)

    def passing(*args: Any, **kwargs: Any) -> Any:
        watch.n_passes += 1
        if broken:
            raise RuntimeError("the net broke")
        return forward(*args, **kwargs)

    last.forward = passing  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        del last.forward
