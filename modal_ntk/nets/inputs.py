"""Some of the samples that users pass, and what a net is fed for them, as one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from torch import Tensor

from modal_ntk.nets.logits import input_batches
from modal_ntk.nets.view import NetView


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
    >>> import skorch
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
    return {name: torch.cat(held) for name, held in named.items()} if named else torch.cat(tensors)


def rows_of(values: Any, rows: np.ndarray) -> Any:
    """Return some rows of samples or labels, in the container they came in.

    Parameters
    ----------
    values : array, tensor, frame, sparse matrix, list, or dict of these (n, ...)
        Samples or labels as users pass them.
    rows : numpy.ndarray (k,) of int
        Which, in this order.

    Returns
    -------
    object
        Of the same kind, with k rows.

    Examples
    --------
    >>> rows_of({"a": [1, 2, 3], "b": torch.eye(3)}, np.array([2, 0]))["a"]
    [3, 1]
    """
    if isinstance(values, Mapping):
        return {name: rows_of(part, rows) for name, part in values.items()}
    return values[rows] if hasattr(values, "detach") else _safe_indexing(values, rows)
