"""modAL's ``ActiveLearner``, made printable, cloneable and able to run on every scikit-learn since 1.5."""

from __future__ import annotations

import inspect
from typing import Any

import modAL.models
import numpy as np
from sklearn.base import clone

from modal_ntk import checks
from modal_ntk.nets.learners import remember_fit, taught_estimator, warn_if_fitted_elsewhere, warn_if_it_goes_on
from modal_ntk.nets.rows import stack_rows, take_rows
from modal_ntk.nets.teaching import as_before_on_failure, for_labels, readable, train


class ActiveLearner(modAL.models.ActiveLearner):
    """Drop-in subclass of ``modAL.models.ActiveLearner``.

    It is a scikit-learn estimator in earnest (``repr``, ``get_params``, ``set_params`` and ``clone`` work), on every
    scikit-learn since 1.5. It queries and teaches what modAL's cannot: frames and series, by position; tensors; sparse
    matrices with every flag of ``teach``; dicts of arrays; torch Datasets, whose own targets are not read. A net may be
    taught by strings, and answers by them. After a ``teach`` that fails the learner is as before; with
    ``only_new=True`` the new samples are remembered by both modAL versions. Learners that share one estimator are told
    to clone it.

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn classifier or skorch net; fitted in place when training data are given.
    query_strategy : callable
        Called as ``query_strategy(learner, X_pool, ...)``.
    X_training : samples (n, ...), optional
        Samples labelled so far.
    y_training : array-like (n,), optional
        Their labels.
    bootstrap_init : bool, default=False
        Whether the first fit draws a bootstrap sample.
    on_transformed : bool, default=False
        As in modAL: kept for its own strategies.
    force_all_finite : bool, default=True
        Whether samples with NaN or infinity are refused.
    **fit_kwargs
        Passed to the first fit.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import entropy
    >>> learner = ActiveLearner(LogisticRegression(), entropy, [[0.0], [4.0]], [0, 1])
    >>> indices, _ = learner.query(np.array([[0.5], [1.9], [9.0]]))
    >>> indices
    array([1])
    >>> learner
    ActiveLearner(X_training=[[0.0], [4.0]], estimator=LogisticRegression(),...)
    """

    def __init__(
        self,
        estimator: Any,
        query_strategy: Any = modAL.models.learners.uncertainty_sampling,
        X_training: Any = None,
        y_training: Any = None,
        bootstrap_init: bool = False,
        on_transformed: bool = False,
        force_all_finite: bool = True,
        **fit_kwargs: Any,
    ) -> None:
        # modAL's constructor takes fit arguments and its own under one `**kwargs`; the attributes are set
        # here so that scikit-learn finds every parameter under its name.
        checks.check_instance("an estimator", estimator)
        checks.check_query_strategy(query_strategy)
        self.estimator = estimator
        self.query_strategy = query_strategy
        self.X_training = X_training
        self.y_training = y_training
        self.bootstrap_init = bootstrap_init
        self.on_transformed = on_transformed
        self.force_all_finite = force_all_finite
        if X_training is not None:
            self._fit_to_known(bootstrap=bootstrap_init, **fit_kwargs)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # Scikit-learn refuses constructors with **kwargs; fit arguments are no parameters of the learner.
        parameters = inspect.signature(cls.__init__).parameters.values()
        return sorted(p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD)

    def __sklearn_clone__(self) -> ActiveLearner:
        """Return an untaught learner with the same parameters: cloning never fits and never copies labels."""
        parameters = self.get_params(deep=False)
        parameters.update(X_training=None, y_training=None)
        parameters.update({name: clone(parameters[name], safe=False) for name in ("estimator", "query_strategy")})
        return type(self)(**parameters)

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the columns of `predict_proba`."""
        return np.asarray(taught_estimator(self).classes_)

    def _checked_samples(self, X: Any, y: Any) -> Any:
        samples = checks.check_samples("X", X, finite=self.force_all_finite)
        checks.check_labels(y, checks.n_rows(samples), multilabel=True)
        return X if isinstance(X, list) else samples

    def _add_training_data(self, X: Any, y: Any) -> None:
        X = self._checked_samples(X, y)
        if self.X_training is None:
            self.X_training, self.y_training = X, y
            return
        checks.check_same_features(X, self.X_training)
        self.X_training, self.y_training = stack_rows([self.X_training, X]), stack_rows([self.y_training, y])

    def _fit_to_known(self, bootstrap: bool = False, **fit_kwargs: Any) -> ActiveLearner:
        return self._fit(self.X_training, self.y_training, bootstrap, fit_kwargs)

    def _fit_on_new(self, X: Any, y: Any, bootstrap: bool = False, **fit_kwargs: Any) -> ActiveLearner:
        return self._fit(X, y, bootstrap, fit_kwargs)

    def _fit(self, X: Any, y: Any, bootstrap: bool, fit_kwargs: dict[str, Any]) -> ActiveLearner:
        X = checks.check_samples("X", X, finite=self.force_all_finite)
        n = checks.n_rows(X)
        y = checks.check_labels(y, n, multilabel=True)
        if bootstrap:
            rows = np.random.choice(n, n)  # noqa: NPY002 - modAL's own draw
            X, y = take_rows(X, rows), y[rows]
        encoded, held = for_labels(self.estimator, y), taught_estimator(self)
        if type(held) is type(encoded):
            encoded = held  # which knows the numbers that labels have
        warn_if_it_goes_on(self, y)
        with as_before_on_failure(self.estimator):
            train(encoded, X, y, **fit_kwargs)
        remember_fit(self, y)
        self._encoded = None if encoded is self.estimator else encoded
        return self

    def fit(self, X: Any, y: Any, bootstrap: bool = False, **fit_kwargs: Any) -> ActiveLearner:
        """Fit the estimator to these samples and forget all others.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.
        y : array-like (n,)
            Labels.
        bootstrap : bool, default=False
            Whether to fit on a bootstrap sample.
        **fit_kwargs
            Passed to the estimator.

        Returns
        -------
        ActiveLearner
            The learner itself.
        """
        with as_before_on_failure(self):
            self.X_training, self.y_training = self._checked_samples(X, y), y
            return self._fit_to_known(bootstrap=bootstrap, **fit_kwargs)

    def teach(self, X: Any, y: Any, bootstrap: bool = False, only_new: bool = False, **fit_kwargs: Any) -> None:
        """Add labelled samples and refit the estimator.

        Parameters
        ----------
        X : samples (n, ...)
            New samples, of the kind taught before.
        y : array-like (n,)
            Their labels.
        bootstrap : bool, default=False
            Whether to fit on a bootstrap sample.
        only_new : bool, default=False
            Whether to fit on the new samples alone; they are remembered all the same.
        **fit_kwargs
            Passed to the estimator.

        Raises
        ------
        InvalidInputError
            If samples or labels cannot be used. After this and any other error the learner is as before.
        """
        with as_before_on_failure(self):
            self._add_training_data(X, y)
            if only_new:
                self._fit_on_new(X, y, bootstrap=bootstrap, **fit_kwargs)
            else:
                self._fit_to_known(bootstrap=bootstrap, **fit_kwargs)

    def query(self, X_pool: Any, *query_args: Any, return_metrics: bool = False, **query_kwargs: Any) -> Any:
        """Have the strategy choose samples of a pool.

        Parameters
        ----------
        X_pool : samples (n, ...)
            The unlabelled samples, in whatever holds them.
        *query_args, **query_kwargs
            Passed to the strategy, such as ``n_instances=20``.
        return_metrics : bool, default=False
            Whether the scores come, too.

        Returns
        -------
        tuple
            Indices and the samples at them, held as the pool is; and the scores, None from a strategy without any.
        """
        warn_if_fitted_elsewhere(self, stacklevel=3)
        chosen = self.query_strategy(self, X_pool, *query_args, **query_kwargs)
        indices, metrics = chosen if isinstance(chosen, tuple) and len(chosen) == 2 else (chosen, None)
        samples = take_rows(X_pool, indices)
        return (indices, samples, metrics) if return_metrics else (indices, samples)

    def predict(self, X: Any, **predict_kwargs: Any) -> Any:
        """Predict labels.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.
        **predict_kwargs
            Passed to the estimator.

        Returns
        -------
        array-like (n,)
            As the estimator answers, by the labels it was taught.
        """
        return taught_estimator(self).predict(self._readable(X), **predict_kwargs)

    def predict_proba(self, X: Any, **predict_proba_kwargs: Any) -> Any:
        """Predict probabilities.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.
        **predict_proba_kwargs
            Passed to the estimator.

        Returns
        -------
        array-like (n, C)
            As the estimator answers.
        """
        return taught_estimator(self).predict_proba(self._readable(X), **predict_proba_kwargs)

    def _readable(self, X: Any) -> Any:
        warn_if_fitted_elsewhere(self, stacklevel=4)
        return readable(self.estimator, checks.check_samples("X", X, finite=False))

    def score(self, X: Any, y: Any, **score_kwargs: Any) -> Any:
        """Score the estimator, as it scores itself.

        Parameters
        ----------
        X : samples (n, ...)
            Samples.
        y : array-like (n,)
            Their labels.
        **score_kwargs
            Passed to the estimator.

        Returns
        -------
        float
            For a classifier the accuracy.
        """
        return taught_estimator(self).score(self._readable(X), y, **score_kwargs)
