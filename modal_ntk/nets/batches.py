"""Batches of samples as a skorch net makes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from skorch.dataset import unpack_data
from torch import Tensor, nn


def each_batch(net: Any, module: nn.Module, X: Any) -> Iterator[tuple[Any, Any]]:
    """Go through samples in the batches of a net's own iterator.

    Parameters
    ----------
    net : skorch.NeuralNet
        Whose data set, transforms and batch size hold.
    module : torch.nn.Module
        Its module; floats are cast to the type of its parameters.
    X : samples (n, ...)
        As the net takes them.

    Yields
    ------
    tuple
        Inputs and target of one batch, on the CPU.
    """
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    for batch in _unwarned(net.get_iterator(net.get_dataset(X), training=False)):
        inputs, target = unpack_data(batch)
        # Lists and float64 arrays meet a float32 net every day; the module's own type decides.
        yield _cast(inputs, dtype), target


def _unwarned(batches: Any) -> Iterator[Any]:
    # Torch warns of memory maps and other read-only arrays; nothing here writes to them.
    iterator = iter(batches)
    while True:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


def _cast(inputs: Any, dtype: torch.dtype) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _cast(value, dtype) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(_cast(value, dtype) for value in inputs)
    return inputs.to(dtype) if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs
