"""Who fitted an estimator last: what two learners share, the later one has taught."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import Any

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets.encoded import goes_on
from modal_ntk.nets.wrapped import WrappedNet, final_of

_REMEDY = "Give each learner its own: sklearn.base.clone(estimator), made before the first fit."

# By the estimator, or the last step of a Pipeline: the learner that fitted it last, and to how many labels.
_fitted: weakref.WeakKeyDictionary[Any, tuple[weakref.ref[Any], int]] = weakref.WeakKeyDictionary()


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
    if others > checks.n_rows(y) and goes_on(_trained(learner)):
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
        _fitted[_trained(learner)] = weakref.ref(learner), checks.n_rows(y)


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
        by, n_labels = _fitted[_trained(learner)]
    except (KeyError, TypeError):  # nobody yet, or an estimator that cannot be hashed
        return 0
    other = by()
    same = other is not None and (other is learner or other.y_training is learner.y_training)
    return 0 if same else n_labels


def _trained(learner: Any) -> Any:
    estimator = learner.estimator
    return final_of(estimator.estimator if isinstance(estimator, WrappedNet) else estimator)
