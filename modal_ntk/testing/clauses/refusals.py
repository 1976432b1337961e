"""Clauses on what a strategy refuses, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.base import clone

from modal_ntk import nets
from modal_ntk.checks import n_rows
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.testing.situations import Situation
from modal_ntk.testing.traces import watched
from modal_ntk.testing.trial import Trial, check_form, clause, require


def _with(X: np.ndarray, value: float) -> np.ndarray:
    changed = X.copy()
    changed[len(X) // 2] = value
    return changed


_BAD: dict[str, Callable[[Situation], tuple[Situation, Any]]] = {
    "empty pool": lambda s: (s.but(X_pool=s.X_pool[:0]), 1),
    "no samples asked for": lambda s: (s, 0),
    "a negative number": lambda s: (s, -1),
    "more than the pool holds": lambda s: (s, n_rows(s.X_pool) + 1),
    "a fraction of a sample": lambda s: (s, 2.5),
    "True as a number": lambda s: (s, True),
    "NaN in the pool": lambda s: (s.but(X_pool=_with(s.X_pool, np.nan)), 1),
    "infinity in the pool": lambda s: (s.but(X_pool=_with(s.X_pool, np.inf)), 1),
    "NaN in the labelled samples": lambda s: (s.but(X_labeled=_with(s.X_labeled, np.nan)), 1),
    "other features than were taught": lambda s: (s.but(X_pool=s.X_pool[:, 1:]), 1),
    "rows of unlike lengths": lambda s: (s.but(X_pool=[[1.0, 2.0], [1.0]]), 1),
    "fewer labels than samples": lambda s: (s.but(y_labeled=s.y_labeled[1:]), 1),
    "labels without samples": lambda s: (s.but(X_labeled=None), 1),
    "samples without labels": lambda s: (s.but(y_labeled=None), 1),
    "a masked pool": lambda s: (s.but(X_pool=np.ma.masked_greater(s.X_pool, s.X_pool.mean())), 1),
    "a complex pool": lambda s: (s.but(X_pool=s.X_pool.astype(complex)), 1),
    "labels in a matrix": lambda s: (s.but(y_labeled=np.stack([s.y_labeled, s.y_labeled], 1)), 1),
}


@clause(*_BAD)
def refuses_bad_input_before_any_work(trial: Trial) -> None:
    """What cannot be used is an InvalidInputError that says what was expected and got, before the net is run."""
    situation = trial.with_net()
    if isinstance(situation.X_pool, dict):
        raise SkipTest("no array pool")
    _refuses(trial, *_BAD[trial.case](situation))


def _missing(y: np.ndarray) -> Any:
    import pandas

    return pandas.array([None, *y.tolist()[1:]], dtype="Int64")


_BAD_LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "None for one sample": lambda y: [None, *y.tolist()[1:]],
    "NaN among names": lambda y: ["a"] * (len(y) - 1) + [float("nan")],
    "NaN among numbers": lambda y: np.where(np.arange(len(y)) == 1, np.nan, y),
    "a missing value of pandas": _missing,
    "one label masked": lambda y: np.ma.masked_array(y, np.arange(len(y)) == 1),
    "names and numbers": lambda y: ["a", *y.tolist()[1:]],
}


@clause(*_BAD_LABELS)
def refuses_bad_labels_before_any_work(trial: Trial) -> None:
    """A missing label is no class of its own, nor are names and numbers classes of one kind: both are refused so."""
    situation = trial.with_net()
    _refuses(trial, situation.but(y_labeled=_BAD_LABELS[trial.case](situation.y_labeled)), 1)


def _refuses(trial: Trial, situation: Situation, n_instances: Any) -> None:
    with watched(nets.NetView(situation.learner).module) as watch:
        try:
            situation.select(trial.fresh(), n_instances)
        except InvalidInputError as error:
            teaches = "xpected" in str(error) and "got" in str(error)
            require(teaches, "a message with what was expected and got", str(error))
        else:
            require(False, "InvalidInputError", "a selection")
    require(watch.n_passes == 0, "no pass through the net", f"{watch.n_passes} passes")


@clause("nothing labelled", "nothing fitted")
def starts_from_nothing_or_says_who_does(trial: Trial) -> None:
    """Without labels, or without a fitted model, it selects, or names strategies that do."""
    situation = trial.home()
    estimator = nets.learners.estimator_of(situation.learner)
    situation = situation.but(learner=clone(estimator) if trial.case == "nothing fitted" else estimator)
    cold = situation.but(X_labeled=None, y_labeled=None)
    try:
        check_form(cold.select(trial.fresh(), 4), 4, n_rows(cold.X_pool))
    except UnmetNeedError as error:
        require("random_sampling" in str(error), "the error to name strategies that start from nothing", str(error))
    else:
        needed = "labels" in trial.strategy.needs
        require(not needed, "UnmetNeedError, for labels are declared as needed", "a selection")
