"""Samples as modules take them: one tensor, or several by name that belong together row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from modal_ntk import checks


class NamedTensors:
    """Several tensors (n, ...) that are counted, cut and copied as one batch, and passed to a module by name.

    Parameters
    ----------
    parts : mapping of str to Tensor (n, ...)
        One tensor for each argument of the module's ``forward``, as skorch passes a dict.

    Raises
    ------
    InvalidInputError
        If there are none, or their lengths differ.

    Examples
    --------
    >>> pair = NamedTensors({"words": torch.zeros(3, 2), "mask": torch.ones(3)})
    >>> len(pair), pair[1:].parts["mask"].tolist()
    (3, [1.0, 1.0])
    """

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        self.parts = dict(parts)
        lengths = {name: len(part) for name, part in self.parts.items()}
        if len(set(lengths.values())) != 1:
            remedy = "Pass one tensor for each argument of the module's forward, all with one row per sample."
            raise checks.expected("a dict of tensors with as many rows each", lengths, remedy)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: Any) -> NamedTensors:
        return self._mapped(lambda part: part[rows])

    def clone(self) -> NamedTensors:
        """Return a copy that shares no memory."""
        return self._mapped(torch.clone)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> NamedTensors:
        return NamedTensors({name: function(part) for name, part in self.parts.items()})


Samples: TypeAlias = Tensor | NamedTensors


def by_sample(name: str, values: Any, n: int) -> Any:
    """Return what belongs to each of n samples as a tensor or an array, or None if there is none.

    Raises
    ------
    InvalidInputError
        If there are more or fewer.
    """
    if values is None:
        return None
    held = values if isinstance(values, Tensor) else np.asarray(values)
    if held.ndim == 0 or len(held) != n:
        got = f"{len(held)}" if held.ndim else repr(values)
        raise checks.expected(f"{n} {name}, one for each sample", got, "Pass one for every sample.")
    return held


def as_samples(x: Any, convert: Callable[[Tensor], Tensor]) -> Samples:
    """Return a tensor, or a mapping of tensors, each of them converted."""
    if isinstance(x, (NamedTensors, Mapping)):
        parts = x.parts if isinstance(x, NamedTensors) else x
        return NamedTensors({name: convert(_as_tensor(part)) for name, part in parts.items()})
    return convert(_as_tensor(x))


def _as_tensor(x: Any) -> Tensor:
    try:
        x = x.to_numpy() if hasattr(x, "to_numpy") else x
        fixed = isinstance(x, np.ndarray) and not x.flags.writeable  # torch warns of those; nothing here writes
        held = torch.as_tensor(np.array(x) if fixed else x)
    except (TypeError, ValueError, RuntimeError) as error:
        remedy = "Pass a tensor (n, ...), an array, or a dict of them by argument."
        raise checks.expected("samples of numbers", f"{type(x).__name__} ({error})", remedy) from error
    if held.ndim == 0:
        raise checks.expected("samples of shape (n, ...)", "a single number", "Pass one row for each sample.")
    return held


def concatenated(parts: Sequence[Samples]) -> Samples:
    """Return several batches, of one kind, as one."""
    first = parts[0]
    if isinstance(first, NamedTensors):
        held = [part.parts for part in parts if isinstance(part, NamedTensors)]
        return NamedTensors({name: torch.cat([part[name] for part in held]) for name in first.parts})
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def called(module: nn.Module, parameters: dict[str, Tensor], samples: Samples, *, tied: bool = True) -> Any:
    """Return what a module gives for samples, under some parameters and buffers in place of its own.

    Without `tied` it is not asked which of them are one tensor under several names; looking for these takes time.
    """
    if isinstance(samples, NamedTensors):
        return torch.func.functional_call(module, parameters, (), samples.parts, tie_weights=tied)
    return torch.func.functional_call(module, parameters, (samples,), tie_weights=tied)
