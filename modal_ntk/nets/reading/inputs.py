"""What a net is fed for some samples, as one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modal_ntk.nets.reading.logits import input_batches
from modal_ntk.nets.reading.view import NetView


def stacked_inputs(view: NetView, *parts: Any) -> Tensor | dict[str, Tensor]:
    """Return samples as the net's own data loader prepares them, all in one.

    Parameters
    ----------
    view : NetView
        A view of a learner with a net.
    *parts : samples (n, ...)
        As users pass them; one after another. None is left out.

    Returns
    -------
    Tensor (n, ...), or dict of them by argument
        The inputs of all samples, in order.

    Examples
    --------
    >>> import numpy as np, skorch
    >>> net = skorch.NeuralNetClassifier(torch.nn.Linear(2, 3), batch_size=2).initialize()
    >>> stacked_inputs(NetView(net), np.zeros((3, 2), "float32"), None, np.ones((1, 2), "float32")).shape
    torch.Size([4, 2])
    """
    tensors: list[Tensor] = []
    named: dict[str, list[Tensor]] = {}
    for X in parts:
        for batch in input_batches(view, X) if X is not None else ():
            if isinstance(batch, Tensor):
                tensors.append(batch)
            else:
                for name, part in batch.items():
                    named.setdefault(name, []).append(part)
    if named:
        return {name: _stacked(held, view.device) for name, held in named.items()}
    return _stacked(tensors, view.device)


def _stacked(parts: list[Tensor], device: torch.device) -> Tensor:
    # A pool may lie on the GPU while labelled samples do not: all go where the net is then.
    if len({part.device for part in parts}) > 1:
        parts = [part.to(device) for part in parts]
    return torch.cat(parts)
