"""The kernel as a scikit-learn estimator: what a network would predict, without training it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.errors import InvalidInputError
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.kernels.heads import ntk_head
from modal_ntk.kernels.ntk import Kind, Method, empirical_ntk
from modal_ntk.kernels.regression import ntk_regression

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


class _KernelMachine(BaseEstimator):
    # What both estimators are given, and the regression that they fit.
    def __init__(
        self,
        module: nn.Module | None = None,
        *,
        n_hidden: int = 512,
        kind: Kind = "pseudo",
        method: Method = "auto",
        time: float | None = None,
        rel_jitter: float = 1e-6,
        add_initial: bool = False,
        memory_budget: int = 2**30,
        dtype: str = "float64",
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.n_hidden = n_hidden
        self.kind = kind
        self.method = method
        self.time = time
        self.rel_jitter = rel_jitter
        self.add_initial = add_initial
        self.memory_budget = memory_budget
        self.dtype = dtype
        self.random_state = random_state

    def _fit_to(self, samples: np.ndarray, targets: np.ndarray) -> None:
        self._machine = _Machine(self, samples, torch.from_numpy(targets))
        self.module_, self.X_fit_, self.n_features_in_ = self._machine.module, self._machine.x, samples.shape[1]

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        samples = _samples(X)
        if samples.shape[1] != self.n_features_in_:
            # In scikit-learn's own words, which its checks of estimators look for.
            name, n = type(self).__name__, self.n_features_in_
            raise InvalidInputError(
                f"X has {samples.shape[1]} features, but {name} is expecting {n} features as input. "
                "Pass samples prepared as those of fit were."
            )
        return self._machine.outputs(samples).cpu().numpy()


class NTKRegressor(MultiOutputMixin, RegressorMixin, _KernelMachine):
    """Regression with the tangent kernel of a network at its present parameters.

    Parameters
    ----------
    module : torch.nn.Module, optional
        Takes samples (n, ...) as float tensor and returns outputs (n, K); never trained or changed. By default a fresh
        `modal_ntk.kernels.ntk_head` on flat features.
    n_hidden : int, default=512
        Width of the default module.
    kind : {"pseudo", "trace"}, default="pseudo"
        Kernel, shared by all outputs.
    method : {"auto", "explicit", "factored", "sketch"}, default="auto"
        How the kernel is computed.
    time : float or None, default=None
        Training time; None is the limit.
    rel_jitter : float, default=1e-6
        Jitter relative to the mean diagonal of the training kernel: more of it smooths.
    add_initial : bool, default=False
        Whether the outputs before training are part of the prediction, as they are in a network's; needs a module with
        one output for each target.
    memory_budget : int, default=2**30
        Bytes for what is held beside the kernel.
    dtype : {"float64", "float32"}, default="float64"
        Type to compute in.
    random_state : int, generator or None, default=None
        Seed of the default module and of a sketch.

    Attributes
    ----------
    module_ : torch.nn.Module
        The module used.
    X_fit_ : Tensor (n, ...)
        Training samples.
    n_features_in_ : int
        Length of a flat sample, or of the first axis of any other.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 9)[:, None]
    >>> NTKRegressor(random_state=0).fit(X, 2 * X[:, 0]).predict(X[:2]).round(2).tolist()
    [-2.0, -1.5]
    """

    def fit(self, X: Any, y: Any) -> NTKRegressor:
        """Keep training samples and targets; the kernel is solved when predicting.

        Parameters
        ----------
        X : array-like (n, ...)
            Samples.
        y : array-like (n,) or (n, K)
            Targets.

        Returns
        -------
        NTKRegressor
            Itself.
        """
        samples = _samples(X)
        if y is None:
            raise InvalidInputError("NTKRegressor requires y to be passed, but the target y is None. Call fit(X, y).")
        targets = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        check_consistent_length(samples, targets)
        self._one_target = targets.ndim == 1
        self._fit_to(samples, targets.reshape(len(samples), -1))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict targets.

        Parameters
        ----------
        X : array-like (m, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (m,) or (m, K)
            Predictions, shaped as the targets were.
        """
        out = self._outputs(X)
        return out[:, 0] if self._one_target else out


