"""Dropout at prediction time: found in a net, and switched on while all else stays in evaluation mode."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from modal_ntk.errors import UnmetNeedError
from modal_ntk.nets.traceless import seeded

_DROPOUTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
        ("input", "p", "training", "inplace"),
    ),
    **dict.fromkeys(
        (torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout, torch.native_dropout),
        ("input", "p", "train"),
    ),
}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)
_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_NAMES = {function.__name__ for function in _DROPOUTS}


def has_dropout(module: nn.Module) -> bool:
    """Tell whether a module has dropout, as far as that can be told without running it.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    bool
        Whether some part of it is a dropout layer, an attention or recurrent layer with dropout, or has a
        ``forward`` that mentions a dropout function by name.

    Examples
    --------
    >>> has_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout())), has_dropout(nn.Linear(2, 2))
    (True, False)
    """
    return any(_drops(part) for part in module.modules())


def _drops(part: nn.Module) -> bool:
    if isinstance(part, _DropoutNd):
        return True
    if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)):
        return part.dropout > 0
    # Torch's own layers mention dropout whether or not they have any; the others are taken by their word.
    if type(part).__module__.startswith("torch.nn."):
        return False
    code = getattr(type(part).forward, "__code__", None)
    return code is not None and _mentions_dropout(code)


def _mentions_dropout(code: CodeType) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return not _NAMES.isdisjoint(code.co_names) or any(_mentions_dropout(part) for part in inner)


class _Switched(TorchFunctionMode):
    # Functions are switched, not layers, so that functional dropout counts too, and so that skorch, which puts
    # the whole module into evaluation mode before every batch, need not be worked around.
    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            names = _DROPOUTS[func]
            call = {**dict(zip(names, args, strict=False)), **kwargs}
            self.rates.append(float(call.get("p", 0.5)))
            return func(**{**call, names[2]: True})
        if func is F.multi_head_attention_forward:
            call = _ATTENTION.bind(*args, **kwargs).arguments
            if call["dropout_p"] > 0:
                self.rates.append(float(call["dropout_p"]))
                return func(**{**call, "training": True})
        elif func in _RECURRENT:
            # Of packed sequences one more argument comes first; only the flag is a bool here or there.
            at = 6 if isinstance(args[6], bool) else 7
            if args[at - 1] > 0:
                self.rates.append(float(args[at - 1]))
                args = (*args[:at], True, *args[at + 1 :])
        return func(*args, **kwargs)


@contextmanager
def dropping(seed: int) -> Iterator[list[float]]:
    """Switch on every dropout that runs inside, with masks drawn from a seed; nothing else is in training mode.

    Parameters
    ----------
    seed : int
        Seed of the masks, below 2**32. The global generators are as before afterwards.

    Yields
    ------
    list of float
        Grows by the rate of every dropout that runs. Run a module inside, in evaluation mode.

    Raises
    ------
    UnmetNeedError
        On leaving, if no dropout ran.

    Notes
    -----
    Covered are the dropout functions and layers of torch, the dropout of its recurrent layers, and that of its
    attention weights. BatchNorm stays in evaluation mode. Not covered is what is inside a scripted module.

    Examples
    --------
    >>> net = nn.Sequential(nn.Dropout(0.5)).eval()
    >>> with dropping(0):
    ...     print(sorted(set(net(torch.ones(100)).tolist())))
    [0.0, 2.0]
    """
    with seeded(seed), _Switched() as switched:
        yield switched.rates
    if not switched.rates:
        raise UnmetNeedError(
            "Expected a net with dropout, got one in which no dropout runs. Put nn.Dropout before its last layer, "
            "or use a strategy that needs none, such as entropy."
        )
