"""Nets that give several labels to one sample: a logit for each, trained by binary cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.nets.datasets import LabeledDataset
from modal_ntk.nets.encoded import final_of

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


class MultiLabelNet(ClassifierMixin, BaseEstimator):
    """A net, or a Pipeline that ends in one, that answers by a matrix of labels.

    Parameters
    ----------
    estimator : skorch net or Pipeline
        Whose module returns a logit for each label; fitted in place, by ``nn.BCEWithLogitsLoss``.

    Attributes
    ----------
    classes_ : numpy.ndarray (K,)
        Numbers of the labels.

    Examples
    --------
    >>> from skorch import NeuralNet
    >>> net = NeuralNet(nn.Linear(1, 2), criterion=nn.BCEWithLogitsLoss, train_split=None, verbose=0, lr=1.0)
    >>> X = np.array([[-1.0], [1.0]], "float32")
    >>> MultiLabelNet(net).fit(X, np.array([[0, 1], [1, 0]])).predict(X).tolist()
    [[0, 1], [1, 0]]
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, **fit_params: Any) -> MultiLabelNet:
        """Fit the estimator.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.
        y : array-like (n, K)
            Zeros and ones.
        **fit_params
            As the estimator takes them.

        Returns
        -------
        MultiLabelNet
            Itself.
        """
        return self._train(self.estimator.fit, X, y, fit_params)

    def partial_fit(self, X: Any, y: Any, **fit_params: Any) -> MultiLabelNet:
        """Train the estimator on.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.
        y : array-like (n, K)
            Zeros and ones.
        **fit_params
            As the estimator takes them.

        Returns
        -------
        MultiLabelNet
            Itself.
        """
        return self._train(self.estimator.partial_fit, X, y, fit_params)

    def _train(self, train: Any, X: Any, y: Any, fit_params: dict[str, Any]) -> MultiLabelNet:
        net = final_of(self.estimator)
        if not has_label_loss(net):
            got = getattr(net.criterion, "__name__", type(net.criterion).__name__)
            remedy = "Pass criterion=torch.nn.BCEWithLogitsLoss, and a module with an output for each label."
            raise checks.expected("a net whose loss takes each output for a label, for labels in a matrix", got, remedy)
        labels = checks.check_labels(y, checks.n_rows(X), multilabel=True).astype(np.float32)
        train(LabeledDataset(X, labels) if checks.is_dataset(X) else X, labels, **fit_params)
        self.classes_ = np.arange(labels.shape[1])
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Tell whether it was fitted."""
        return hasattr(self, "classes_")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every label.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.

        Returns
        -------
        numpy.ndarray (n, K)
            Probabilities, each of its own.
        """
        from modal_ntk.nets.reading.view import NetView

        found: np.ndarray = NetView(self.estimator).label_probabilities(X).numpy()
        return found

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels that are more probable than not.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.

        Returns
        -------
        numpy.ndarray (n, K), int64
            Zeros and ones.
        """
        return (self.predict_proba(X) > 0.5).astype(np.int64)


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
