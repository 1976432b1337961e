"""What a net returns, and what is read from it: probabilities, logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk.errors import UnmetNeedError


def as_logits(net: Any, outputs: Tensor) -> Tensor:
    """Return what softmax turns into the class probabilities, from a skorch net's outputs; gradients pass.

    Parameters
    ----------
    net : skorch.NeuralNet
        Whose criterion and ``predict_nonlinearity`` tell what the outputs are.
    outputs : Tensor (n, ...)
        What its module returned.

    Returns
    -------
    Tensor (n, C)
        The outputs where the net is trained by cross-entropy; (0, z) where it has one logit z; else logarithms
        of the probabilities, clamped at 1e-12.
    """
    criterion = getattr(net.criterion_, "_orig_mod", net.criterion_)
    if isinstance(criterion, nn.CrossEntropyLoss) and net.predict_nonlinearity == "auto":
        return outputs
    if isinstance(criterion, nn.BCEWithLogitsLoss) and net.predict_nonlinearity == "auto":
        logit = outputs.reshape(-1, 1)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
    return as_probabilities(net, outputs).clamp_min(1e-12).log()


def as_probabilities(net: Any, outputs: Tensor) -> Tensor:
    """Return the class probabilities from a skorch net's outputs; gradients pass.

    Parameters
    ----------
    net : skorch.NeuralNet
        As for `as_logits`.
    outputs : Tensor (n, ...)
        What its module returned.

    Returns
    -------
    Tensor (n, C), float64
        Rows of the simplex.

    Raises
    ------
    UnmetNeedError
        If they are none.
    """
    # The accessor is skorch's own resolution of `predict_nonlinearity`; it has no public name.
    return on_simplex(net._get_predict_nonlinearity()(outputs).double())


def on_simplex(values: Tensor) -> Tensor:
    """Return probabilities, recognising their logarithms and undoing these.

    Parameters
    ----------
    values : Tensor (n, C)
        Probabilities or their logarithms.

    Returns
    -------
    Tensor (n, C)
        Probabilities.

    Raises
    ------
    UnmetNeedError
        If they are neither.
    """

    def sums_to_one(v: Tensor) -> bool:
        return bool((v >= 0).all()) and bool(((v.sum(dim=1) - 1).abs() < 1e-3).all())

    if values.ndim == 2:
        for candidate in (values, values.exp()):
            if sums_to_one(candidate):
                return candidate
    got = f"outputs of shape {tuple(values.shape)} in [{values.min():.3g}, {values.max():.3g}]"
    raise UnmetNeedError(
        f"Expected probabilities, rows that sum to one, got {got}. "
        "Train with CrossEntropyLoss on logits, or set the net's predict_nonlinearity."
    )
