"""The contract of all pruners: imbalanced-learn's samplers, for whatever data a skorch net takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field, fields, make_dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, clone
from sklearn.utils.multiclass import check_classification_targets

from modal_ntk import checks, nets, progress
from modal_ntk.errors import InvalidInputError, UnmetNeedError


@dataclass(frozen=True)
class Labelled:
    """Labelled samples as a pruner reads them, after every check.

    Parameters
    ----------
    X : samples (n, ...)
        As users pass them.
    y : numpy.ndarray (n,)
        Their labels.
    rng : numpy.random.Generator
        The pruner's own generator.
    """

    X: Any
    y: np.ndarray
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.y)

    def seed(self) -> int:
        """Draw a seed for one stage."""
        return int(self.rng.integers(2**31))


@dataclass(eq=False, repr=False)
class DataPruner(OneToOneFeatureMixin, BaseEstimator, ABC):
    """Base of all pruners: choose among labelled samples those to train on.

    A subclass writes ``_keep``; the rest is done here. `fit_resample` follows imbalanced-learn, so that a pruner
    may be a step of its Pipeline; samples may be anything that a skorch net takes.

    Attributes
    ----------
    sample_indices_ : numpy.ndarray (m,), int64
        Rows kept, in rising order.
    sampling_strategy_ : dict
        By label, the number of samples kept.

    Notes
    -----
    How many of each class stay follows from the data, so there is no ``sampling_strategy`` to set; labels are one per
    sample, so one-hot matrices are refused.
    """

    _estimator_type = "sampler"
    _sampling_type = "under-sampling"

    estimator: Any
    _: KW_ONLY
    random_state: Any = None
    verbose: int = 0

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Choose samples, and return them with their labels.

        Parameters
        ----------
        X : samples (n, ...)
            Array, tensor, frame, sparse matrix, list, or dict of arrays.
        y : array-like (n,)
            Class labels.

        Returns
        -------
        tuple
            The samples and labels kept, in the containers they came in.

        Raises
        ------
        InvalidInputError
            If a parameter, the samples or the labels cannot be used.
        """
        self.fit(X, y)
        return nets.take_rows(X, self.sample_indices_), nets.take_rows(y, self.sample_indices_)

    def fit(self, X: Any, y: Any) -> DataPruner:
        """Choose samples; the choice is `sample_indices_`.

        Parameters
        ----------
        X : samples (n, ...)
            As for `fit_resample`.
        y : array-like (n,)
            Class labels.

        Returns
        -------
        DataPruner
            Itself.
        """
        checks.check_parameters(self)
        if y is None:
            raise InvalidInputError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        data = checked_data(X, y, self.random_state)
        self._note_features(data.X)
        with progress.work(type(self).__name__, self.verbose):
            self.sample_indices_ = np.sort(self._keep(data)).astype(np.int64)
        labels, counts = np.unique(data.y[self.sample_indices_], return_counts=True)
        self.sampling_strategy_ = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        return self

    def _note_features(self, X: Any) -> None:
        # Scikit-learn's attributes, for what has columns.
        for name in ("n_features_in_", "feature_names_in_"):
            if name in vars(self):
                delattr(self, name)
        if hasattr(X, "shape") and len(X.shape) == 2:
            self.n_features_in_ = int(X.shape[1])
        names = list(getattr(X, "columns", []))
        if names and all(isinstance(name, str) for name in names):
            self.feature_names_in_ = np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn, 1.6 and later, and imbalanced-learn what is taken."""
        tags = super().__sklearn_tags__()
        tags.estimator_type = "sampler"
        tags.target_tags.required = True
        tags.input_tags = _extended(tags.input_tags, dataframe=True)
        tags.input_tags.sparse = tags.input_tags.three_d_array = True
        return _extended(tags, sampler_tags=_SamplerTags())

    @abstractmethod
    def _keep(self, data: Labelled) -> np.ndarray:
        """Return the rows to keep."""


@dataclass
class _SamplerTags:
    sample_indices: bool = True


def _extended(tags: Any, **more: Any) -> Any:
    # Imbalanced-learn reads tags that scikit-learn does not have, from classes of its own; these need not import it.
    kind = type(tags)
    added = [(name, Any, field(default=None)) for name in more]
    extended = make_dataclass(kind.__name__, added, bases=(kind,))
    return extended(**{f.name: getattr(tags, f.name) for f in fields(tags)}, **more)


def checked_data(X: Any, y: Any, random_state: Any) -> Labelled:
    """Check labelled samples, cheap checks first.

    Parameters
    ----------
    X : samples (n, ...)
        As users pass them.
    y : array-like (n,)
        Class labels, at least two classes.
    random_state : int, numpy generator or None
        Seed.

    Returns
    -------
    Labelled
        The same, ready to be read.

    Raises
    ------
    InvalidInputError
        If they cannot be used.
    """
    rng = checks.check_random_state(random_state)
    n = checks.n_rows(X)
    labels = checks.check_labels(y, n)
    if n == 0:
        raise checks.expected("at least one labelled sample", "none", "Pass the training set.")
    check_classification_targets(labels)
    if len(np.unique(labels)) < 2:
        raise checks.expected("labels of at least two classes", "1 class", "Nothing can be learned from one class.")
    return Labelled(checks.check_samples("X", X), labels, rng)


def trained(estimator: Any, data: Labelled, seed: int, *, callback: Any = None, n_epochs: int | None = None) -> Any:
    """Return a clone of an estimator fitted to all samples, with every generator seeded and put back.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Cloned, never fitted itself.
    data : Labelled
        The training set.
    seed : int
        Seed of weights, batches and dropout.
    callback : skorch callback, optional
        One that the clone has beside its own.
    n_epochs : int, optional
        Epochs in place of the net's ``max_epochs``.

    Returns
    -------
    estimator
        The fitted clone.
    """
    copy = clone(estimator)
    view = nets.NetView(copy)
    if view.net is None:
        name = type(view.estimator).__name__
        raise UnmetNeedError(f"Expected a skorch net to train, got {name}. {_WRAP}")
    if callback is not None:
        # A net may name no callbacks, or turn them off by a word.
        own = view.net.callbacks if isinstance(view.net.callbacks, list) else []
        view.net.set_params(callbacks=[*own, ("modal_ntk_watch", callback)])
    if n_epochs is not None:
        view.net.set_params(max_epochs=n_epochs)
    with nets.seeded(seed % 2**32), progress.stage("training"):
        copy.fit(data.X, data.y)
    return copy


_WRAP = "Wrap a torch module in a skorch net: `NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss)`."


def fitted_view(estimator: Any, data: Labelled, prefit: bool, *, instead: str = "prefit=False") -> nets.NetView:
    """Return a view of the estimator as it is, if it is fitted already, or of a clone trained on the data.

    Parameters
    ----------
    estimator : estimator
        Fitted under `prefit`.
    data : Labelled
        The training set.
    prefit : bool
        Whether to read it as it is.
    instead : str, default="prefit=False"
        What the caller's user may pass to have a clone trained.

    Returns
    -------
    NetView
        Of a fitted net.

    Raises
    ------
    UnmetNeedError
        If there is none.
    """
    view = nets.NetView(estimator if prefit else trained(estimator, data, data.seed()))
    if not view.offers("gradients"):
        name = type(view.estimator).__name__
        state = "an unfitted " if view.net is not None else ""
        remedy = f"Fit it first, `estimator.fit(X, y)`, or pass `{instead}`." if view.net is not None else _WRAP
        raise UnmetNeedError(f"Expected a fitted skorch net, got {state}{name}. {remedy}")
    return view


def label_columns(view: nets.NetView, data: Labelled) -> np.ndarray:
    """Return the column of each sample's label among the logits of a fitted net: (n,), int64."""
    n_outputs = view.logits(nets.take_rows(data.X, np.arange(1))).shape[1]
    return nets.class_columns(view, data.y, n_outputs)
