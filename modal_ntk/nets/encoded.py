"""Nets taught by labels of any kind: these are numbered for the net, and its answers named again."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import skorch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from modal_ntk import checks
from modal_ntk.nets.datasets import LabeledDataset

if TYPE_CHECKING:
    from typing_extensions import Self


def unwrapped(estimator: Any) -> Any:
    """Return what a `WrappedNet` holds, or the estimator itself."""
    return estimator.estimator if isinstance(estimator, WrappedNet) else estimator


def final_of(estimator: Any) -> Any:
    """Return the last step of a Pipeline, or the estimator itself; of what a `WrappedNet` holds."""
    held = unwrapped(estimator)
    return held.steps[-1][1] if isinstance(held, Pipeline) else held


def loss_class(net: Any) -> type:
    """Return the class of a net's loss, fitted or not."""
    return net.criterion if isinstance(net.criterion, type) else type(net.criterion)


def attached(estimator: Any, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return samples and labels as ``fit`` takes them: skorch reads the labels of a Dataset off its items.

    Parameters
    ----------
    estimator : estimator
        Who is fitted.
    X : samples (n, ...)
        Prepared for it.
    y : numpy.ndarray (n,)
        The labels.

    Returns
    -------
    tuple
        A Dataset with these labels in place of its own; numbers in the type that a net's loss takes.

    Raises
    ------
    InvalidInputError
        If numbers cannot be those of a net's outputs.
    """
    y = _targets(final_of(estimator), y)
    return (LabeledDataset(X, y) if checks.is_dataset(X) else X), y


AS_NAMES = "Pass names, which are numbered for the net: y.astype(str)."


def _targets(net: Any, y: np.ndarray) -> np.ndarray:
    if not _answers_by_numbers(net) or y.ndim > 1 or y.dtype.kind not in "iuf":
        return y
    if isinstance(net, NeuralNetBinaryClassifier):
        _check_outputs("labels 0 and 1 for a net with one output", y, np.isin(y, (0, 1)))
        return y if y.dtype.kind == "f" else y.astype(np.float32)
    if not issubclass(loss_class(net), (nn.CrossEntropyLoss, nn.NLLLoss)):
        return y if y.dtype.kind == "f" else y.astype(np.int64)
    ignored = net.get_params_for("criterion").get("ignore_index", getattr(net.criterion, "ignore_index", -100))
    right = ((y >= 0) & (y == np.floor(y))) | (y == ignored)
    _check_outputs("labels that are numbers of the net's outputs, 0 and up", y, right)
    return y.astype(np.int64)


def _check_outputs(wanted: str, y: np.ndarray, right: np.ndarray) -> None:
    if not right.all():
        row = int(right.argmin())
        raise checks.expected(wanted, f"{y[row]}, first in row {row}", AS_NAMES)


def needs_encoding(estimator: Any, y: np.ndarray) -> bool:
    """Tell whether labels must be numbered before a net can be trained on them.

    Parameters
    ----------
    estimator : estimator
        A net, a Pipeline that ends in one, or any classifier.
    y : numpy.ndarray (n,)
        Labels that have been checked.

    Returns
    -------
    bool
        False for all but nets, for integers, and for a net whose class has a ``predict`` of its own, which answers by
        labels itself.

    Examples
    --------
    >>> net = NeuralNetClassifier(object)
    >>> needs_encoding(net, np.array(["ant"])), needs_encoding(net, np.array([3]))
    (True, False)
    """
    return y.dtype.kind not in "iuf" and y.ndim == 1 and _answers_by_numbers(final_of(estimator))


def _answers_by_numbers(net: Any) -> bool:
    # A net whose class has a `predict` of its own numbers the labels itself.
    known = (skorch.NeuralNet, NeuralNetClassifier, NeuralNetBinaryClassifier)
    return isinstance(net, known) and any(type(net).predict is kind.predict for kind in known)


def goes_on(estimator: Any) -> bool:
    """Tell whether ``fit`` trains a net on from the weights it has.

    Parameters
    ----------
    estimator : estimator
        A net, or a Pipeline that ends in one.

    Returns
    -------
    bool
        True with ``warm_start``, and for a module that was given as an instance.

    Examples
    --------
    >>> goes_on(NeuralNetClassifier(object)), goes_on(NeuralNetClassifier(object, warm_start=True))
    (False, True)
    """
    final = final_of(estimator)
    return bool(getattr(final, "warm_start", False)) or isinstance(getattr(final, "module", None), nn.Module)


def classes_for(estimator: Any, labels: np.ndarray, classes: Any = None) -> np.ndarray:
    """Return the names of a net's outputs.

    Parameters
    ----------
    estimator : estimator
        The net, whose own ``classes`` come first, or a Pipeline that ends in it.
    labels : numpy.ndarray (n,)
        Those to be taught.
    classes : array-like, optional
        All that may come.

    Returns
    -------
    numpy.ndarray (C,)
        What was declared, if it names all labels; else the labels, each once, sorted.
    """
    for declared in (getattr(final_of(estimator), "classes", None), classes):
        if declared is not None and set(labels.tolist()) <= set(np.asarray(declared).tolist()):
            return np.asarray(declared)
    return LabelEncoder().fit(labels).classes_


def numbers_of(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the number of every label.

    Parameters
    ----------
    labels : numpy.ndarray (n,)
        The labels.
    classes : numpy.ndarray (C,)
        Their names in order.

    Returns
    -------
    numpy.ndarray (n,), int64
        Positions in `classes`.

    Raises
    ------
    InvalidInputError
        If a label is none of these.
    """
    numbers = {label: number for number, label in enumerate(classes.tolist())}
    unknown = sorted({str(label) for label in labels.tolist() if label not in numbers})
    if unknown:
        remedy = "Pass classes= to the net, or fit it anew on all labels."
        raise checks.expected(f"labels among {list(numbers)}", f"new ones {unknown}", remedy)
    return np.array([numbers[label] for label in labels.tolist()], np.int64)


class WrappedNet(ClassifierMixin, BaseEstimator):
    """A net, or a Pipeline that ends in one, fitted in place as modAL fits."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the estimator.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.
        y : array-like (n,) or (n, K)
            Labels of the kind that the class is for.
        **fit_params
            As the estimator takes them.

        Returns
        -------
        WrappedNet
            Itself.
        """
        self._train(self.estimator.fit, X, y, fit_params, on=False)
        return self

    def partial_fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Train the estimator on; labels keep the numbers they have.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.
        y : array-like (n,) or (n, K)
            Labels of the kind that the class is for.
        **fit_params
            As the estimator takes them.

        Returns
        -------
        WrappedNet
            Itself.
        """
        self._train(self.estimator.partial_fit, X, y, fit_params, on=True)
        return self

    @abstractmethod
    def _train(self, train: Any, X: Any, y: Any, fit_params: dict[str, Any], *, on: bool) -> None:
        """Call `train` with labels as the net takes them, and set ``classes_``."""

    def __sklearn_is_fitted__(self) -> bool:
        """Tell whether it was fitted."""
        return hasattr(self, "classes_")


class LabelEncoded(WrappedNet):
    """A net, or a Pipeline that ends in one, that is taught by strings and answers by them.

    Parameters
    ----------
    estimator : skorch net or Pipeline
        Fitted in place, as modAL fits; on the numbers of the labels.
    classes : array-like or None, default=None
        All labels there may be, in the order of the outputs.

    Attributes
    ----------
    classes_ : numpy.ndarray (C,)
        The labels in the order of the net's outputs: `classes`, the net's own where these name
        them, else those seen, sorted. Where ``fit`` trains the net on from its weights, labels keep their numbers
        and new ones follow.

    Examples
    --------
    >>> import torch
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear(1, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0, lr=1.0
    ... )
    >>> X = np.array([[-1.0], [1.0]], "float32")
    >>> LabelEncoded(net).fit(X, ["no", "yes"]).predict(X).tolist()
    ['no', 'yes']
    """

    def __init__(self, estimator: Any, classes: Any = None) -> None:
        super().__init__(estimator)
        self.classes = classes

    def _train(self, train: Any, X: Any, y: Any, fit_params: dict[str, Any], *, on: bool) -> None:
        labels = checks.check_labels(y, checks.n_rows(X))
        known = getattr(self, "classes_", None) if on or goes_on(self.estimator) else None
        classes = classes_for(self.estimator, labels, self.classes) if known is None else known
        if known is not None and not on:
            classes = np.append(known, np.setdiff1d(labels, known))
        train(*attached(self.estimator, X, self._numbers(labels, classes)), **fit_params)
        self.classes_ = classes

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of the most probable class of every sample.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.

        Returns
        -------
        numpy.ndarray (n,)
            Labels.
        """
        check_is_fitted(self)
        numbers = self.estimator.predict(X)
        # skorch's NeuralNet predicts what its module returns, and a classifier also by outputs that no label names yet.
        if numbers.ndim > 1 or int(numbers.max(initial=0)) >= len(self.classes_):
            numbers = self.estimator.predict_proba(X)[:, : len(self.classes_)].argmax(axis=1)
        return self.classes_[numbers.astype(np.int64)]

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the outputs.

        Parameters
        ----------
        X : samples (n, ...)
            As the estimator takes them.

        Returns
        -------
        numpy.ndarray (n, C)
            The first columns in the order of `classes_`; outputs without a label follow.
        """
        check_is_fitted(self)
        return self.estimator.predict_proba(X)

    def _numbers(self, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        numbers = numbers_of(labels, classes)
        if not isinstance(final_of(self.estimator), NeuralNetBinaryClassifier):
            return numbers
        if len(classes) > 2:
            remedy = "Use skorch.NeuralNetClassifier with an output for each class."
            raise checks.expected("two classes for a net with one output", f"{len(classes)}", remedy)
        return numbers.astype(np.float32)
