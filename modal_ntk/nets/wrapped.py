"""What nets share that are wrapped to be taught by labels of another kind than they take."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline

if TYPE_CHECKING:
    from typing_extensions import Self


def final_of(estimator: Any) -> Any:
    """Return the last step of a Pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


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