class NTKClassifier(ClassifierMixin, _KernelMachine):
    """Classification by tangent-kernel regression on one-hot targets.

    Parameters
    ----------
    module : torch.nn.Module, optional
        Takes samples (n, ...) as float tensor and returns logits (n, K); never trained or changed. By default a fresh
        `modal_ntk.kernels.ntk_head` on flat features.
    n_hidden : int, default=512
        Width of the default module.
    kind : {"pseudo", "trace"}, default="pseudo"
        Kernel, shared by all classes.
    method : {"auto", "explicit", "factored", "sketch"}, default="auto"
        How the kernel is computed.
    time : float or None, default=None
        Training time; None is the limit.
    rel_jitter : float, default=1e-6
        Jitter relative to the mean diagonal of the training kernel: more of it smooths.
    add_initial : bool, default=False
        Whether the outputs before training are part of the prediction.
    memory_budget : int, default=2**30
        Bytes for what is held beside the kernel.
    dtype : {"float64", "float32"}, default="float64"
        Type to compute in.
    random_state : int, generator or None, default=None
        Seed of the default module and of a sketch.

    Attributes
    ----------
    classes_ : numpy.ndarray (K,)
        Labels in the order of the columns.
    module_ : torch.nn.Module
        The module used.
    X_fit_ : Tensor (n, ...)
        Training samples.
    n_features_in_ : int
        Length of a flat sample, or of the first axis of any other.

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
    >>> NTKClassifier(random_state=0).fit(X, ["a", "a", "b", "b"]).predict([[0.0, 0.9]]).tolist()
    ['a']
    """

    def fit(self, X: Any, y: Any) -> NTKClassifier:
        """Keep training samples and labels; the kernel is solved when predicting.

        Parameters
        ----------
        X : array-like (n, ...)
            Samples.
        y : array-like (n,)
            Labels of any kind.

        Returns
        -------
        NTKClassifier
            Itself.
        """
        samples = _samples(X)
        check_classification_targets(y)
        labels = checks.check_labels(column_or_1d(y, warn=True), len(samples))
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        self._fit_to(samples, np.eye(len(self.classes_))[numbers])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the regression's output for each class.

        Parameters
        ----------
        X : array-like (m, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (m, K), or (m,) for two classes
            One near the class of a sample and zero elsewhere; for two classes, the difference of the two.
        """
        out = self._outputs(X)
        return out[:, 1] - out[:, 0] if out.shape[1] == 2 else out

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels; of equal outputs, the lower class.

        Parameters
        ----------
        X : array-like (m, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (m,)
            Labels.
        """
        best = self._outputs(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the softmax of the outputs.

        Parameters
        ----------
        X : array-like (m, ...)
            Samples.

        Returns
        -------
        numpy.ndarray (m, K)
            Rows that sum to one. Outputs are regressed on zeros and ones, so these rank classes well and
            are far less certain than a network trained on the cross-entropy.
        """
        return torch.from_numpy(self._outputs(X)).softmax(1).numpy()


class _Machine:
    """Module, training samples and targets, and the regression between them."""

    def __init__(self, options: _KernelMachine, samples: np.ndarray, targets: Tensor) -> None:
        rng = checks.check_random_state(options.random_state)
        self.options = options
        self.dtype = _DTYPES[checks.check_choice("dtype", options.dtype, tuple(_DTYPES))]
        self.seed = int(rng.integers(2**31))
        module = options.module
        if module is None:
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            flat, n_outputs = int(np.prod(samples.shape[1:])), targets.shape[1]
            head = ntk_head(flat, options.n_hidden, n_outputs, generator=generator, dtype=self.dtype)
            module = nn.Sequential(nn.Flatten(), head)
        self.module = module
        self.x = self._tensor(samples)
        self.targets = targets.to(torch.float64)
        self.train = self._kernel(self.x, None)

    def outputs(self, samples: np.ndarray) -> Tensor:
        o, x = self.options, self._tensor(samples)
        initial = {"f0_test": self._initial(x), "f0_train": self._initial(self.x)} if o.add_initial else {}
        targets, cross = self.targets.to(self.train.device), self._kernel(x, self.x)
        return ntk_regression(self.train, cross, targets, time=o.time, rel_jitter=o.rel_jitter, **initial)

    def _kernel(self, x1: Tensor, x2: Tensor | None) -> Tensor:
        o = self.options
        checks.check_choice("kind", o.kind, ("pseudo", "trace"))
        return empirical_ntk(
            self.module, x1, x2, kind=o.kind, method=o.method, memory_budget=o.memory_budget, dtype=self.dtype,
            random_state=self.seed,
        )  # fmt: skip

    def _initial(self, x: Tensor) -> Tensor:
        net = FunctionalNet(self.module, self.dtype)
        with net.evaluating():
            return net.logits(net.batch(x)).to(torch.float64)

    def _tensor(self, samples: np.ndarray) -> Tensor:
        return torch.from_numpy(samples).to(self.dtype)


def _samples(X: Any) -> np.ndarray:
    return check_array(X, allow_nd=True, dtype=[np.float64, np.float32])
