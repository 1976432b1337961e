"""Which combination of a sample's outputs each kind of kernel differentiates.

Every kind is an inner product of gradients of weighted outputs, so it is told by its weights (n, r, K) alone:
r = 1 for a scalar combination, r = K for all outputs side by side.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.features.samples import Samples, by_sample

KINDS = ("pseudo", "trace", "full", "labelled", "loss", "mse")

LOSSES = {"cross_entropy": "loss", "mse": "mse", "binary_cross_entropy": "labels"}
"""The kind that each loss's gradient is of."""


def cotangents(kind: str, logits: Tensor, signs: Any, labels: Any) -> Tensor:
    """Return the weights that make a kind of kernel.

    Parameters
    ----------
    kind : {"pseudo", "trace", "full", "labelled", "loss", "mse", "labels"}
        The kernel; "labels" is the gradient of the binary cross-entropy, summed over several labels of a sample.
    logits : Tensor (n, K)
        Outputs of the samples; their values matter to "loss", "mse" and "labels" alone.
    signs : Tensor (n, K) or None
        Weights of the outputs for "labelled", if not those of the labels.
    labels : Tensor (n,), or (n, K) for "labels", or None
        Class of each sample, for "labelled", "loss" and "mse"; zeros and ones for "labels".

    Returns
    -------
    Tensor (n, r, K)
        Weights, normalised.

    Raises
    ------
    InvalidInputError
        If the kind needs labels that are missing or out of range.
    """
    n, k = logits.shape
    if kind == "pseudo":
        return logits.new_full((n, 1, k), 1 / math.sqrt(k))
    if kind in ("trace", "full"):
        eye = torch.eye(k, dtype=logits.dtype, device=logits.device)
        return (eye / math.sqrt(k) if kind == "trace" else eye).expand(n, k, k)
    if kind == "labelled" and signs is not None:
        weights = torch.as_tensor(signs).to(logits)
        if weights.shape != logits.shape:
            got = f"shape {tuple(weights.shape)}"
            raise checks.expected(f"signs of shape ({n}, {k})", got, "Pass one weight per sample and output.")
        return weights[:, None] / math.sqrt(k)
    if kind == "labels":
        return (logits.sigmoid() - given_labels(kind, labels, logits))[:, None]
    one_hot = _one_hot(kind, labels, logits)
    if kind == "labelled":
        return (2 * one_hot - 1)[:, None] / math.sqrt(k)
    outputs = logits.softmax(1) if kind == "loss" else logits
    return (outputs - one_hot)[:, None]


class Combined:
    """Samples, and the combination of each one's outputs that is differentiated.

    Parameters
    ----------
    x : Tensor (n, ...) or NamedTensors
        Samples.
    kind : str
        As for `cotangents`.
    signs, labels : array-like (n, ...) or None
        As there; cut with the samples.
    """

    def __init__(self, x: Samples, kind: str, signs: Any = None, labels: Any = None) -> None:
        self.x, self.kind = x, kind
        self.signs, self.labels = by_sample("signs", signs, len(x)), by_sample("labels", labels, len(x))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> Combined:
        signs, labels = (None if values is None else values[rows] for values in (self.signs, self.labels))
        return Combined(self.x[rows], self.kind, signs, labels)

    def weights(self, logits: Tensor) -> Tensor:
        """Return the weights (n, r, K) of the samples' outputs."""
        return cotangents(self.kind, logits, self.signs, self.labels)


def predicted_labels(kind: str, logits: Tensor) -> Tensor:
    """Return what the outputs (n, K) predict: the lowest of the largest (n,), or for "labels" zeros and ones (n, K)."""
    return (logits > 0).to(torch.int64) if kind == "labels" else logits.argmax(1)


def given_labels(kind: str, labels: Any, logits: Tensor) -> Tensor:
    """Return labels of a kind beside their outputs (n, K), checked against these: class numbers, or zeros and ones."""
    if kind != "labels":
        return class_numbers(labels, logits)
    matrix = torch.as_tensor(labels).to(logits.device)
    if matrix.shape != logits.shape or not ((matrix == 0) | (matrix == 1)).all():
        got = f"shape {tuple(matrix.shape)}" if matrix.shape != logits.shape else "other values"
        raise checks.expected(f"labels of zeros and ones, of shape {tuple(logits.shape)}", got, "One for each output.")
    return matrix


def class_numbers(labels: Any, logits: Tensor) -> Tensor:
    """Return labels as a vector of class numbers beside their logits (n, K), checked against these."""
    classes = torch.from_numpy(checks.check_rows("labels", labels, None, length=len(logits))).to(logits.device)
    k = logits.shape[1]
    if len(classes) and int(classes.max()) >= k:
        raise checks.expected(f"labels below {k}, the number of outputs", int(classes.max()), "Count from zero.")
    return classes


def _one_hot(kind: str, labels: Any, logits: Tensor) -> Tensor:
    if labels is None:
        raise checks.expected(f"labels for kind={kind!r}", None, "Pass labels=, the class number of each sample.")
    return torch.nn.functional.one_hot(class_numbers(labels, logits), logits.shape[1]).to(logits)
