"""What can be read off a learner by its attributes, whichever modAL made it, and who fitted its estimator last."""

from __future__ import annotations

import contextlib
import inspect
import warnings
import weakref
from collections import Counter
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.environment import compatibility
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets.encoded import final_of, goes_on
from modal_ntk.nets.rows import row_digests, stack_rows, take_rows

_told = False
_REMEDY = "Give each learner its own: sklearn.base.clone(estimator), made before the first fit."

# By the estimator, or the last step of a Pipeline: the learner that fitted it last, and to how many labels.
_fitted: weakref.WeakKeyDictionary[Any, tuple[weakref.ref[Any], int]] = weakref.WeakKeyDictionary()


def estimator_of(learner: Any) -> Any:
    """Return the estimator behind a learner.

    Parameters
    ----------
    learner : modAL learner or estimator
        Scikit-learn's meta-estimators have an ``estimator`` too, so only what can be queried is unwrapped.

    Returns
    -------
    estimator
        The learner's estimator, or the argument itself. With a net that was taught by strings, a `LabelEncoded`.
    """
    if callable(getattr(learner, "query", None)) and hasattr(learner, "estimator"):
        return taught_estimator(learner)
    return learner


def taught_estimator(learner: Any) -> Any:
    """Return what answers for a learner: its estimator, or what numbers its labels, made by the latest fit.

    Parameters
    ----------
    learner : modAL learner
        With an ``estimator``.

    Returns
    -------
    estimator
        The estimator itself where it has been replaced since, or was taught as it is.
    """
    encoded = getattr(learner, "_encoded", None)
    return learner.estimator if encoded is None or encoded.estimator is not learner.estimator else encoded


def labeled_set_of(learner: Any) -> tuple[Any, Any]:
    """Return the training samples and labels that a learner keeps.

    Parameters
    ----------
    learner : modAL learner, committee or estimator
        A committee keeps what its members keep: what several of them hold counts once. modAL's
        ``DeepActiveLearner`` and a bare estimator keep none.

    Returns
    -------
    tuple
        Samples and labels; (None, None) where there are none.
    """
    members = getattr(learner, "learner_list", None)
    if members is not None:
        return _union([kept for kept in map(labeled_set_of, members) if kept[0] is not None])
    X, y = getattr(learner, "X_training", None), getattr(learner, "y_training", None)
    return (None, None) if X is None or y is None else (X, y)


