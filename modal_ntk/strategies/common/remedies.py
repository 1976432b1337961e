"""What to do where a learner lacks what a strategy needs: built from what is missing, in code that works.

Code stands between backquotes. It speaks of what the user has: ``learner``, its ``estimator``, the labelled ``X`` and
``y``, ``X_pool``, a torch ``module``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.base import clone

if TYPE_CHECKING:
    from modal_ntk.nets import NetView

COLD_START = (
    "coreset",
    "ddal",
    "kmedian",
    "maxherding",
    "ntkcpl",
    "probcover",
    "random_sampling",
    "tcm",
    "typiclust",
    "uherding",
    "variance_design",
)
"""Strategies that start from zero labels, named in the error of those that do not."""

_OF_A_NET = {"dropout", "embedding", "gradients", "net"}


def remedy(strategy: Any, unmet: list[str], view: NetView, n_labeled: int) -> str:
    """Say what to do about needs that are not met.

    Parameters
    ----------
    strategy : QueryStrategy
        Who needs.
    unmet : list of str
        Keys of ``hooks.NEEDS``.
    view : NetView
        What is there.
    n_labeled : int
        Number of labelled samples.

    Returns
    -------
    str
        Sentences; the first code named, if run, lets the strategy choose.
    """
    if view.is_regressor:
        return "Use a classifier, such as `LogisticRegression()`."
    if "critic" in unmet:
        return _critic(view) if view.is_fitted else f"{_critic(view)} {_cold()}"
    if view.net is None and (missing := _OF_A_NET.intersection(unmet)):
        return _without(strategy, missing, view, n_labeled) or (
            "Wrap a torch module in a skorch net: `NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss)`. "
            "Strategies that need no net: `Margin()`, `CoreSet()`, `NTKCPL(variant='self')`."
        )
    if view.estimator is None:
        return f"Query with a classifier that is fitted: `LogisticRegression().fit(X, y)`. {_cold()}"
    if not view.is_fitted:
        return f"Teach it first: `learner.teach(X, y)`. {_cold()}"
    if "dropout" in unmet:
        return "Put `nn.Dropout()` before the module's last layer, or take a strategy that needs none: `Entropy()`."
    if "labels" in unmet:
        return f"Pass them with the query: `learner.query(X_pool, X_labeled=X, y_labeled=y)`. {_cold()}"
    if "probabilities" in unmet and hasattr(view.estimator, "predict"):
        return "Calibrate it: `CalibratedClassifierCV(estimator)`. Strategies that need no probabilities: `CoreSet()`."
    return _cold()


def _cold() -> str:
    return f"Strategies that start without labels or a fitted model: {', '.join(COLD_START)}."


def _critic(view: NetView) -> str:
    if hasattr(view.estimator, "critic_layer"):
        return "Teach it with the pool at its side: `learner.teach(X, y, X_unlabeled=X_pool)`."
    return (
        "Take a net that trains one, `WAALClassifier(extractor, classes=classes)`, and teach it with the pool at its "
        "side, `learner.teach(X, y, X_unlabeled=X_pool)`; or pass a function of your own, `WAAL(critic=function)`."
    )


def _without(strategy: Any, missing: set[str], view: NetView, n_labeled: int) -> str:
    # The strategy's own way to do without a net, if it has one that this learner can serve.
    for need in sorted(missing):
        changes: dict[str, Any] = strategy._without.get(need, {})
        if changes and not clone(strategy).set_params(**changes)._unmet(view, n_labeled):
            code = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            return f"Without a torch net: `{type(strategy).__name__}({code})`."
    return ""
