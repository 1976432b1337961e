"""modAL's ``ActiveLearner``, made printable, cloneable and able to run on every scikit-learn since 1.5."""

from __future__ import annotations

import inspect
from typing import Any

import modAL.models
import numpy as np
from modAL.utils.data import data_vstack
from sklearn.base import clone
from sklearn.utils import check_X_y

from modal_ntk import checks

# Scikit-learn renamed the argument in 1.6 and dropped the old name, which modAL uses, in 1.8.
_FINITE = "ensure_all_finite" if "ensure_all_finite" in inspect.signature(check_X_y).parameters else "force_all_finite"


class ActiveLearner(modAL.models.ActiveLearner):
    """Drop-in subclass of ``modAL.models.ActiveLearner``.

    It differs in three points: it is a scikit-learn estimator in earnest (``repr``, ``get_params``,
    ``set_params`` and ``clone`` work), ``teach`` and ``fit`` work on scikit-learn 1.8 and later, and with
    ``only_new=True`` the new samples are remembered by both modAL versions.

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn classifier or skorch net; fitted in place when training data are given.
    query_strategy : callable
        Called as ``query_strategy(learner, X_pool, ...)``.
    X_training : array-like (n, ...), optional
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
        if not callable(query_strategy):
            remedy = "Pass a strategy such as modal_ntk.ntkcpl or modal_ntk.NTKCPL()."
            raise checks.expected("query_strategy to be callable", repr(query_strategy), remedy)
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

    def _check(self, X: Any, y: Any) -> None:
        finite = {_FINITE: self.force_all_finite}
        check_X_y(X, y, accept_sparse=True, ensure_2d=False, allow_nd=True, multi_output=True, dtype=None, **finite)

    def _add_training_data(self, X: Any, y: Any) -> None:
        self._check(X, y)
        if self.X_training is None:
            self.X_training, self.y_training = X, y
            return
        checks.check_same_features(X, self.X_training)
        stacked = data_vstack((self.X_training, X)), data_vstack((self.y_training, y))
        self.X_training, self.y_training = stacked

    def _fit_on_new(self, X: Any, y: Any, bootstrap: bool = False, **fit_kwargs: Any) -> ActiveLearner:
        self._check(X, y)
        rows = np.random.choice(len(X), len(X)) if bootstrap else slice(None)  # noqa: NPY002 - modAL's own draw
        self.estimator.fit(X[rows], y[rows], **fit_kwargs)
        return self

    def fit(self, X: Any, y: Any, bootstrap: bool = False, **fit_kwargs: Any) -> ActiveLearner:
        """Fit the estimator to these samples and forget all others.

        Parameters
        ----------
        X : array-like (n, ...)
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
        self._check(X, y)
        self.X_training, self.y_training = X, y
        self._fit_to_known(bootstrap=bootstrap, **fit_kwargs)
        return self

    def teach(self, X: Any, y: Any, bootstrap: bool = False, only_new: bool = False, **fit_kwargs: Any) -> None:
        """Add labelled samples and refit the estimator.

        Parameters
        ----------
        X : array-like (n, ...)
            New samples.
        y : array-like (n,)
            Their labels.
        bootstrap : bool, default=False
            Whether to fit on a bootstrap sample.
        only_new : bool, default=False
            Whether to fit on the new samples alone; they are remembered all the same.
        **fit_kwargs
            Passed to the estimator.
        """
        self._add_training_data(X, y)
        if only_new:
            self._fit_on_new(X, y, bootstrap=bootstrap, **fit_kwargs)
        else:
            self._fit_to_known(bootstrap=bootstrap, **fit_kwargs)
