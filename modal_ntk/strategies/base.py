"""The contract every strategy keeps: cheap checks first, then one selection, handed back as modAL expects it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from modal_ntk import checks, nets, progress
from modal_ntk.checks.parameters import Constraints
from modal_ntk.errors import ContractError, InvalidInputError, UnmetNeedError
from modal_ntk.hooks import NEEDS, StrategySpec, hookimpl
from modal_ntk.selection.result import Selection as Selection
from modal_ntk.strategies.common import gate
from modal_ntk.strategies.common.query import Query as Query
from modal_ntk.strategies.common.remedies import remedy

if TYPE_CHECKING:
    from modal_ntk.nets import NetView

MULTILABEL = (
    "badge",
    "coreset",
    "dynamical",
    "entropy",
    "kmedian",
    "least_confidence",
    "margin",
    "maxherding",
    "probcover",
    "random_sampling",
    "typiclust",
)
"""Strategies for several labels of one sample, named in the error of the others."""


@dataclass(eq=False, kw_only=True, repr=False)
class QueryStrategy(BaseEstimator, ABC):
    """Base of all strategies: a scikit-learn estimator that modAL can call.

    A subclass declares `needs` and what its parameters may be, as scikit-learn's ``_parameter_constraints``, and writes
    `_select`; the rest is done here. Parameters are the fields of a keyword-only dataclass, or the arguments of an
    ``__init__`` that keeps them unchanged. Calling a strategy keeps the
    whole result in ``last_selection_`` and returns what the learner's modAL expects.

    Attributes
    ----------
    needs : frozenset of str
        Keys of ``modal_ntk.hooks.NEEDS``.
    reads_labels : bool
        Whether the labelled set, where there is one, has a part in the choice; False leaves out the warning that a
        learner keeps none.
    multilabel : bool
        Whether it also works where a sample has several labels, in a matrix of zeros and ones.
    last_selection_ : Selection
        The result of the latest call; a convenience, never read by the library.

    Notes
    -----
    modAL 0.4.2 calls a strategy again after any error, a Ctrl-C included, from inside its own handler.
    The error is then the one being handled, is recognised, and raised again at once.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reads_labels: ClassVar[bool] = True
    multilabel: ClassVar[bool] = False
    _parameter_constraints: ClassVar[Constraints] = {}
    _without: ClassVar[dict[str, dict[str, Any]]] = {}  # by need, the parameters that do without it
    # Attributes kept for speed alone: made again, they are the same. Pickles leave them out, and a run that was broken
    # off goes on without them.
    _remade: ClassVar[frozenset[str]] = frozenset()
    random_state: Any = None
    verbose: int = 0

    def __getstate__(self) -> Any:
        """Leave out what is made again where it is needed."""
        return {name: value for name, value in super().__getstate__().items() if name not in self._remade}

    def __call__(
        self,
        learner: Any,
        X_pool: Any,
        n_instances: int = 1,
        *,
        X_labeled: Any = None,
        y_labeled: Any = None,
    ) -> Any:
        """Choose samples on behalf of a learner.

        Parameters
        ----------
        learner : modAL learner or estimator
            Read, never changed.
        X_pool : samples (n, ...)
            The unlabelled samples.
        n_instances : int, default=1
            How many to choose.
        X_labeled, y_labeled : samples (l, ...) and labels (l,), optional
            The labelled set; by default what the learner keeps.

        Returns
        -------
        numpy.ndarray or tuple
            Indices (b,), or (indices, scores) where the learner's ``query`` knows ``return_metrics``.
        """
        call = (id(self), id(learner), id(X_pool))
        _raise_again(call)
        try:
            selection = self.select(learner, X_pool, n_instances, X_labeled=X_labeled, y_labeled=y_labeled)
        except BaseException as error:
            if nets.asks_again(learner):
                error._modal_ntk_call = call  # type: ignore[attr-defined]
            raise
        self.last_selection_ = selection
        return (selection.indices, selection.scores) if nets.wants_metrics(learner) else selection.indices

    def select(
        self,
        learner: Any,
        X_pool: Any,
        n_instances: int = 1,
        *,
        X_labeled: Any = None,
        y_labeled: Any = None,
    ) -> Selection:
        """Choose samples and return all that is known about the choice.

        Parameters
        ----------
        learner : modAL learner or estimator
            Read, never changed.
        X_pool : samples (n, ...)
            The unlabelled samples.
        n_instances : int, default=1
            How many to choose.
        X_labeled, y_labeled : samples (l, ...) and labels (l,), optional
            The labelled set; by default what the learner keeps.

        Returns
        -------
        Selection
            Exactly `n_instances` indices, with scores and info.

        Raises
        ------
        InvalidInputError
            If an argument cannot be used.
        UnmetNeedError
            If the learner lacks what the strategy needs.
        ContractError
            If the strategy chose too few, one twice or none of the pool, or its scores are not finite.
        """
        name = type(self).__name__
        with progress.work(name, self.verbose) as work:
            checks.check_parameters(self)
            query = self._query(learner, X_pool, n_instances, X_labeled, y_labeled)
            self._check_query(query)
            with query.view.no_trace():
                try:
                    selection = gate.checked(name, self._select(query), query)
                except ContractError:
                    raise
                except Exception as error:
                    # A model that has diverged fails in many places; what is wrong with it is told in one.
                    if cause := gate.what_the_model_says(query):
                        # An error in our words would only say the same again; what lies beneath it is torch's own.
                        origin = error.__cause__ if isinstance(error, InvalidInputError) else None
                        raise InvalidInputError(f"{name}: {cause}") from origin or error
                    raise
        selection.info["seconds"] = {**work.seconds, **selection.info.get("seconds", {}), "total": work.total}
        return selection

    @abstractmethod
    def _select(self, query: Query) -> Selection:
        """Choose; every argument has been checked."""

    def _check_query(self, query: Query) -> None:
        """Refuse what the query's sizes rule out, before anything is computed."""

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - for strategies that start cold
        """Return the needs; where these depend on parameters, or on there being labels, this is overridden."""
        return self.needs

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:
        """Return the needs that the learner cannot meet."""
        return [need for need in sorted(self._needed(n_labeled)) if not view.offers(need)]

    def _query(self, learner: Any, X_pool: Any, n_instances: int, X_labeled: Any, y_labeled: Any) -> Query:
        rng = checks.check_random_state(self.random_state)
        finite = getattr(learner, "force_all_finite", True)
        n_instances = checks.check_n_instances(n_instances, checks.n_rows(X_pool))
        X_labeled, y_labeled = self._labeled_set(learner, X_labeled, y_labeled)
        view = nets.NetView(learner)
        nets.warn_if_it_cannot_teach(learner)
        self._check_needs(view, len(y_labeled))
        # Reading every value is the dearest check, hence the last.
        X_pool = checks.check_samples("X_pool", X_pool, finite=finite)
        if X_labeled is not None:
            X_labeled = checks.check_samples("X_labeled", X_labeled, finite=finite)
            checks.check_same_features(X_pool, X_labeled)
            nets.warn_of_labeled_in_pool(X_pool, X_labeled)
        else:
            nets.warn_if_labels_are_elsewhere(learner, view, read=self.reads_labels)
        if y_labeled.ndim > 1 and not self.multilabel:
            others = f"Strategies for several labels: {', '.join(MULTILABEL)}."
            raise checks.expected(f"one label per sample for {type(self).__name__}", "labels in a matrix", others)
        nets.check_teachable(learner, view, X_pool)
        view.fit_earlier(X_labeled, X_pool)
        return Query(view, X_pool, n_instances, X_labeled, y_labeled, rng)

    @staticmethod
    def _labeled_set(learner: Any, X_labeled: Any, y_labeled: Any) -> tuple[Any, np.ndarray]:
        if (X_labeled is None) != (y_labeled is None):
            given = "only " + ("X_labeled" if y_labeled is None else "y_labeled")
            raise checks.expected("X_labeled and y_labeled together, or neither", given, "Pass both.")
        if X_labeled is None:
            X_labeled, y_labeled = nets.labeled_set_of(learner)
        n_labeled = 0 if X_labeled is None else checks.n_rows(X_labeled)
        if n_labeled == 0:
            return None, checks.check_labels(() if y_labeled is None else y_labeled, 0)
        return X_labeled, checks.check_labels(y_labeled, n_labeled, multilabel=True)

    def _check_needs(self, view: NetView, n_labeled: int) -> None:
        unmet = self._unmet(view, n_labeled)
        if "labels" in self.needs and n_labeled == 0:
            unmet.append("labels")
        if not unmet:
            return
        name, kind = type(self).__name__, type(view.estimator).__name__
        got = "None" if view.estimator is None else f"a{'' if view.is_fitted else 'n unfitted'} {kind}"
        lacking = "; ".join(f"{need} ({NEEDS[need]})" for need in unmet)
        what_to_do = remedy(self, unmet, view, n_labeled)
        raise UnmetNeedError(f"{name} expected a learner with {lacking}; got {got}. {what_to_do}")


def announced(strategy: QueryStrategy, summary: str, paper: str) -> Callable[[], list[StrategySpec]]:
    """Return the hook by which a module announces its one strategy, under the module's own name.

    Parameters
    ----------
    strategy : QueryStrategy
        One of the class, at its defaults.
    summary, paper : str
        What it takes, in a line, and where it comes from.

    Returns
    -------
    callable
        To be the module's ``modal_ntk_strategies``.
    """
    name = type(strategy).__module__.rpartition(".")[2]
    spec = StrategySpec(name, type(strategy), summary, strategy.needs, paper)

    @hookimpl
    def modal_ntk_strategies() -> list[StrategySpec]:
        return [spec]

    return modal_ntk_strategies


def _raise_again(call: tuple[int, int, int]) -> None:
    handled = sys.exc_info()[1]
    if handled is not None and getattr(handled, "_modal_ntk_call", None) == call:
        del handled._modal_ntk_call  # type: ignore[attr-defined]
        raise handled
