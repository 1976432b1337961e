"""Who fitted an estimator last: what two learners share, the later one has taught."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import Any

from torch import nn

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
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
    trained = _trained(learner)
    by, n_labels = _last_fit(trained)
    goes_on = isinstance(getattr(trained, "module", None), nn.Module) or getattr(trained, "warm_start", False)
    if by is not None and by() is not learner and goes_on and n_labels > checks.n_rows(y):
        told = f"Another learner has fitted this estimator to {n_labels} labels"
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
    by, _ = _last_fit(_trained(learner))
    if by is not None and by() is not learner and learner.X_training is not None:
        told = "Another learner has fitted this learner's estimator since, so it answers by the other's labels"
        warnings.warn(f"{told}. {_REMEDY}", ModalNTKWarning, stacklevel=stacklevel)


def _last_fit(trained: Any) -> tuple[Any, int]:
    try:
        return _fitted.get(trained, (None, 0))
    except TypeError:
        return None, 0


def _trained(learner: Any) -> Any:
    estimator = learner.estimator
    return final_of(estimator.estimator if isinstance(estimator, WrappedNet) else estimator)
