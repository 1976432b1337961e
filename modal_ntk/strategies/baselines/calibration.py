"""A temperature for a classifier's probabilities, from labels that a copy of it has not seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import clone

from modal_ntk import checks, nets
from modal_ntk.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.strategies.base import Query

TEMPERATURES = np.arange(10, 200) / 10
"""What is tried, from 1 to 19.9, as in the authors' code of UHerding."""

HELD_OUT = 0.3
"""Share of the labelled samples that the copy does not see, as there."""

N_BINS = 15
"""Bins of equal width for the calibration error, as usual since Guo et al. (2017)."""


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Return probabilities as their logits divided by a temperature would have given them.

    Parameters
    ----------
    probabilities : Tensor (n, C), float64
        Rows of the simplex.
    temperature : float
        Above zero; above one it flattens, and infinity makes all classes equal.

    Returns
    -------
    Tensor (n, C)
        Rows of the simplex.

    Examples
    --------
    >>> import torch
    >>> tempered(torch.tensor([[0.9, 0.1]], dtype=torch.float64), 2.0).round(decimals=6).tolist()
    [[0.75, 0.25]]
    """
    smallest = np.finfo(float).tiny
    return (probabilities.clamp_min(smallest).log() / temperature).softmax(dim=1)


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error: how far confidence is from accuracy, bin by bin.

    Parameters
    ----------
    confidence : numpy.ndarray (n,)
        Probability of the predicted class.
    right : numpy.ndarray (n,), bool
        Whether the prediction was right.
    n_bins : int, default=15
        Number of bins of equal width; each holds its upper end.

    Returns
    -------
    float
        The mean over samples of the absolute difference of accuracy and mean confidence in their bin.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.8]), np.array([True, False]), n_bins=2), 3)
    0.35
    """
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    surplus = np.bincount(bins, weights=confidence - right, minlength=n_bins)
    return float(np.abs(surplus).sum() / len(confidence))


def held_out_temperature(query: Query, rng: np.random.Generator) -> float:
    """Fit a copy of the estimator to a part of the labels, and return what calibrates it best on the others.

    Parameters
    ----------
    query : Query
        Gives the estimator, which is cloned, and the labelled samples.
    rng : numpy.random.Generator
        Draws the part, and seeds the fit.

    Returns
    -------
    float
        The temperature of least calibration error, the lowest such; infinite where the labels are too few to tell,
        none left over or a single class to learn from.

    Raises
    ------
    InvalidInputError
        If the estimator cannot be cloned, or its copy not be fitted to fewer labels.
    """
    order = rng.permutation(query.n_labeled)
    n_held = max(1, round(HELD_OUT * query.n_labeled))
    held, seen = np.sort(order[:n_held]), np.sort(order[n_held:])
    if len({*query.y_labeled[seen].tolist()}) < 2:
        return math.inf
    view = _fitted_copy(query, seen, int(rng.integers(2**32)))
    probabilities = view.probabilities(nets.take_rows(query.X_labeled, held))
    columns = probabilities.argmax(dim=1).numpy()
    right = np.asarray(view.labels_at(columns, probabilities.shape[1]) == query.y_labeled[held])
    confidences = [tempered(probabilities, t).max(dim=1).values.numpy() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin([calibration_error(c, right) for c in confidences]))])


def _fitted_copy(query: Query, rows: np.ndarray, seed: int) -> nets.NetView:
    remedy = "Pass temperature=1.0 to take the probabilities as they are."
    estimator = query.view.estimator
    try:
        copy = clone(estimator)
    except (TypeError, RuntimeError) as error:  # no estimator; a module that holds tensors of a graph
        got = f"{type(estimator).__name__}: {error}"
        raise checks.expected("an estimator that scikit-learn can clone", got, remedy) from error
    net = nets.NetView(copy).net
    if net is not None:
        net.set_params(verbose=0)
    labels = query.y_labeled[rows]
    copy = nets.for_labels(copy, labels, query.view.classes if query.view.is_encoded else None)
    try:
        with nets.seeded(seed):
            nets.train(copy, nets.take_rows(query.X_labeled, rows), labels)
    except InvalidInputError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise checks.expected(f"a copy of the estimator to fit {len(rows)} labelled samples", got, remedy) from error
    return nets.NetView(copy)
