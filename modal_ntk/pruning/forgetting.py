"""Foretell which samples one step of training will make a net forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from modal_ntk import checks, features
from modal_ntk.features.cotangents import class_numbers
from modal_ntk.features.functional import FunctionalNet

ErrorTerm = Literal["uniform", "uniform_counts", "true"]


@dataclass(frozen=True)
class ForgettingEvents:
    """What was forgotten in a step, and what was foretold.

    Parameters
    ----------
    happened : numpy.ndarray (n,), bool
        Right before the step and wrong after it.
    predicted : numpy.ndarray (n,), bool
        Right before the step and wrong by the prediction.

    Examples
    --------
    >>> step = ForgettingEvents(np.array([True, True, False, False]), np.array([True, False, True, True]))
    >>> round(step.precision, 3), step.recall, round((step + step).f1, 3)
    (0.333, 0.5, 0.4)
    """

    happened: np.ndarray
    predicted: np.ndarray

    def __add__(self, other: ForgettingEvents) -> ForgettingEvents:
        """Return the events of two steps together."""
        parts = [np.concatenate(pair) for pair in ((self.happened, other.happened), (self.predicted, other.predicted))]
        return ForgettingEvents(*parts)

    @property
    def precision(self) -> float:
        """Share of the predicted events that happened; 1 where none was predicted, as the authors count."""
        return _share(self.happened & self.predicted, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the events that were predicted; 1 where none happened, as the authors count."""
        return _share(self.happened & self.predicted, self.happened)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def predict_forgetting(
    before: nn.Module,
    after: nn.Module,
    x: Any,
    y: Any,
    x_step: Any,
    y_step: Any,
    *,
    lr: float,
    error: ErrorTerm = "uniform",
    reduction: Literal["mean", "sum"] = "mean",
    kernel_from: nn.Module | None = None,
) -> ForgettingEvents:
    """Foretell from the tangent kernel which samples a step of gradient descent makes a net forget.

    Parameters
    ----------
    before, after : torch.nn.Module
        The net before and after the step; both return logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples that may be forgotten: in the paper the batch of the step before.
    y : array-like (n,)
        Their class numbers.
    x_step : Tensor (m, ...), or dict of them by argument
        The batch of the step.
    y_step : array-like (m,)
        Its class numbers.
    lr : float
        Learning rate of the step.
    error : {"uniform", "uniform_counts", "true"}, default="uniform"
        What stands for the error at the batch: 1 - 1/K at the label and -1/K elsewhere, that of a uniform prediction
        (section 3.3 of the paper); K times that (its appendix D.4); or the net's own error (the authors' code).
    reduction : {"mean", "sum"}, default="mean"
        How the loss adds up over the batch.
    kernel_from : torch.nn.Module, optional
        Net whose kernel is taken; `before` by default. The authors' code takes the net one step earlier.

    Returns
    -------
    ForgettingEvents
        What happened and what was predicted for each of `x`.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    lpNTK (Guo et al., ICLR 2024), algorithm 2. The change in probabilities is lr A(x_i) sum_j Theta(x_i, x_j) e_j, with
    A = diag(q) - q q' and e_j the error term; the sum is one product with the kernel, which is never formed. Momentum
    and weight decay of the optimiser are left out, as the paper does.

    Examples
    --------
    >>> before, after = nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = before.weight.copy_(torch.tensor([[0.1], [0.0]])), after.weight.copy_(torch.tensor([[0.0], [0.1]]))
    >>> one = torch.ones(1, 1)
    >>> predict_forgetting(before, after, one, [0], one, [1], lr=0.5)
    ForgettingEvents(happened=array([ True]), predicted=array([ True]))
    """
    checks.check_choice("error", error, ("uniform", "uniform_counts", "true"))
    checks.check_choice("reduction", reduction, ("mean", "sum"))
    checks.check_positive("lr", lr)
    logits, later, of_step = (_logits(net, samples) for net, samples in ((before, x), (after, x), (before, x_step)))
    labels, step_labels = class_numbers(y, logits), class_numbers(y_step, of_step)
    weights = _errors(of_step, step_labels, error) * (1 / max(1, len(of_step)) if reduction == "mean" else 1.0)
    moved = features.kernel_times(before if kernel_from is None else kernel_from, x, x_step, weights)
    q = logits.softmax(1)
    change = lr * (q * moved - q * (q * moved).sum(1, keepdim=True))
    right = logits.argmax(1) == labels
    happened = right & (later.argmax(1) != labels)
    predicted = right & ((q + change).argmax(1) != labels)
    return ForgettingEvents(happened.cpu().numpy(), predicted.cpu().numpy())


def _logits(module: nn.Module, x: Any) -> Tensor:
    net = FunctionalNet(module)
    with net.evaluating():
        return net.logits(net.batch(x))


def _errors(logits: Tensor, labels: Tensor, error: ErrorTerm) -> Tensor:
    k = logits.shape[1]
    one_hot = torch.nn.functional.one_hot(labels, k).to(logits)
    if error == "true":
        return one_hot - logits.softmax(1)
    return one_hot - 1 / k if error == "uniform" else k * one_hot - 1


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 1.0
