"""Samples as modules take them: one tensor, or several by name that belong together row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

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


def as_samples(x: Any, convert: Callable[[Tensor], Tensor]) -> Samples:
    """Return a tensor, or a mapping of tensors, each of them converted."""
    if isinstance(x, (NamedTensors, Mapping)):
        parts = x.parts if isinstance(x, NamedTensors) else x
        return NamedTensors({name: convert(torch.as_tensor(part)) for name, part in parts.items()})
    return convert(torch.as_tensor(x))


def concatenated(parts: Sequence[Samples]) -> Samples:
    """Return several batches, of one kind, as one."""
    first = parts[0]
    if isinstance(first, NamedTensors):
        held = [part.parts for part in parts if isinstance(part, NamedTensors)]
        return NamedTensors({name: torch.cat([part[name] for part in held]) for name in first.parts})
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def called(module: nn.Module, parameters: dict[str, Tensor], samples: Samples) -> Any:
    """Return what a module gives for samples, under some parameters and buffers in place of its own."""
    if isinstance(samples, NamedTensors):
        return torch.func.functional_call(module, parameters, (), samples.parts)
    return torch.func.functional_call(module, parameters, (samples,))
