"""What can be read off a learner, whichever modAL made it: by its attributes, never by its class."""

from __future__ import annotations

import inspect
from typing import Any


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
