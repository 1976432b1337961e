"""When to stop labelling: small objects that look at the rounds so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import cohen_kappa_score
from sklearn.utils import _safe_indexing

from modal_ntk import checks
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, Constraints, Interval

_STOP_SET = 2000


class StoppingCriterion(ABC, BaseEstimator):
    """What a criterion is: parameters, and a method that looks at the rounds so far.

    Attributes
    ----------
    needs_predictions : bool
        Whether it compares predictions, which are then made after every round.
    """

    needs_predictions = False

    _parameter_constraints: ClassVar[Constraints] = {}

    @abstractmethod
    def should_stop(self, curve: Sequence[Any], predictions: Sequence[np.ndarray] = ()) -> bool:
        """Say whether the rounds so far are enough; nothing is remembered from call to call.

        Parameters
        ----------
        curve : sequence of Round
            The rounds, the initial labels' first.
        predictions : sequence of numpy.ndarray (m,), default=()
            After each round, the classes predicted for the same unlabelled samples.

        Returns
        -------
        bool
            Whether to stop.
        """


class LabelBudget(StoppingCriterion):
    """Stop once there are so many labels.

    Parameters
    ----------
    n_labels : int
        The budget; a round that exceeds it is still finished.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> LabelBudget(100).should_stop([SimpleNamespace(n_labels=80), SimpleNamespace(n_labels=100)])
    True
    """

    _parameter_constraints: ClassVar[Constraints] = {"n_labels": [COUNT]}

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels

    def should_stop(self, curve: Sequence[Any], predictions: Sequence[np.ndarray] = ()) -> bool:  # noqa: ARG002
        """Say whether the last round has reached the budget."""
        return curve[-1].n_labels >= self.n_labels


class Plateau(StoppingCriterion):
    """Stop once the score has not risen for some rounds.

    Parameters
    ----------
    n_rounds : int, default=3
        Rounds without a new best before it stops.
    min_gain : float, default=0.0
        By how much a score must exceed the best before it to be a new best.

    Notes
    -----
    Scores need labels that were not trained on: in practice a validation set, which costs labels too.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> curve = [SimpleNamespace(score=score) for score in (0.5, 0.8, 0.79, 0.8)]
    >>> Plateau(n_rounds=2).should_stop(curve), Plateau(n_rounds=3).should_stop(curve)
    (True, False)
    """

    _parameter_constraints: ClassVar[Constraints] = {"n_rounds": [COUNT], "min_gain": [NOT_NEGATIVE]}

    def __init__(self, n_rounds: int = 3, *, min_gain: float = 0.0) -> None:
        self.n_rounds = n_rounds
        self.min_gain = min_gain

    def should_stop(self, curve: Sequence[Any], predictions: Sequence[np.ndarray] = ()) -> bool:  # noqa: ARG002
        """Say whether the last new best is `n_rounds` ago."""
        best, since = curve[0].score, 0
        for entry in curve[1:]:
            since = 0 if entry.score > best + self.min_gain else since + 1
            best = entry.score if since == 0 else best
        return since >= self.n_rounds


class StablePredictions(StoppingCriterion):
    """Stop once predictions on unlabelled samples hardly change from round to round.

    Parameters
    ----------
    agreement : float, default=0.99
        Cohen's kappa that the predictions of successive rounds must have on average.
    n_rounds : int, default=3
        How many comparisons are averaged.

    Notes
    -----
    Bloodgood and Vijay-Shanker (2009), with their defaults. It needs no labels. Predictions that agree on one and the
    same class for all samples have a kappa of one here, where the formula has none.

    Examples
    --------
    >>> same = np.array([0, 1, 0, 1])
    >>> StablePredictions(n_rounds=2).should_stop([], [1 - same, same, same, same])
    True
    """

    needs_predictions = True

    _parameter_constraints: ClassVar[Constraints] = {
        "n_rounds": [COUNT],
        "agreement": [Interval(Real, -1, 1, closed="both")],
    }

    def __init__(self, agreement: float = 0.99, *, n_rounds: int = 3) -> None:
        self.agreement = agreement
        self.n_rounds = n_rounds

    def should_stop(self, curve: Sequence[Any], predictions: Sequence[np.ndarray] = ()) -> bool:  # noqa: ARG002
        """Say whether the last comparisons agree enough."""
        if len(predictions) <= self.n_rounds:
            return False
        last = predictions[-self.n_rounds - 1 :]
        return float(np.mean([_kappa(a, b) for a, b in pairwise(last)])) >= self.agreement


def _kappa(first: np.ndarray, second: np.ndarray) -> float:
    return 1.0 if np.array_equal(first, second) else float(cohen_kappa_score(first, second))


def as_criteria(stopping: Any) -> list[StoppingCriterion]:
    """Return criteria as a list, checked.

    Parameters
    ----------
    stopping : StoppingCriterion, sequence of these, or None
        As users pass them; the first that is met stops.

    Returns
    -------
    list of StoppingCriterion
        Maybe empty.

    Raises
    ------
    InvalidInputError
        If one is no criterion, or has unusable parameters.
    """
    criteria = [] if stopping is None else list(stopping) if isinstance(stopping, (list, tuple)) else [stopping]
    for criterion in criteria:
        if not isinstance(criterion, StoppingCriterion):
            remedy = "Pass an object such as LabelBudget(500)."
            raise checks.expected("stopping to be a criterion or several", repr(criterion), remedy)
        checks.check_parameters(criterion)
    return criteria


class Watch:
    """Criteria over one simulation, with the predictions that they compare.

    Parameters
    ----------
    stopping : StoppingCriterion, sequence of these, or None
        As for `as_criteria`.
    n : int
        Samples of the pool.
    rng : numpy.random.Generator
        Draws the samples that are predicted after every round, at most 2000 as in Bloodgood and Vijay-Shanker.
    """

    def __init__(self, stopping: Any, n: int, rng: np.random.Generator) -> None:
        self.criteria = as_criteria(stopping)
        self.predictions: list[np.ndarray] | None = None
        if any(criterion.needs_predictions for criterion in self.criteria):
            self.predictions = []
            self.rows = np.sort(rng.permutation(n)[:_STOP_SET])

    def met(self, curve: Sequence[Any], estimator: Any, X: Any) -> StoppingCriterion | None:
        """Return the first criterion that is met.

        Parameters
        ----------
        curve : sequence of Round
            The rounds so far.
        estimator : estimator
            Fitted in the last one.
        X : samples (n, ...)
            The pool.

        Returns
        -------
        StoppingCriterion or None
            None if it goes on.
        """
        if self.predictions is not None:
            self.predictions.append(np.asarray(estimator.predict(_safe_indexing(X, self.rows))))
        seen = self.predictions or ()
        return next((criterion for criterion in self.criteria if criterion.should_stop(curve, seen)), None)
