"""WAAL's training: a skorch classifier whose features learn against a critic of labelled and unlabelled samples."""

from __future__ import annotations

import inspect
import warnings
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils.metadata_routing import UNUSED
from skorch.callbacks import PassthroughScoring
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, POSITIVE, Constraints, Interval, Options
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets.encoded import attached, classes_for, numbers_of
from modal_ntk.nets.waal.critic_parts import TwoLayerCritic, TwoLayerHead
from modal_ntk.nets.waal.critic_training import CriticTraining
from modal_ntk.nets.waal.schedule import LRDecay, StopAtBest


class WAALClassifier(CriticTraining):
    """Skorch classifier of three parts, feature extractor, head and critic, trained as WAAL trains.

    The critic learns to tell unlabelled from labelled samples by their features, the features learn to be
    told apart less and to be classified. Unlabelled samples come with the call, ``fit(X, y, X_unlabeled=pool)``,
    also through ``learner.teach(X, y, X_unlabeled=pool)``. Without any it trains as a plain classifier.

    Parameters
    ----------
    module : torch.nn.Module class or instance
        The feature extractor, from samples to features of any shape; its parameters are ``module__*``. A class is
        made anew by every ``fit``, as the paper trains; an instance goes on from its weights.
    head : torch.nn.Module class or instance, default=TwoLayerHead
        From flat features to logits; ``head__*``. The default is given the sizes itself, other classes take theirs
        from ``head__*``.
    critic : torch.nn.Module class or instance, default=TwoLayerCritic
        From flat features to values in [0, 1], (n,) or (n, 1); ``critic__*`` as for the head.
    n_features : int or None, default=None
        Width of the flat features, for the default parts; None finds it by sending one sample through.
    unlabeled : samples (u, ...) or None, default=None
        Unlabelled samples for every fit that is not given ``X_unlabeled``: for loops and searches that pass
        none on. As a parameter it is copied by ``clone`` and kept by ``pickle``; the argument is neither.
    mu : float, default=1e-2
        Trade-off between cross-entropy and the adversarial term (the paper: 1e-2; 1e-3 for STL-10). With 0 the
        features learn from labels alone, and the critic from the features.
    n_instances : int, default=0
        B of the paper, the size of the query to come, which enters the weight C0; 0 is the limit of small queries.
    equation : {7, 8}, default=7
        The paper's equation whose C0 weighs the labelled batch; the two differ by the factor U/L, see
        `waal_coefficients`.
    critic_weight : float or None, default=1.0
        Weight of what the critic itself descends. None is mu', as algorithm 1 has it: the critic's steps are then
        so much smaller that it stays where it began. ``critic_optimizer__lr`` is its rate beside this.
    penalty : float, default=2.0
        Weight of the gradient penalty beside the transport term in what the critic minimises; the paper gives
        none, 2 is the size in the authors' code.
    h_divergence : bool, default=False
        Whether the critic is a discriminator trained by its log-likelihood instead: the paper's ablation.
    official_code : bool, default=False
        Train as the authors' code does, to reproduce it: see Notes.
    lr_decay : tuple of (float, float), default=((0.5, 0.1), (0.75, 0.01))
        From which share of ``max_epochs`` on, and what fraction of ``lr`` then holds.
    patience : int or None, default=10
        Epochs without a lower validation loss after which training stops, to return to the best epoch. Acts where
        there is a validation set, that is with a ``train_split``; None switches it off.
    momentum : float, default=0.5
        Of the three optimisers where they are SGD (the paper: 0.5; 0.3 for CIFAR-10 and STL-10).
    criterion, optimizer, lr, max_epochs, batch_size, train_split, classes
        As in skorch, with the paper's values for defaults. ``optimizer__*`` holds for all three optimisers,
        ``head_optimizer__*`` and ``critic_optimizer__*`` for one. `classes` should be given where the first labels
        may lack some.
    **kwargs
        Everything else that skorch knows.

    Attributes
    ----------
    module_ : torch.nn.Module
        Extractor and head as one classifier (``module_.extractor``, ``module_.head``).
    critic_ : torch.nn.Module
        The critic.
    critic_is_trained_ : bool
        Whether the critic has met unlabelled samples since the net was made.
    coefficients_ : Coefficients
        mu' and C0 of the latest training against a critic.
    history : skorch.History
        ``train_loss`` is the cross-entropy; ``critic_loss`` what the critic minimised, ``transport`` the mean critic
        value of unlabelled less that of labelled samples, ``critic_auc`` the area under the ROC curve by which it
        tells the two batches apart, 0.5 for a critic that has learnt nothing; ``penalty`` the gradient penalty
        before its weight.

    Notes
    -----
    Shui, Zhou, Gagne, Wang, "Deep Active Learning: Unified and Principled Method for Query and Training" (2020),
    equations 7 and 8, algorithm 1. A step on 64 labelled samples, drawn with replacement, and 64 unlabelled ones:
    extractor and head descend cross-entropy + mu' T with the critic frozen, T being the transport objective; then
    the critic, on the same features, descends critic_weight (-T + penalty * P). An epoch sees every unlabelled
    sample once.

    ``official_code=True``: mu' = mu, which weighs the critic's own step too, and C0 = L/U; the penalty is
    subtracted, which rewards its violation; its points include both batches; the critic sees features computed
    anew; pairs are fixed; no decay and no early stopping. The labelled and the unlabelled
    batch pass through the extractor one after the other, so that BatchNorm sees them apart.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
    >>> y = (X[:30, 0] > 0).astype("int64")
    >>> extractor = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    >>> net = WAALClassifier(extractor, classes=[0, 1], max_epochs=2, verbose=0)
    >>> net = net.fit(X[:30], y, X_unlabeled=X[30:])
    >>> net.predict(X).shape, net.critic_is_trained_
    ((90,), True)
    """

    told_ = False
    names_: np.ndarray | None = None
    _numbers_only = False
    _parameter_constraints: ClassVar[Constraints] = {
        "mu": [NOT_NEGATIVE],
        "penalty": [NOT_NEGATIVE],
        "n_instances": [Interval(Integral, 0, None, closed="left")],
        "equation": [Options(Integral, {7, 8})],
        "critic_weight": [POSITIVE, None],
        "patience": [COUNT, None],
        "h_divergence": ["boolean"],
        "official_code": ["boolean"],
    }
    # Left to skorch, whose own method takes any argument of `fit`: what the module's forward is given, too.
    if hasattr(CriticTraining, "set_fit_request"):
        __metadata_request__fit = {"X_unlabeled": UNUSED}
        __metadata_request__partial_fit = {"X_unlabeled": UNUSED}

    def __init__(
        self,
        module: Any,
        *,
        head: Any = TwoLayerHead,
        critic: Any = TwoLayerCritic,
        n_features: int | None = None,
        unlabeled: Any = None,
        mu: float = 1e-2,
        n_instances: int = 0,
        equation: Literal[7, 8] = 7,
        critic_weight: float | None = 1.0,
        penalty: float = 2.0,
        h_divergence: bool = False,
        official_code: bool = False,
        lr_decay: Any = ((0.5, 0.1), (0.75, 0.01)),
        patience: int | None = 10,
        momentum: float = 0.5,
        criterion: Any = nn.CrossEntropyLoss,
        lr: float = 0.01,
        max_epochs: int = 80,
        batch_size: int = 64,
        train_split: Any = None,
        classes: Any = None,
        **kwargs: Any,
    ) -> None:
        # Before skorch's own, which from then on takes an assigned module for one made by `initialize`.
        self.head = head
        self.critic = critic
        self.n_features = n_features
        self.unlabeled = unlabeled
        self.mu = mu
        self.n_instances = n_instances
        self.equation = equation
        self.critic_weight = critic_weight
        self.penalty = penalty
        self.h_divergence = h_divergence
        self.official_code = official_code
        self.lr_decay = lr_decay
        self.patience = patience
        self.momentum = momentum
        options = {"lr": lr, "max_epochs": max_epochs, "batch_size": batch_size, **kwargs}
        super().__init__(module, criterion=criterion, train_split=train_split, classes=classes, **options)

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        names = ("critic_loss", "transport", "critic_auc", "penalty")
        scores = [(n, PassthroughScoring(n, on_train=True)) for n in names]
        *others, log = super()._default_callbacks
        if self.official_code:
            return [*others, *scores, log]
        return [*others, *scores, ("lr_decay", LRDecay(self.lr_decay)), log, ("patience", StopAtBest(self.patience))]

    def fit(self, X: Any, y: Any = None, *, X_unlabeled: Any = None, **fit_params: Any) -> WAALClassifier:
        """Start anew and train.

        Parameters
        ----------
        X : samples (n, ...)
            Labelled samples, as skorch takes them.
        y : array-like (n,)
            Their classes, 0 to C-1, or names, which are numbered.
        X_unlabeled : samples (u, ...) or None, default=None
            Unlabelled samples of the same kind; None takes the parameter `unlabeled`.
        **fit_params
            As in skorch.

        Returns
        -------
        WAALClassifier
            Itself.

        Raises
        ------
        InvalidInputError
            If a parameter or the unlabelled samples cannot be used.

        Warns
        -----
        ModalNTKWarning
            Once for each net, if there are no unlabelled samples.
        """
        checks.check_parameters(self)
        if not (self.warm_start and self.initialized_):
            self.names_ = None
        X, y = self._numbered(X, y)
        self._note_example(X, y)
        return super().fit(X, y, X_unlabeled=X_unlabeled, **fit_params)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, *, X_unlabeled: Any = None, **fit_params: Any
    ) -> WAALClassifier:
        """Train on from where the net is.

        Parameters
        ----------
        X : samples (n, ...)
            Labelled samples.
        y : array-like (n,)
            Their classes.
        classes : array-like, optional
            Not read; as in skorch.
        X_unlabeled : samples (u, ...) or None, default=None
            As in `fit`.
        **fit_params
            As in skorch.

        Returns
        -------
        WAALClassifier
            Itself.
        """
        checks.check_parameters(self)
        X, y = self._numbered(X, y)
        if not self.initialized_:
            self._note_example(X, y)
        self.unlabeled_set_ = self._unlabeled_set(X, X_unlabeled)
        self._numbers_only = True  # scores taken while it trains are of numbers
        try:
            super().partial_fit(X, y, classes, **fit_params)
            self.critic_is_trained_ |= self.unlabeled_set_ is not None and self._critic_weight > 0
        finally:
            self.unlabeled_set_ = None  # the net keeps no pool
            self._numbers_only = False
        return self

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the outputs."""
        return np.asarray(super().classes_) if self.names_ is None else self.names_

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of the most probable class of every sample.

        Parameters
        ----------
        X : samples (n, ...)
            As skorch takes them.

        Returns
        -------
        numpy.ndarray (n,)
            Numbers, or the names it was taught by.
        """
        numbers = super().predict(X)
        return numbers if self.names_ is None or self._numbers_only else self.names_[numbers]

    def _numbered(self, X: Any, y: Any) -> tuple[Any, Any]:
        # Labels that are no numbers are numbered here, and named again by `predict`.
        if y is None or np.asarray(y.cpu() if isinstance(y, Tensor) else y).dtype.kind in "iuf":
            return X, y
        labels = checks.check_labels(y, checks.n_rows(X))
        if labels.dtype.kind in "iuf":
            return X, labels
        if self.names_ is None:
            self.names_ = classes_for(self, labels)
        return attached(self, X, numbers_of(labels, self.names_))

    def set_params(self, **kwargs: Any) -> WAALClassifier:
        """Set parameters, as in skorch; ``lr`` reaches all three optimisers of an initialised net.

        Parameters
        ----------
        **kwargs
            Values by name.

        Returns
        -------
        WAALClassifier
            Itself.
        """
        super().set_params(**kwargs)
        if "lr" in kwargs and self.initialized_:
            for name in {"head_optimizer", "critic_optimizer"} & set(self._optimizers):
                if "lr" not in self.get_params_for(name):
                    for group in getattr(self, name + "_").param_groups:
                        group["lr"] = kwargs["lr"]
        return self

    def get_params(self, deep: bool = True, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters; a request of metadata, which skorch 1.2 would count among them, is none."""
        params = super().get_params(deep=deep, **kwargs)
        return {name: value for name, value in params.items() if name != "_metadata_request"}

    def _check_together(self) -> None:
        step = getattr(self.optimizer, "step", None)
        closure = None if step is None else inspect.signature(step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            remedy = "Use SGD or Adam: features and critic take turns, so no closure of one loss can be called again."
            raise checks.expected("an optimizer that steps without a closure", self.optimizer.__name__, remedy)

    def _unlabeled_set(self, X: Any, X_unlabeled: Any) -> Any:
        given = self.unlabeled if X_unlabeled is None else X_unlabeled
        if given is None or checks.n_rows(given) == 0:
            if not self.told_:
                self.told_ = True
                told = "no unlabelled samples, so it trains as a plain classifier and the critic stays untrained"
                remedy = "Pass X_unlabeled=pool to fit or teach, or the parameter unlabeled."
                warnings.warn(f"{type(self).__name__} got {told}. {remedy}", ModalNTKWarning, stacklevel=3)
            return None
        given = checks.check_samples("X_unlabeled", given)
        checks.check_same_features(given, X)
        return self.get_dataset(given)
