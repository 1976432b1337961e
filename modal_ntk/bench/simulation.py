"""Labelling replayed on labelled data, as a scikit-learn estimator, so that searches reach the strategy too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from modal_ntk import checks, nets
from modal_ntk.bench.statistics import aubc
from modal_ntk.bench.stopping import Watch
from modal_ntk.errors import InvalidInputError


@dataclass(frozen=True)
class Round:
    """One round of a simulation.

    Parameters
    ----------
    n_labels : int
        Labels after the round's query.
    score : float
        Score of the estimator fitted to them.
    query_seconds, fit_seconds : float
        Time of the query (zero for the initial labels) and of the fit.
    indices : numpy.ndarray (b,), int64
        Rows labelled in this round.
    """

    n_labels: int
    score: float
    query_seconds: float
    fit_seconds: float
    indices: np.ndarray


def _final_has(method: str) -> Any:
    return available_if(lambda self: hasattr(getattr(self, "estimator_", self.estimator), method))


class SimulatedActiveLearning(ClassifierMixin, BaseEstimator):
    """Replay active learning on data whose labels are known, and end with the estimator fitted last.

    Parameters
    ----------
    estimator : estimator
        Skorch net, Pipeline or scikit-learn classifier; cloned, never fitted itself.
    query_strategy : callable
        A strategy of this library, or any modAL strategy.
    n_initial : int, default=20
        Labels before the first query.
    batch_size : int or sequence of int, default=20
        Labels added by each query; a sequence gives one size for each round.
    n_rounds : int, default=5
        Number of queries; not read where `batch_size` is a sequence.
    initial : {"random", "stratified", "query"}, default="random"
        How the first labels are chosen: at random; at random with the classes as equal as can be; or by the
        strategy itself, which must then be one that starts without labels.
    reinitialise : bool, default=True
        Whether each round fits a fresh clone, or continues by ``partial_fit`` on all labels so far.
    evaluation_set : tuple (X, y) or None, default=None
        What each round is scored on; by default the rows not labelled yet.
    scoring : str, callable or None, default=None
        A scikit-learn scorer; by default the estimator's own score.
    random_state : int, numpy generator or None, default=None
        Seed of the initial rows, of every fit, and of a strategy whose own ``random_state`` is None. The
        initial rows depend on nothing else but the data, so strategies are compared from the same ones.
    unlabeled_param : str or None, default=None
        Name of the fit parameter under which the rows not labelled yet are handed to the estimator, for nets that
        train on them too: "X_unlabeled" for `modal_ntk.nets.WAALClassifier`.
    verbose : int, default=0
        1 shows a progress bar over the rounds.
    stopping : StoppingCriterion, sequence of these, or None, default=None
        Ends the rounds before their number is up; of several, the first that is met.
    keep_estimators : bool, default=False
        Whether the estimator of every round is kept, as `area_score` needs it.

    Attributes
    ----------
    curve_ : list of Round
        The initial fit, then one entry for each query.
    labeled_indices_ : numpy.ndarray
        Rows labelled, in order.
    estimator_ : estimator
        The estimator of the last round.
    classes_ : numpy.ndarray
        All classes of `y`.
    estimators_ : list of estimator
        Those of all rounds, if `keep_estimators`.
    stopped_by_ : StoppingCriterion or None
        What ended the rounds early.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import Margin
    >>> X, y = load_iris(return_X_y=True)
    >>> simulation = SimulatedActiveLearning(
    ...     LogisticRegression(max_iter=1000), Margin(), n_initial=10, batch_size=5, n_rounds=2, random_state=0
    ... ).fit(X, y)
    >>> [entry.n_labels for entry in simulation.curve_]
    [10, 15, 20]
    """

    def __init__(
        self,
        estimator: Any,
        query_strategy: Any,
        *,
        n_initial: int = 20,
        batch_size: int | Sequence[int] = 20,
        n_rounds: int = 5,
        initial: Literal["random", "stratified", "query"] = "random",
        reinitialise: bool = True,
        evaluation_set: tuple[Any, Any] | None = None,
        scoring: Any = None,
        random_state: Any = None,
        unlabeled_param: str | None = None,
        verbose: int = 0,
        stopping: Any = None,
        keep_estimators: bool = False,
    ) -> None:
        self.estimator = estimator
        self.query_strategy = query_strategy
        self.n_initial = n_initial
        self.batch_size = batch_size
        self.n_rounds = n_rounds
        self.initial = initial
        self.reinitialise = reinitialise
        self.evaluation_set = evaluation_set
        self.scoring = scoring
        self.random_state = random_state
        self.unlabeled_param = unlabeled_param
        self.verbose = verbose
        self.stopping = stopping
        self.keep_estimators = keep_estimators

    def fit(self, X: Any, y: Any) -> SimulatedActiveLearning:
        """Replay labelling.

        Parameters
        ----------
        X : samples (n, ...)
            The pool, initial rows included.
        y : array-like (n,)
            Its labels.

        Returns
        -------
        SimulatedActiveLearning
            Itself, with the curve.

        Raises
        ------
        InvalidInputError
            If a parameter is unusable, or the labels asked for are more than there are.
        """
        if y is None:
            message = "SimulatedActiveLearning requires y to be passed, but the target y is None."
            raise InvalidInputError(f"{message} Pass the labels of the whole pool.")
        X = checks.check_samples("X", X)
        n = checks.n_rows(X)
        y = checks.check_labels(y, n)
        sizes = self.schedule(n)
        rng = checks.check_random_state(self.random_state)
        self.classes_ = np.unique(y)
        if hasattr(X, "shape") and len(X.shape) == 2:
            self.n_features_in_ = int(X.shape[1])
        first_rows = self._initial_rows(y, rng)
        # One seed for each round, drawn before the strategy has its say, so that runs stay paired.
        seeds = rng.integers(2**31, size=2 * (len(sizes) + 1)).reshape(-1, 2)
        strategy = self._strategy(int(seeds[0, 1]))
        learner = nets.ActiveLearner(clone(self.estimator), strategy)
        watch = Watch(self.stopping, n, rng)
        labeled = np.zeros(0, np.int64)
        self.curve_: list[Round] = []
        kept: list[Any] = []
        steps = [self.n_initial, *sizes]
        for step, size in enumerate(tqdm(steps, desc="rounds", disable=not self.verbose)):
            started = perf_counter()
            given = first_rows if step == 0 else None
            chosen = self._query(learner, X, labeled, size) if given is None else given
            queried = perf_counter()
            labeled = np.concatenate([labeled, chosen])
            learner.X_training, learner.y_training = _safe_indexing(X, labeled), y[labeled]
            with nets.seeded(int(seeds[step, 0])):
                learner.estimator = self._fitted(learner, X, labeled, step)
                fitted = perf_counter()
                score = self._score(learner.estimator, X, y, labeled)
            query_seconds = queried - started if given is None else 0.0
            self.curve_.append(Round(len(labeled), score, query_seconds, fitted - queried, chosen))
            if self.keep_estimators:
                # Continued training goes on in the same object.
                kept.append(learner.estimator if self.reinitialise else copy.deepcopy(learner.estimator))
            self.stopped_by_ = watch.met(self.curve_, learner.estimator, X)
            if self.stopped_by_ is not None:
                break
        if self.keep_estimators:
            self.estimators_ = kept
        self.labeled_indices_ = labeled
        self.estimator_ = learner.estimator
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.input_tags = self.estimator.__sklearn_tags__().input_tags
        return tags

    @_final_has("predict")
    def predict(self, X: Any) -> np.ndarray:
        """Predict with the estimator of the last round.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (n,)
            Classes.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @_final_has("predict_proba")
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities with the estimator of the last round.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (n, C)
            Class probabilities.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def schedule(self, n: int) -> list[int]:
        """Check the parameters and return the size of each query.

        Parameters
        ----------
        n : int
            Number of samples in the pool.

        Returns
        -------
        list of int
            One entry for each round.

        Raises
        ------
        InvalidInputError
            If a parameter is unusable, or the labels asked for are more than there are.
        """
        checks.check_integer("n_initial", self.n_initial)
        checks.check_choice("initial", self.initial, ("random", "stratified", "query"))
        if isinstance(self.batch_size, (Sequence, np.ndarray)):
            sizes = [checks.check_integer("every entry of batch_size", size) for size in self.batch_size]
        else:
            checks.check_integer("n_rounds", self.n_rounds, minimum=0)
            sizes = [checks.check_integer("batch_size", self.batch_size)] * self.n_rounds
        total, most = self.n_initial + sum(sizes), n - (self.evaluation_set is None)
        if total > most:
            remedy = "Lower n_initial, batch_size or n_rounds, or pass an evaluation_set."
            raise checks.expected(f"at most {most} labels over all rounds of {n} samples", total, remedy)
        if not self.reinitialise and not hasattr(self.estimator, "partial_fit"):
            name = type(self.estimator).__name__
            remedy = "Use reinitialise=True."
            raise checks.expected("an estimator with partial_fit to continue from round to round", name, remedy)
        return sizes

    def _initial_rows(self, y: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        order = rng.permutation(len(y))
        if self.initial == "query":
            return None
        if self.initial == "stratified":
            # Each row's rank within its class, in shuffled order: all firsts come before all seconds.
            ranks = np.empty(len(y), np.int64)
            for label in self.classes_:
                members = order[y[order] == label]
                ranks[members] = np.arange(len(members))
            order = order[np.argsort(ranks[order], kind="stable")]
        return order[: self.n_initial].astype(np.int64)

    def _strategy(self, seed: int) -> Any:
        strategy = clone(self.query_strategy, safe=False)
        if getattr(strategy, "random_state", 0) is None:
            strategy.set_params(random_state=seed)
        return strategy

    @staticmethod
    def _query(learner: Any, X: Any, labeled: np.ndarray, size: int) -> np.ndarray:
        pool = np.setdiff1d(np.arange(checks.n_rows(X)), labeled)
        indices = learner.query(_safe_indexing(X, pool), n_instances=size)[0]
        return pool[np.asarray(indices)].astype(np.int64)

    def _fitted(self, learner: Any, X: Any, labeled: np.ndarray, step: int) -> Any:
        known, more = (learner.X_training, learner.y_training), {}
        if self.unlabeled_param is not None:
            more[self.unlabeled_param] = _safe_indexing(X, np.setdiff1d(np.arange(checks.n_rows(X)), labeled))
        if self.reinitialise or step == 0:
            return clone(self.estimator).fit(*known, **more)
        return learner.estimator.partial_fit(*known, **more)

    def _score(self, estimator: Any, X: Any, y: np.ndarray, labeled: np.ndarray) -> float:
        scorer = check_scoring(estimator, scoring=self.scoring)
        if self.evaluation_set is not None:
            return float(scorer(estimator, *self.evaluation_set))
        rest = np.setdiff1d(np.arange(len(y)), labeled)
        return float(scorer(estimator, _safe_indexing(X, rest), y[rest]))


def area_score(simulation: SimulatedActiveLearning, X: Any, y: Any) -> float:
    """Score a simulation by the area under its budget curve; a scorer for searches.

    Parameters
    ----------
    simulation : SimulatedActiveLearning
        Fitted with ``keep_estimators=True``.
    X : samples (n, ...)
        What every round's estimator is scored on: in a search, the fold held out.
    y : array-like (n,)
        Its labels.

    Returns
    -------
    float
        `modal_ntk.bench.statistics.aubc` of the rounds' scores, by the simulation's ``scoring``.

    Raises
    ------
    InvalidInputError
        If the estimators were not kept.
    """
    if not hasattr(simulation, "estimators_"):
        remedy = "Pass keep_estimators=True."
        raise checks.expected("a simulation that kept its estimators", "one without", remedy)
    scores = [
        float(check_scoring(estimator, scoring=simulation.scoring)(estimator, X, y))
        for estimator in simulation.estimators_
    ]
    return aubc(np.array([entry.n_labels for entry in simulation.curve_]), np.array(scores))
