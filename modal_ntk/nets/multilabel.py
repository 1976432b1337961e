"""Nets that give several labels to one sample: a logit for each, trained by binary cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.nets.encoded import WrappedNet, attached, final_of
from modal_ntk.nets.reading.outputs import has_label_loss
from modal_ntk.nets.reading.view import NetView


class MultiLabelNet(WrappedNet):
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
    >>> from torch import nn
    >>> net = NeuralNet(nn.Linear(1, 2), criterion=nn.BCEWithLogitsLoss, train_split=None, verbose=0, lr=1.0)
    >>> X = np.array([[-1.0], [1.0]], "float32")
    >>> MultiLabelNet(net).fit(X, np.array([[0, 1], [1, 0]])).predict(X).tolist()
    [[0, 1], [1, 0]]
    """

    def _train(self, train: Any, X: Any, y: Any, fit_params: dict[str, Any], *, on: bool) -> None:  # noqa: ARG002
        net = final_of(self.estimator)
        if not has_label_loss(net):
            got = getattr(net.criterion, "__name__", type(net.criterion).__name__)
            remedy = "Pass criterion=torch.nn.BCEWithLogitsLoss, and a module with an output for each label."
            raise checks.expected("a net whose loss takes each output for a label, for labels in a matrix", got, remedy)
        labels = checks.check_labels(y, checks.n_rows(X), multilabel=True).astype(np.float32)
        train(*attached(self.estimator, X, labels), **fit_params)
        self.classes_ = np.arange(labels.shape[1])

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
        return NetView(self.estimator).label_probabilities(X).numpy()

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
