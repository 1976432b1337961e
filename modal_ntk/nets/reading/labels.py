"""Outputs of nets and classifiers that give several labels to one sample, as one matrix of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LOSSES = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.BCELoss)
"""Losses that take every output for a label of its own."""


def has_label_loss(net: Any) -> bool:
    """Tell whether a net's loss takes every output for a label of its own.

    Parameters
    ----------
    net : skorch net

    Returns
    -------
    bool
        Whether it is one of `LOSSES`; with a single output it is a net for two classes.
    """
    criterion = net.criterion
    return issubclass(criterion if isinstance(criterion, type) else type(criterion), LOSSES)


def from_outputs(net: Any, outputs: Tensor) -> Tensor:
    """Return the probability of every label.

    Parameters
    ----------
    net : skorch net
        With a loss of `LOSSES`.
    outputs : Tensor (n, K)
        What its module returned.

    Returns
    -------
    Tensor (n, K), float64
        Sigmoids of logits; outputs of a net trained by ``nn.BCELoss`` are probabilities.
    """
    criterion = net.criterion
    probable = issubclass(criterion if isinstance(criterion, type) else type(criterion), nn.BCELoss)
    return outputs.double() if probable else outputs.double().sigmoid()


def gives_a_matrix(classifier: Any) -> bool:
    """Tell whether a fitted scikit-learn classifier was taught a matrix of labels.

    Parameters
    ----------
    classifier : estimator
        A classifier.

    Returns
    -------
    bool
        By what it says of itself: ``multilabel_``, several ``n_outputs_``, or a list of ``classes_``.
    """
    several = getattr(classifier, "n_outputs_", 1) != 1 or isinstance(getattr(classifier, "classes_", None), list)
    return bool(several or getattr(classifier, "multilabel_", False))


def stacked_columns(found: Any) -> Tensor:
    """Return a scikit-learn classifier's probabilities of several labels as one matrix.

    Parameters
    ----------
    found : array (n, K), or list of K arrays (n, 2)
        What ``predict_proba`` returned.

    Returns
    -------
    Tensor (n, K), float64
        Probabilities of the ones.
    """
    if isinstance(found, list):
        # Of a label that was never seen, or always, a forest returns one column.
        found = np.stack([part[:, 1] if part.shape[1] > 1 else 1 - part[:, 0] for part in found], axis=1)
    return torch.from_numpy(np.array(found, dtype=np.float64))
