"""Pruners that keep the samples with the largest score: EL2N, GraNd and forgetting."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from modal_ntk import features, nets, progress
from modal_ntk.checks.parameters import COUNT, SHARE, Constraints, Interval, StrOptions
from modal_ntk.pruning.base import DataPruner, Labelled, label_columns, trained
from modal_ntk.pruning.difficulty import sample_errors, watched


@dataclass(eq=False, kw_only=True, repr=False)
class ScorePruner(DataPruner):
    """Base of pruners that give every sample a score and keep a share of them."""

    keep: float = 0.8
    keep_hardest: bool = True
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


@dataclass(eq=False, kw_only=True, repr=False)
class _EarlyScorePruner(ScorePruner):
    # Scores by nets early in training, averaged over several.
    n_models: int = 10
    n_epochs: int | None = 20

    def _scores(self, data: Labelled) -> np.ndarray:
        total = np.zeros(len(data))
        for _ in progress.steps(range(self.n_models), "models", "model"):
            view = nets.NetView(trained(self.estimator, data, data.seed(), n_epochs=self.n_epochs))
            with view.no_trace():
                columns = torch.from_numpy(label_columns(view, data))
                total += self._scores_by(view, data.X, columns).double().cpu().numpy()
        return total / self.n_models

    @abstractmethod
    def _scores_by(self, view: nets.NetView, X: Any, columns: torch.Tensor) -> torch.Tensor:
        """Return the score of every sample by one net; `columns` are the labels' among its logits."""


class EL2N(_EarlyScorePruner):
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

    def _scores_by(self, view: nets.NetView, X: Any, columns: torch.Tensor) -> torch.Tensor:
        return sample_errors(view.logits(X).double(), columns)[1]


class GraNd(_EarlyScorePruner):
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

    def _scores_by(self, view: nets.NetView, X: Any, columns: torch.Tensor) -> torch.Tensor:
        return features.loss_gradient_norms(nets.logit_module(view, X), nets.stacked_inputs(view, X), columns)


@dataclass(eq=False, kw_only=True, repr=False)
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

    n_epochs: int | None = None
    never: Literal["infinite", "epochs"] = "infinite"

    def _scores(self, data: Labelled) -> np.ndarray:
        return watched(self.estimator, data, data.seed(), n_epochs=self.n_epochs).forgetting(never=self.never)
