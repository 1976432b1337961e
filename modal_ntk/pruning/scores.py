"""Pruners that keep the samples with the largest score: EL2N, GraNd and forgetting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from modal_ntk import features, nets, progress
from modal_ntk.checks.parameters import COUNT, SHARE, Constraints, Interval, StrOptions
from modal_ntk.pruning.base import DataPruner, Labelled, trained
from modal_ntk.pruning.difficulty import sample_errors, watched


class ScorePruner(DataPruner):
    """Base of pruners that give every sample a score and keep a share of them."""

    keep: float
    keep_hardest: bool
    _parameter_constraints: ClassVar[Constraints] = {
        "keep": [SHARE],
        "keep_hardest": ["boolean"],
        "n_models": [COUNT],
        "n_epochs": [Interval(Integral, 0, None, closed="left"), None],
    }

    def _keep(self, data: Labelled) -> np.ndarray:
        self.scores_ = self._scores(data)
        n_kept = max(1, round(self.keep * len(data)))
        order = np.lexsort((data.rng.random(len(data)), -self.scores_ if self.keep_hardest else self.scores_))
        return order[:n_kept]

    @abstractmethod
    def _scores(self, data: Labelled) -> np.ndarray:
        """Return the score of every sample; larger is harder."""


class EL2N(ScorePruner):
    """Keep the samples that nets early in training are most wrong about.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Cloned and trained `n_models` times.
    keep : float, default=0.8
        Share of the samples that stays.
    n_models : int, default=10
        Nets, from different seeds, over which scores are averaged.
    n_epochs : int or None, default=20
        Epochs each is trained; None takes the net's ``max_epochs``.
    keep_hardest : bool, default=True
        Whether the largest scores stay, or the smallest.
    random_state : int, numpy generator or None, default=None
        Seed of training and ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Attributes
    ----------
    sample_indices_ : numpy.ndarray (m,), int64
        Rows kept, in rising order.
    scores_ : numpy.ndarray (n,)
        Mean Euclidean distance between probabilities and one-hot label, from 0 to the root of 2.

    Notes
    -----
    Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet" (NeurIPS 2021), definition 2.2.

    Examples
    --------
    >>> import skorch
    >>> X, y = np.repeat(np.eye(2, dtype="float32"), 5, axis=0), np.array([0] * 5 + [1] * 4 + [0])
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss, lr=1.0, train_split=None, verbose=0
    ... )
    >>> EL2N(net, keep=0.1, n_models=2, random_state=0).fit(X, y).sample_indices_.tolist()
    [9]
    """

    def __init__(
        self,
        estimator: Any,
        *,
        keep: float = 0.8,
        n_models: int = 10,
        n_epochs: int | None = 20,
        keep_hardest: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.keep = keep
        self.n_models = n_models
        self.n_epochs = n_epochs
        self.keep_hardest = keep_hardest
        self.random_state = random_state
        self.verbose = verbose

    def _scores(self, data: Labelled) -> np.ndarray:
        total = np.zeros(len(data))
        for view, columns in _models(self, data):
            total += sample_errors(view.logits(data.X).double(), columns)[1].numpy()
        return total / self.n_models


class GraNd(ScorePruner):
    """Keep the samples whose loss has the longest gradient early in training.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Cloned and trained `n_models` times.
    keep : float, default=0.8
        Share of the samples that stays.
    n_models : int, default=10
        Nets, from different seeds, over which scores are averaged.
    n_epochs : int or None, default=20
        Epochs each is trained; 0 takes the weights as initialised, None the net's ``max_epochs``.
    keep_hardest : bool, default=True
        Whether the largest scores stay, or the smallest.
    random_state : int, numpy generator or None, default=None
        Seed of training and ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Attributes
    ----------
    sample_indices_ : numpy.ndarray (m,), int64
        Rows kept, in rising order.
    scores_ : numpy.ndarray (n,)
        Mean Euclidean length of the gradient of each sample's cross-entropy, over all trainable parameters.

    Notes
    -----
    Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet" (NeurIPS 2021), definition 2.1. Per-sample gradients are
    never formed.

    Examples
    --------
    >>> import skorch
    >>> X, y = np.repeat(np.eye(2, dtype="float32"), 5, axis=0), np.array([0] * 5 + [1] * 4 + [0])
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss, lr=1.0, train_split=None, verbose=0
    ... )
    >>> GraNd(net, keep=0.1, n_models=2, random_state=0).fit(X, y).sample_indices_.tolist()
    [9]
    """

    def __init__(
        self,
        estimator: Any,
        *,
        keep: float = 0.8,
        n_models: int = 10,
        n_epochs: int | None = 20,
        keep_hardest: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.keep = keep
        self.n_models = n_models
        self.n_epochs = n_epochs
        self.keep_hardest = keep_hardest
        self.random_state = random_state
        self.verbose = verbose

    def _scores(self, data: Labelled) -> np.ndarray:
        total = np.zeros(len(data))
        for view, columns in _models(self, data):
            with view.no_trace():
                module, inputs = nets.logit_module(view, data.X), nets.stacked_inputs(view, data.X)
                total += features.loss_gradient_norms(module, inputs, columns).double().cpu().numpy()
        return total / self.n_models


class ForgettingScore(ScorePruner):
    """Keep the samples that a net forgets most often while it is trained.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Cloned and trained once.
    keep : float, default=0.8
        Share of the samples that stays.
    n_epochs : int or None, default=None
        Epochs of training; None takes the net's ``max_epochs``.
    never : {"infinite", "epochs"}, default="infinite"
        Score of a sample that was never right: infinity, or the number of epochs, as its authors have it.
    keep_hardest : bool, default=True
        Whether the largest scores stay, or the smallest.
    random_state : int, numpy generator or None, default=None
        Seed of training and ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Attributes
    ----------
    sample_indices_ : numpy.ndarray (m,), int64
        Rows kept, in rising order.
    scores_ : numpy.ndarray (n,)
        How often each sample was right after one epoch and wrong after the next.

    Notes
    -----
    Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning" (ICLR 2019). They look
    at a sample when its mini-batch comes; here all samples are looked at after every epoch, with the same weights.

    Examples
    --------
    >>> import skorch
    >>> X, y = np.repeat(np.eye(2, dtype="float32"), 5, axis=0), np.array([0] * 5 + [1] * 4 + [0])
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss, lr=1.0, train_split=None, verbose=0
    ... )
    >>> ForgettingScore(net, keep=0.1, random_state=0).fit(X, y).sample_indices_.tolist()
    [9]
    """

    _parameter_constraints: ClassVar[Constraints] = {
        **ScorePruner._parameter_constraints,
        "never": [StrOptions({"infinite", "epochs"})],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        keep: float = 0.8,
        n_epochs: int | None = None,
        never: Literal["infinite", "epochs"] = "infinite",
        keep_hardest: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.keep = keep
        self.n_epochs = n_epochs
        self.never = never
        self.keep_hardest = keep_hardest
        self.random_state = random_state
        self.verbose = verbose

    def _scores(self, data: Labelled) -> np.ndarray:
        return watched(self.estimator, data, data.seed(), n_epochs=self.n_epochs).forgetting(never=self.never)


def _models(pruner: Any, data: Labelled) -> Iterator[tuple[nets.NetView, torch.Tensor]]:
    # One trained net after another, with each sample's column of its logits.
    for _ in progress.steps(range(pruner.n_models), "models", "model"):
        view = nets.NetView(trained(pruner.estimator, data, data.seed(), n_epochs=pruner.n_epochs))
        n_outputs = view.logits(nets.take_rows(data.X, np.arange(1))).shape[1]
        yield view, torch.from_numpy(nets.class_columns(view, data.y, n_outputs))
