"""What training tells of every sample: its loss and its being right, epoch by epoch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor

from modal_ntk import checks, nets
from modal_ntk.pruning.base import Labelled, checked_data, trained

Measure = Literal["cross_entropy", "el2n"]


class SampleHistory(Callback):
    """Skorch callback that looks at every training sample after every epoch.

    Reading leaves net and generators as they were, so that training goes on as it would have without.

    Parameters
    ----------
    X, y : samples (n, ...) and labels (n,), optional
        What is watched; by default what ``fit`` is given, validation part included.

    Attributes
    ----------
    losses_ : numpy.ndarray (n_epochs, n)
        Cross-entropy of every sample after each epoch, in nats.
    errors_ : numpy.ndarray (n_epochs, n)
        Euclidean distance between probabilities and one-hot label.
    correct_ : numpy.ndarray (n_epochs, n), bool
        Whether the most probable class was the label's.

    Notes
    -----
    Samples are watched in evaluation mode at the end of an epoch, all with the same weights. Algorithm 1 of lpNTK adds
    up losses as they are met inside the epoch instead; over an epoch's samples the two differ by at most one epoch.

    Examples
    --------
    >>> import skorch
    >>> X, y = np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
    >>> history = SampleHistory()
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, max_epochs=3, verbose=0,
    ...     callbacks=[("history", history)],
    ... ).fit(X, y)
    >>> dict(net.callbacks_)["history"].losses_.shape
    (3, 4)
    """

    def __init__(self, X: Any = None, y: Any = None) -> None:
        self.X = X
        self.y = y

    def initialize(self) -> SampleHistory:
        """Forget what was seen in an earlier fit."""
        self.losses_ = np.zeros((0, 0))
        self.errors_ = np.zeros((0, 0))
        self.correct_ = np.zeros((0, 0), dtype=bool)
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: ARG002 - skorch's
        """Note what is to be watched."""
        self.initialize()
        self.seen_ = (X, y) if self.X is None else (self.X, self.y)
        if self.seen_[1] is None:
            raise checks.expected("labels to watch", None, "Pass X and y to the callback, or fit with labels.")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 - skorch passes the data sets
        """Look at every sample."""
        X, y = self.seen_
        view = nets.NetView(net)
        logits = view.logits(X).double()
        if not len(self.losses_):
            self.columns_ = torch.from_numpy(nets.class_columns(view, y, logits.shape[1]))
        loss, error, correct = sample_errors(logits, self.columns_)
        self.losses_ = _appended(self.losses_, loss.numpy())
        self.errors_ = _appended(self.errors_, error.numpy())
        self.correct_ = _appended(self.correct_, correct.numpy())

    def on_train_end(self, net: Any, **kwargs: Any) -> None:  # noqa: ARG002 - skorch passes the data
        """Let go of the samples, so that a stored net does not hold them."""
        del self.seen_

    def difficulty(self, measure: Measure = "cross_entropy") -> np.ndarray:
        """Return the sum over epochs of every sample's loss: (n,)."""
        checks.check_choice("measure", measure, ("cross_entropy", "el2n"))
        return (self.losses_ if measure == "cross_entropy" else self.errors_).sum(axis=0)

    def forgetting(self, *, never: Literal["infinite", "epochs"] = "infinite") -> np.ndarray:
        """Return how often every sample was right after one epoch and wrong after the next: (n,).

        Parameters
        ----------
        never : {"infinite", "epochs"}, default="infinite"
            Value of samples that were never right: infinity, or the number of epochs.

        Returns
        -------
        numpy.ndarray (n,)
            Counts.
        """
        return forgetting_counts(self.correct_, never=never)


def forgetting_counts(correct: np.ndarray, *, never: Literal["infinite", "epochs"] = "infinite") -> np.ndarray:
    """Count the changes from right to wrong of every sample.

    Parameters
    ----------
    correct : numpy.ndarray (n_epochs, n), bool
        Whether a sample was right at each look.
    never : {"infinite", "epochs"}, default="infinite"
        Value of samples that were never right: infinity, or the number of looks (Toneva et al.).

    Returns
    -------
    numpy.ndarray (n,), float
        Counts.

    Examples
    --------
    >>> forgetting_counts(np.array([[0, 1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]], dtype=bool).T).tolist()
    [2.0, inf]
    """
    checks.check_choice("never", never, ("infinite", "epochs"))
    counts = (correct[:-1] & ~correct[1:]).sum(axis=0).astype(np.float64)
    counts[~correct.any(axis=0)] = np.inf if never == "infinite" else len(correct)
    return counts


def learning_difficulty(
    estimator: Any, X: Any, y: Any, *, measure: Measure = "cross_entropy", random_state: Any = None
) -> np.ndarray:
    """Train a net and add up every sample's loss over the epochs.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Cloned; trained for its ``max_epochs``.
    X, y : samples (n, ...) and labels (n,)
        The training set.
    measure : {"cross_entropy", "el2n"}, default="cross_entropy"
        What is added up: the loss (lpNTK, algorithm 1), or the distance between probabilities and one-hot label (the
        authors' code).
    random_state : int, numpy generator or None, default=None
        Seed of weights and batches.

    Returns
    -------
    numpy.ndarray (n,)
        Difficulties; larger is harder.

    Examples
    --------
    >>> import skorch
    >>> X, y = np.repeat(np.eye(2, dtype="float32"), 5, axis=0), np.array([0] * 5 + [1] * 4 + [0])
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss, lr=1.0, train_split=None, verbose=0
    ... )
    >>> int(learning_difficulty(net, X, y, random_state=0).argmax())
    9
    """
    checks.check_choice("measure", measure, ("cross_entropy", "el2n"))
    data = checked_data(X, y, random_state)
    return watched(estimator, data, data.seed()).difficulty(measure)


def watched(estimator: Any, data: Labelled, seed: int, *, n_epochs: int | None = None) -> SampleHistory:
    """Return what a callback saw of the training of a clone."""
    history = SampleHistory()
    trained(estimator, data, seed, callback=history, n_epochs=n_epochs)
    return history


def _appended(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.concatenate([values.reshape(-1, len(row)), row[None]])


def sample_errors(logits: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cross-entropy, distance of the probabilities from the one-hot label, and correctness: each (n,)."""
    one_hot = torch.nn.functional.one_hot(columns, logits.shape[1]).to(logits)
    loss = torch.nn.functional.cross_entropy(logits, columns, reduction="none")
    return loss, (logits.softmax(1) - one_hot).norm(dim=1), logits.argmax(1) == columns
