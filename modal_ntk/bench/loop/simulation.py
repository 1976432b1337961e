"""Labelling replayed on labelled data, as a scikit-learn estimator, so that searches reach the strategy too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from time import perf_counter
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import check_scoring
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from modal_ntk import checks, nets, progress
from modal_ntk.bench.loop.memory import PeakMemory
from modal_ntk.bench.loop.rounds import DRAWN, INITIAL
from modal_ntk.bench.loop.rounds import Round as Round
from modal_ntk.bench.loop.starting import belongs, has_state, initial_rows
from modal_ntk.bench.loop.stopping import Watch
from modal_ntk.checks.parameters import COUNT, Constraints, Interval, StrOptions
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.strategies.wrappers.wrapping import seeded_copy


def _final_has(method: str) -> Any:
    return available_if(lambda self: hasattr(getattr(self, "estimator_", self.estimator), method))


@dataclass(eq=False, repr=False)
class SimulatedActiveLearning(ClassifierMixin, BaseEstimator):
    """Replay active learning on data whose labels are known, and end with the estimator fitted last.

    Parameters
    ----------
    estimator : estimator
        Skorch net, Pipeline or scikit-learn classifier; cloned, never fitted itself. Labels that are no numbers are
        numbered for a net, which then is a `modal_ntk.nets.LabelEncoded`.
    query_strategy : callable
        A strategy of this library, or any modAL strategy.
    n_initial : int, default=20
        Labels before the first query.
    batch_size : int or sequence of int, default=20
        Labels added by each query; a sequence gives one size for each round.
    n_rounds : int, default=5
        Number of queries; not read where `batch_size` is a sequence.
    initial : {"random", "stratified", "query", "query_or_random"}, default="random"
        How the first labels are chosen: at random; at random with the classes as equal as can be; by the strategy
        itself, which must then be one that starts without labels; or by those that do, and at random for the others.
    reinitialise : bool, default=True
        Whether each round fits a fresh clone, or continues by ``partial_fit`` on all labels so far.
    evaluation_set : tuple (X, y) or None, default=None
        What each round is scored on; by default the rows not labelled yet.
    scoring : str, callable or None, default=None
        A scikit-learn scorer; by default the estimator's own score.
    metrics : sequence of str, default=()
        Names of further scikit-learn scorers, kept for each round.
    validation_set : tuple (X, y) or None, default=None
        A second set that each round is scored on; kept among the metrics, by names that begin with ``validation_``.
    random_state : int, numpy generator or None, default=None
        Seed of the initial rows, of every fit, and of a strategy whose own ``random_state`` is None. The
        initial rows depend on nothing else but the data, so strategies are compared from the same ones.
    unlabeled_param : str or None, default=None
        Name of the fit parameter under which the rows not labelled yet are handed to the estimator, for nets that
        train on them too: "X_unlabeled" for `modal_ntk.nets.WAALClassifier`.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.
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
    strategy_seed_ : int
        What a strategy without a seed of its own was given; the fits' are in the curve.
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

    _parameter_constraints: ClassVar[Constraints] = {
        "n_initial": [COUNT],
        "batch_size": [COUNT, "array-like"],
        "n_rounds": [Interval(Integral, 0, None, closed="left")],
        "initial": [StrOptions(set(INITIAL))],
        "reinitialise": ["boolean"],
        "scoring": [str, callable, None],
        "metrics": ["array-like"],
        "unlabeled_param": [str, None],
        "keep_estimators": ["boolean"],
    }

    estimator: Any
    query_strategy: Any
    _: KW_ONLY
    n_initial: int = 20
    batch_size: int | Sequence[int] = 20
    n_rounds: int = 5
    initial: Literal["random", "stratified", "query", "query_or_random"] = "random"
    reinitialise: bool = True
    evaluation_set: tuple[Any, Any] | None = None
    scoring: Any = None
    metrics: Sequence[str] = ()
    validation_set: tuple[Any, Any] | None = None
    random_state: Any = None
    unlabeled_param: str | None = None
    verbose: int = 0
    stopping: Any = None
    keep_estimators: bool = False

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
        return self.replay(X, y)

    def replay(
        self, X: Any, y: Any, *, past: Sequence[Round] = (), on_round: Callable[[int, Round], None] | None = None
    ) -> SimulatedActiveLearning:
        """Replay labelling as `fit` does, going on after rounds that were run before.

        Parameters
        ----------
        X, y : samples (n, ...) and labels (n,)
            As for `fit`.
        past : sequence of Round, default=()
            The first rounds of the same replay. They are not run again, but the last one's fit is. Of another replay,
            or where rounds continue each other's training, they are left unread.
        on_round : callable, optional
            Called with the number and the entry of each round that is run, from which `past` can be made another time.
            Not any more once the strategy has a state of its own that no round tells.

        Returns
        -------
        SimulatedActiveLearning
            Itself, with the curve.
        """
        X, y = self._checked(X, y)
        sizes = [self.n_initial, *self.schedule(len(y))]
        rng = checks.check_random_state(self.random_state)
        self.classes_ = np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
        if hasattr(X, "shape") and len(X.shape) == 2:
            self.n_features_in_ = int(X.shape[1])
        drawn = initial_rows(y, self.classes_, self.initial, self.n_initial, rng)
        # One seed for each round, drawn before the strategy has its say, so that runs stay paired.
        seeds = rng.integers(2**31, size=(len(sizes), 2))
        self.strategy_seed_ = int(seeds[0, 1])
        learner = nets.ActiveLearner(clone(self.estimator), seeded_copy(self.query_strategy, self.strategy_seed_))
        watch = Watch(self.stopping, len(y), rng)
        # Criteria, and whoever keeps them, look at the estimator of every round.
        may_skip = self.reinitialise and not self.keep_estimators and not watch.criteria
        fixed = drawn if self.initial in DRAWN else None
        self.curve_: list[Round] = list(past) if may_skip and belongs(past, sizes, len(y), seeds, fixed) else []
        if self.curve_:
            with nets.seeded(self.curve_[-1].fit_seed):
                self._train(learner, X, y, self._labeled(), len(self.curve_) - 1)
        self.stopped_by_, kept = None, []
        with progress.work(type(self).__name__, self.verbose):
            for step in progress.steps(range(len(self.curve_), len(sizes)), "rounds", "round"):
                first, seed = drawn if step == 0 else None, int(seeds[step, 0])
                entry = self._round(learner, X, y, self._labeled(), step, sizes[step], first, seed)
                self.curve_.append(entry)
                if on_round is not None and not has_state(learner.query_strategy):
                    on_round(step, entry)
                if self.keep_estimators:
                    # Continued training goes on in the same object.
                    kept.append(learner.estimator if self.reinitialise else copy.deepcopy(learner.estimator))
                self.stopped_by_ = watch.met(self.curve_, learner.estimator, X)
                if self.stopped_by_ is not None:
                    break
        if self.keep_estimators:
            self.estimators_ = kept
        self.labeled_indices_ = self._labeled()
        self.estimator_ = learner.estimator
        return self

    def _checked(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        if y is None:
            message = "SimulatedActiveLearning requires y to be passed, but the target y is None."
            raise InvalidInputError(f"{message} Pass the labels of the whole pool.")
        X = checks.check_samples("X", X)
        y = checks.check_labels(y, checks.n_rows(X), multilabel=True)
        return nets.readable(self.estimator, X), y

    def _labeled(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(entry.indices for entry in self.curve_)])

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
        return self.estimator_.predict(nets.readable(self.estimator_, X))

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
        return self.estimator_.predict_proba(nets.readable(self.estimator_, X))

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
        checks.check_parameters(self)
        if not isinstance(self.batch_size, (int, np.integer)):
            sizes = [checks.check_integer("every entry of batch_size", size) for size in self.batch_size]
        else:
            sizes = [int(self.batch_size)] * min(self.n_rounds, n + 1)
        total, most = self.n_initial + sum(sizes), n - (self.evaluation_set is None)
        if total > most:
            remedy = "Lower n_initial, batch_size or n_rounds, or pass an evaluation_set."
            raise checks.expected(f"at most {most} labels over all rounds of {n} samples", total, remedy)
        if not self.reinitialise and not hasattr(self.estimator, "partial_fit"):
            name = type(self.estimator).__name__
            remedy = "Use reinitialise=True."
            raise checks.expected("an estimator with partial_fit to continue from round to round", name, remedy)
        return sizes

    def _chosen(
        self, learner: Any, X: Any, labeled: np.ndarray, size: int, drawn: np.ndarray | None
    ) -> tuple[np.ndarray, bool]:
        # What is labelled next, and whether the strategy chose it. `drawn`: rows at random, for the first round.
        if drawn is not None and self.initial in DRAWN:
            return drawn, False
        pool = np.setdiff1d(np.arange(checks.n_rows(X)), labeled)
        try:
            indices = learner.query(nets.take_rows(X, pool), n_instances=size)[0]
        except UnmetNeedError:
            if drawn is None:
                raise
            return drawn, False
        name = getattr(learner.query_strategy, "__name__", type(learner.query_strategy).__name__)
        return pool[checks.check_picks(name, indices, size, len(pool))], True

    def _round(
        self, learner: Any, X: Any, y: np.ndarray, labeled: np.ndarray, step: int, size: int, drawn: Any, seed: int
    ) -> Round:
        started, memory = perf_counter(), PeakMemory()
        with progress.stage("query"):
            chosen, queried = self._chosen(learner, X, labeled, size, drawn)
        decided = perf_counter()
        labeled = np.concatenate([labeled, chosen])
        with nets.seeded(seed):
            with progress.stage("fit"):
                self._train(learner, X, y, labeled, step)
            fitted, peak = perf_counter(), memory.peak()
            with progress.stage("scoring"):
                score, metrics = self._scores(learner.estimator, X, y, labeled)
        scores = getattr(getattr(learner.query_strategy, "last_selection_", None), "scores", None) if queried else None
        times = (decided - started if queried else 0.0, fitted - decided)
        return Round(len(labeled), score, *times, chosen, scores, metrics, seed, peak)

    def _train(self, learner: Any, X: Any, y: np.ndarray, labeled: np.ndarray, step: int) -> None:
        learner.X_training, learner.y_training = nets.take_rows(X, labeled), y[labeled]
        more = {}
        if self.unlabeled_param is not None:
            more[self.unlabeled_param] = nets.take_rows(X, np.setdiff1d(np.arange(len(y)), labeled))
        anew = self.reinitialise or step == 0
        estimator = nets.for_labels(clone(self.estimator), y, self.classes_) if anew else learner.estimator
        learner.estimator = nets.train(estimator, learner.X_training, learner.y_training, on=not anew, **more)

    def _scores(self, estimator: Any, X: Any, y: np.ndarray, labeled: np.ndarray) -> tuple[float, dict[str, float]]:
        # The first is the score; a held-out set's own score goes by the name of the set alone.
        scorers = {"score": check_scoring(estimator, scoring=self.scoring)}
        scorers |= {name: check_scoring(estimator, scoring=name) for name in self.metrics}
        evaluation = self.evaluation_set
        if evaluation is None:
            rest = np.setdiff1d(np.arange(len(y)), labeled)
            evaluation = nets.take_rows(X, rest), y[rest]
        sets = {"": evaluation} | ({} if self.validation_set is None else {"validation_": self.validation_set})
        found = {
            f"{prefix}{name}": float(scorer(estimator, nets.readable(estimator, data[0]), data[1]))
            for prefix, data in sets.items()
            for name, scorer in scorers.items()
        }
        return found.pop("score"), found
