"""The estimator behind a learner: what it is, what it offers, and samples as it takes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.errors import UnmetNeedError
from modal_ntk.hooks import NEEDS
from modal_ntk.nets.datasets import as_pairs, samples_of
from modal_ntk.nets.encoded import LabelEncoded, final_of, unwrapped
from modal_ntk.nets.learners import estimator_of
from modal_ntk.nets.reading.dropout import has_dropout
from modal_ntk.nets.reading.outputs import read_by, uncompiled
from modal_ntk.nets.rows import for_a_net, stack_rows
from modal_ntk.nets.traceless import no_trace

_METHODS = {"probabilities": "predict_proba", "predictions": "predict"}


class EstimatorView:
    """What a learner trains, before it is shown a sample.

    Parameters
    ----------
    learner : modAL learner, skorch net, scikit-learn Pipeline or classifier
        As for `NetView`.
    """

    def __init__(self, learner: Any) -> None:
        found = estimator_of(learner)
        checks.check_instance("a learner or an estimator", found)
        self._encoded = found if isinstance(found, LabelEncoded) else None
        self.estimator = unwrapped(found)
        self._earlier = list(self.estimator.steps[:-1]) if isinstance(self.estimator, Pipeline) else []
        self._final = final_of(self.estimator)
        self.net: Any = self._final if isinstance(self._final, skorch.NeuralNet) else None
        self._fitted_earlier: Any = None

    @property
    def is_fitted(self) -> bool:
        """Whether the estimator can answer: a net has weights, a classifier was fitted."""
        if self.net is not None:
            return bool(getattr(self.net, "initialized_", False))
        try:
            check_is_fitted(self._final)
        except (NotFittedError, TypeError):
            return False
        return True

    @property
    def module(self) -> nn.Module:
        """The torch module as it stands; it is replaced at every fit, so it is never kept."""
        return uncompiled(self._require_net("net").module_)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters live; the CPU without a net."""
        parameter = next(self.module.parameters(), None) if self.net is not None and self.is_fitted else None
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def classes(self) -> np.ndarray:
        """Class labels in the order of the columns of `probabilities`, as far as the estimator names them."""
        named = self._final if self._encoded is None else self._encoded
        try:
            return np.asarray(named.classes_)
        except AttributeError:
            # A skorch NeuralNet names none; its labels are the numbers of its outputs.
            if self.net is None:
                raise
            return np.zeros(0, np.int64)

    @property
    def is_encoded(self) -> bool:
        """Whether the net was taught by the numbers of its labels, their positions in `classes`."""
        return self._encoded is not None

    @property
    def is_regressor(self) -> bool:
        """Whether the estimator predicts quantities, not classes."""
        return hasattr(self._final, "fit") and bool(is_regressor(self._final))

    def offers(self, need: str) -> bool:
        """Tell whether the learner can meet a need, a key of ``hooks.NEEDS``.

        Parameters
        ----------
        need : str
            What is asked for.

        Returns
        -------
        bool
            Whether it is there; needs that depend on the data ("labels", "features") are granted here.
        """
        if self.is_regressor and need in ("probabilities", "predictions", "gradients"):
            return False
        if need == "net":
            return self.net is not None
        if need in ("embedding", "gradients", "dropout"):
            fitted = self.net is not None and self.is_fitted
            return fitted and (need != "dropout" or has_dropout(self.module))
        if need == "critic":
            return self.is_fitted and getattr(self._final, "critic_is_trained_", hasattr(self._final, "critic_"))
        if need in _METHODS:
            return self.is_fitted and hasattr(self._final, _METHODS[need])
        return True

    def no_trace(self) -> AbstractContextManager[None]:
        """Context that leaves the module, its buffers, modes, hooks and gradients as they were."""
        if self.net is None or not self.is_fitted:
            return no_trace(None)
        critic = getattr(self.net, "critic_", None)
        return no_trace(self.module if critic is None else nn.ModuleList([self.module, critic]))

    def functional(self) -> tuple[Callable[[dict[str, Tensor], Tensor], Tensor], dict[str, Tensor]]:
        """Return the module as a pure function of its parameters, and these, detached.

        Returns
        -------
        tuple
            ``forward(parameters, x)`` and a dict of parameters by name.
        """
        module = self.module
        parameters = {name: p.detach() for name, p in module.named_parameters()}

        def forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(module, parameters, (x,))

        return forward, parameters

    def fit_earlier(self, *parts: Any) -> None:
        """Fit copies of the earlier steps of an unfitted Pipeline to some samples, without labels.

        A strategy that needs no model starts from the samples as these steps see them. They are fitted once, to all
        samples that the strategy will read, so that these are prepared alike.

        Parameters
        ----------
        *parts : samples (n, ...)
            As users pass them, such as labelled set and pool; None is left out.
        """
        if self._earlier and not self.is_fitted:
            X = stack_rows([self._as_rows(part) for part in parts if part is not None])
            with read_by("the Pipeline", X):
                self._fitted_earlier = clone(Pipeline(self._earlier)).fit(X)

    def prepare(self, X: Any) -> Any:
        """Send samples through the earlier steps of a Pipeline.

        Before the first fit these steps are those that `fit_earlier` has fitted, or are fitted to `X` itself.

        Parameters
        ----------
        X : samples
            As users pass them.

        Returns
        -------
        samples
            What the last step is given.

        Raises
        ------
        InvalidInputError
            If a net is to be given what no tensor can hold.
        """
        if self._earlier:
            if not self.is_fitted and self._fitted_earlier is None:
                self.fit_earlier(X)
            earlier = Pipeline(self._earlier) if self.is_fitted else self._fitted_earlier
            with read_by("the Pipeline", X):
                X = earlier.transform(self._as_rows(X))
        if self.net is None:
            return self._as_rows(X)
        if checks.is_dataset(X):
            return as_pairs(X)
        return for_a_net(X)

    @staticmethod
    def _as_rows(X: Any) -> Any:
        # scikit-learn reads arrays; only a net reads a data set item by item.
        return samples_of(X, "the pool") if checks.is_dataset(X) else X

    def _require_net(self, need: str) -> Any:
        if self.net is None or not self.is_fitted:
            state = "not initialised yet" if self.net is not None else f"a {type(self._final).__name__}"
            meaning = NEEDS.get(need, f"the {need} of a fitted torch net")
            raise UnmetNeedError(f"Expected {meaning}, got an estimator that is {state}. Fit a skorch net first.")
        return self.net

    def _classifier(self, method: str) -> Callable[[Any], Any]:
        if not hasattr(self._final, method):
            name = type(self._final).__name__
            raise UnmetNeedError(f"Expected an estimator with {method}, got {name}. Use one that has it.")
        answer = getattr(self.estimator, method)

        def checked(X: Any) -> Any:
            with read_by(type(self.estimator).__name__, X):
                return answer(X)

        return checked