def _union(sets: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    if not sets:
        return None, None
    first_X, first_y = sets[0]
    if all(X is first_X and y is first_y for X, y in sets):
        return first_X, first_y
    # A member may hold a sample twice, and members may disagree on its label: equal pairs are told from each other by
    # how often a member holds them, so that what all share is taken from the first.
    held: Counter[Any] = Counter()
    parts = []
    for X, y in sets:
        labels = checks.check_labels(y, checks.n_rows(X), multilabel=True)
        own: Counter[Any] = Counter()
        fresh = []
        for row, pair in enumerate(zip(row_digests(X), map(repr, labels.tolist()), strict=True)):
            own[pair] += 1
            if own[pair] > held[pair]:
                fresh.append(row)
        held |= own
        if fresh:
            parts.append((take_rows(X, np.array(fresh)), labels[fresh]))
    return stack_rows([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def warn_if_labels_are_elsewhere(learner: Any, view: Any, *, read: bool = True) -> None:
    """Say that a learner that keeps no labels holds a net that was taught, or can keep none at all.

    Parameters
    ----------
    learner : modAL learner, committee or estimator
        The object a strategy was called with, which keeps no labelled samples.
    view : NetView
        A view of it.
    read : bool, default=True
        Whether the strategy looks at labels at all.

    Warns
    -----
    ModalNTKWarning
        If it is a learner, so that what the strategy is told is not what its net knows.
    """
    if not callable(getattr(learner, "query", None)) or hasattr(learner, "learner_list"):
        return
    if not hasattr(learner, "X_training"):
        if not read:
            return
        told = f"{type(learner).__name__} keeps no labelled samples, so this query knows of none"
        remedy = "Pass them: learner.query(X_pool, X_labeled=X, y_labeled=y)."
        warnings.warn(f"{told}. {remedy}", ModalNTKWarning, stacklevel=2)
    elif view.net is not None and view.is_fitted and len(getattr(view.net, "history_", None) or ()):
        told = "The learner holds no labelled samples, but its net has been trained: another learner may have taught it"
        remedy = "Give each learner a net of its own, sklearn.base.clone(net), or pass X_labeled and y_labeled."
        warnings.warn(f"{told}. {remedy}", ModalNTKWarning, stacklevel=2)


def warn_of_labeled_in_pool(X_pool: Any, X_labeled: Any) -> None:
    """Say that all labelled samples are in the pool again, from which they may be chosen once more.

    Parameters
    ----------
    X_pool, X_labeled : samples
        Arrays or tensors of numbers; anything else is not compared.

    Warns
    -----
    ModalNTKWarning
        If every labelled sample equals one of the pool, and there are at least two different ones.
    """
    pool, labeled = (_comparable(X) for X in (X_pool, X_labeled))
    if pool is None or labeled is None or pool.shape[1:] != labeled.shape[1:]:
        return
    # One number a row finds the few pairs of rows that are compared in full.
    keys = [rows.sum(axis=1, dtype=np.float64) for rows in (pool, labeled)]
    if not np.isin(keys[1], keys[0]).all():
        return
    near = pool[np.isin(keys[0], keys[1])]
    known = set(row_digests(labeled))
    if len(known) > 1 and known <= set(row_digests(near)):
        told = f"All {len(labeled)} labelled samples are in the pool too, so they may be chosen again"
        remedy = "Take what is taught out of the pool: X_pool = np.delete(X_pool, indices, axis=0)."
        warnings.warn(f"{told}. {remedy}", ModalNTKWarning, stacklevel=2)


def _comparable(X: Any) -> np.ndarray | None:
    values = X.detach().cpu().numpy() if hasattr(X, "detach") else X
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.ndim < 2:
        return None
    # In C order, so that equal rows are added up alike.
    return np.ascontiguousarray(values).reshape(len(values), -1)


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
        True for modAL 0.4.2 and later, and for `modal_ntk.ActiveLearner`.
    """
    query = getattr(type(learner), "query", None)
    return query is not None and "return_metrics" in inspect.signature(query).parameters


def asks_again(learner: Any) -> bool:
    """Tell whether a learner's ``query`` calls a strategy again after any error, as modAL 0.4.2 does.

    Parameters
    ----------
    learner : modAL learner or estimator
        The object a strategy was called with.

    Returns
    -------
    bool
        Whether it does; `modal_ntk.ActiveLearner` does not.
    """
    return wants_metrics(learner) and str(getattr(type(learner).query, "__module__", "")).startswith("modAL")


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


def warn_if_it_goes_on(learner: Any, y: Any) -> None:
    """Say that a fit will go on from what another learner's labels have left in the estimator.

    Parameters
    ----------
    learner : modAL learner
        About to fit its estimator.
    y : array-like (n,)
        The labels it fits to.

    Warns
    -----
    ModalNTKWarning
        If another learner fitted the estimator to more labels than these, and a fit starts from the weights that are
        there. To fewer or as many it is taken for one learner's work that another one continues.
    """
    others = _labels_of_another(learner)
    if others > checks.n_rows(y) and goes_on(final_of(learner.estimator)):
        told = f"Another learner has fitted this estimator to {others} labels"
        told += f", and this fit to {checks.n_rows(y)} goes on from there"
        warnings.warn(f"{told}. {_REMEDY}", ModalNTKWarning, stacklevel=5)


def remember_fit(learner: Any, y: Any) -> None:
    """Remember that a learner has fitted its estimator.

    Parameters
    ----------
    learner : modAL learner
        Not kept alive by this.
    y : array-like (n,)
        The labels.
    """
    with contextlib.suppress(TypeError):  # an estimator that cannot be hashed
        _fitted[final_of(learner.estimator)] = weakref.ref(learner), checks.n_rows(y)


def warn_if_fitted_elsewhere(learner: Any, *, stacklevel: int) -> None:
    """Say that an estimator knows another learner's labels by now.

    Parameters
    ----------
    learner : modAL learner
        About to query or predict.
    stacklevel : int
        Of the warning.

    Warns
    -----
    ModalNTKWarning
        If the learner keeps labels and another one has fitted its estimator since.
    """
    if learner.X_training is not None and _labels_of_another(learner):
        told = "Another learner has fitted this learner's estimator since, so it answers by the other's labels"
        warnings.warn(f"{told}. {_REMEDY}", ModalNTKWarning, stacklevel=stacklevel)


def _labels_of_another(learner: Any) -> int:
    # To how many labels another learner fitted the estimator last; none if that was this one, or its original.
    try:
        by, n_labels = _fitted[final_of(learner.estimator)]
    except (KeyError, TypeError):  # nobody yet, or an estimator that cannot be hashed
        return 0
    other = by()
    same = other is not None and (other is learner or other.y_training is learner.y_training)
    return 0 if same else n_labels
