"""Clauses on what a strategy is, what it gives back, and for whom."""

from __future__ import annotations

import contextlib
import inspect
import io
import pickle
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression

from modal_ntk.checks import n_rows
from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.hooks import NEEDS
from modal_ntk.testing.situations import CONTAINERS, LABELS, EncodingNet, blobs, skorch_net, taught
from modal_ntk.testing.trial import Trial, check_form, chosen, clause, require, same_picks


@clause()
def is_a_scikit_learn_estimator(trial: Trial) -> None:
    """clone, repr, get_params, set_params and pickle keep every parameter."""
    require(isinstance(trial.strategy, BaseEstimator), "a scikit-learn BaseEstimator", type(trial.strategy).__name__)
    parameters = trial.strategy.get_params()
    for name, copy in (("clone", clone(trial.strategy)), ("pickle", pickle.loads(pickle.dumps(trial.strategy)))):
        got = copy.get_params()
        same = got.keys() == parameters.keys() and all(repr(got[k]) == repr(parameters[k]) for k in got)
        require(same, f"{name} to keep {parameters}", got)
    for name, default in _defaults(type(trial.strategy)).items():
        got = type(trial.strategy)().get_params()[name]
        require(got is default or got == default, f"a new object to hold {name}={default!r}, as it says", got)
    require(type(trial.strategy).__name__ in repr(trial.strategy), "its name in its repr", repr(trial.strategy))
    for name, value in parameters.items():
        marked = clone(trial.strategy).set_params(**{name: value})
        require(repr(marked.get_params()[name]) == repr(value), f"set_params to keep {name}={value!r}", marked)


def _defaults(kind: type) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    # With an argument that has no default, there is no object to look at.
    given = all(p.default is not p.empty for p in parameters)
    return {p.name: p.default for p in parameters} if given else {}


@clause()
def declares_its_needs(trial: Trial) -> None:
    """`needs` is a frozenset of words that the library knows."""
    needs = getattr(trial.strategy, "needs", None)
    require(isinstance(needs, frozenset), "needs as a frozenset", repr(needs))
    require(set(needs or ()) <= set(NEEDS), f"needs among {sorted(NEEDS)}", sorted(needs or ()))


@clause("1", "2", "7", "all")
def gives_as_many_as_asked(trial: Trial) -> None:
    """The selection has exactly n_instances distinct positions of the pool, with finite scores."""
    situation = trial.home()
    n_pool = n_rows(situation.X_pool)
    n_instances = n_pool if trial.case == "all" else int(trial.case)
    check_form(situation.select(trial.fresh(), n_instances), n_instances, n_pool)


@clause("learners")
def works_for_the_learner_or_says_what_it_lacks(trial: Trial) -> None:
    """Every kind of learner that meets the declared needs is served; any other is refused by naming the need."""
    situation = trial.learners[trial.case]()
    matrix_only = isinstance(situation.X_pool, dict) and "features" in trial.strategy.needs
    try:
        chosen(trial.fresh(), situation)
    except InvalidInputError as error:
        # A method on a feature matrix may refuse named inputs, if it says that these are the reason.
        require(matrix_only and "dict" in str(error), "a selection", f"{type(error).__name__}: {error}")


@clause(*CONTAINERS)
def takes_pools_in_any_container(trial: Trial) -> None:
    """A pool held in another way gives a selection, and the same one where no bit of it is lost."""
    convert, exact = CONTAINERS[trial.case]
    if trial.case == "sparse matrix":
        chosen(trial.fresh(), taught(LogisticRegression(), convert(blobs()[0])))
        return
    situation = taught(skorch_net())
    plain = chosen(trial.fresh(), situation)
    other = situation.but(X_pool=convert(situation.X_pool), X_labeled=convert(situation.X_labeled))
    got = chosen(trial.fresh(), other)
    if exact:
        same_picks(plain, got, "as for a NumPy array")


@clause(*LABELS)
def takes_labels_of_any_kind(trial: Trial) -> None:
    """Labels of any kind are served, and renaming them changes nothing."""
    rename, same = LABELS[trial.case]
    _, y = blobs()
    picks = [chosen(trial.fresh(), taught(skorch_net(kind=EncodingNet), y=labels)) for labels in (y, rename(y))]
    if same:
        same_picks(picks[0], picks[1], "as for class numbers")


@clause()
def tells_duplicates_apart(trial: Trial) -> None:
    """Equal samples are still different positions: a pool of nothing but copies can be queried to the last."""
    situation = trial.queryable()
    copies = situation.but(X_pool=np.repeat(situation.X_pool[:1], 9, axis=0))
    with warnings.catch_warnings():
        # Methods that need distinct samples may say that there are too few.
        warnings.simplefilter("ignore", ModalNTKWarning)
        selected = copies.select(trial.fresh(), 9)
    check_form(selected, 9, 9)


@clause()
def is_silent(trial: Trial) -> None:
    """An ordinary query prints nothing and warns of nothing."""
    situation, out = trial.home(), io.StringIO()
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        warnings.simplefilter("always")
        situation.select(trial.fresh(), 4)
    require(not out.getvalue(), "no output", repr(out.getvalue()))
    require(not caught, "no warnings", [str(w.message) for w in caught])
