"""What can be read off a learner, whichever modAL made it: by its attributes, never by its class."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from modal_ntk import compatibility
from modal_ntk.errors import ModalNTKWarning

_told = False


def estimator_of(learner: Any) -> Any:
    """Return the estimator behind a learner.

    Parameters
    ----------
    learner : modAL learner or estimator
        Scikit-learn's meta-estimators have an ``estimator`` too, so only what can be queried is unwrapped.

    Returns
    -------
    estimator
        The learner's estimator, or the argument itself.
    """
    if callable(getattr(learner, "query", None)) and hasattr(learner, "estimator"):
        return learner.estimator
    return learner


def labeled_set_of(learner: Any) -> tuple[Any, Any]:
    """Return the training samples and labels that a learner keeps.

    Parameters
    ----------
    learner : modAL learner or estimator
        modAL's ``DeepActiveLearner`` and a bare estimator keep none.

    Returns
    -------
    tuple
        Samples and labels; (None, None) where there are none.
    """
    X, y = getattr(learner, "X_training", None), getattr(learner, "y_training", None)
    return (None, None) if X is None or y is None else (X, y)


def wants_metrics(learner: Any) -> bool:
    """Tell whether a learner's ``query`` expects (indices, scores) instead of indices.

    modAL 0.4.2 unpacks a pair, and misreads a plain array of two indices as one; 0.4.1 hands a pair
    through as if the second part were the instances. The parameter tells them apart.

    Parameters
    ----------
    learner : modAL learner or estimator
        The object a strategy was called with.

    Returns
    -------
    bool
        True for modAL 0.4.2 and later.
    """
    query = getattr(type(learner), "query", None)
    return query is not None and "return_metrics" in inspect.signature(query).parameters


def warn_if_it_cannot_teach(learner: Any) -> None:
    """Say, once in a process, that a learner of modAL's own cannot teach on the scikit-learn installed here.

    On scikit-learn 1.8 and later such a learner can be built, fitted at first and queried, and fails at its
    first ``teach``. The first query is where the library meets it, just before that.

    Parameters
    ----------
    learner : modAL learner, committee or estimator
        The object a strategy was called with.

    Warns
    -----
    ModalNTKWarning
        If it is, or holds, a learner that adds training data as modAL does; with the remedy.
    """
    global _told
    if _told or compatibility.modal_learner_runs():
        return
    if any(_checks_as_modal_does(member) for member in (learner, *getattr(learner, "learner_list", ()))):
        _told = True
        warnings.warn(str(compatibility.MODAL_LEARNER), ModalNTKWarning, stacklevel=2)


def _checks_as_modal_does(learner: Any) -> bool:
    # A subclass that overrides the method, as ours does, is fine; a committee's own never checks.
    method = getattr(type(learner), "_add_training_data", None)
    module = getattr(method, "__module__", "")
    return module.partition(".")[0] == "modAL" and "Committee" not in method.__qualname__  # type: ignore[union-attr]
