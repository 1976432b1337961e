"""A skorch classifier of three parts, extractor, head and critic, and how one step trains them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.dataset import unpack_data
from skorch.utils import TeeGenerator, to_tensor
from torch import Tensor, nn
from torch.utils.data import default_collate

from modal_ntk import checks
from modal_ntk.nets.traceless import no_trace
from modal_ntk.nets.waal.adversarial import (
    divergence_objective,
    gradient_penalty,
    separation,
    transport_objective,
    waal_coefficients,
)
from modal_ntk.nets.waal.critic_parts import FeaturesAndHead, TwoLayerCritic, TwoLayerHead, flat
from modal_ntk.nets.waal.pairing import Pairs, PairSampler


class CriticTraining(NeuralNetClassifier):
    """What skorch calls back while `WAALClassifier` trains; parameters are declared there."""

    critic_layer = "extractor"
    """Name of the layer of ``module_`` whose flattened output the critic reads."""

    example_: Any = None
    n_classes_: int | None = None
    unlabeled_set_: Any = None
    critic_is_trained_ = False

    def initialize_module(self) -> CriticTraining:
        """Make extractor, head and critic."""
        extractor = self.initialized_instance(self.module, self.get_params_for("module"))
        self.module_ = FeaturesAndHead(extractor, self._part("head", extractor))
        self.head_ = self.module_.head  # a name of its own, so that `head__*` is known to skorch
        self.critic_ = self._part("critic", extractor)
        self.critic_is_trained_ = False
        return self

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> CriticTraining:  # noqa: ARG002
        """Make one optimiser for each part; criterion and modules that a subclass adds learn with the head.

        An extractor without parameters has none, and ``optimizer`` is the head's; nor has a head without any.
        """
        parts_of = (self.module_.extractor, self.critic_, self.head_)
        extractor, critic, head = (list(part.named_parameters()) for part in parts_of)
        known = {parameter for _, parameter in (*extractor, *critic, *head)}
        head += [(name, parameter) for name, parameter in self.get_all_learnable_params() if parameter not in known]
        parts = {"optimizer": extractor, "head_optimizer": head, "critic_optimizer": critic}
        if not extractor or not head:
            parts = {"optimizer": extractor or head, "critic_optimizer": critic}
        defaults = {"momentum": self.momentum} if self.optimizer is torch.optim.SGD else {}
        shared = {k: v for k, v in self.get_params_for("optimizer").items() if k != "param_groups"}
        for name, named in parts.items():
            groups, settings = self.get_params_for_optimizer(name, named)
            own = {k: settings[k] for k in settings if k != "lr" or "lr" in self.get_params_for(name)}
            setattr(self, name + "_", self.optimizer(*groups, **{"lr": self.lr, **defaults, **shared, **own}))
        return self

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        """Split as skorch does, and pair the training part with the unlabelled samples."""
        train, valid = super().get_split_datasets(X, y, **fit_params)
        if self.unlabeled_set_ is None:
            return train, valid
        sizes = len(train), len(self.unlabeled_set_), self.n_instances
        options = {"mu": self.mu, "equation": self.equation, "official_code": self.official_code}
        self.coefficients_ = waal_coefficients(*sizes, **options)
        return Pairs(train, self.unlabeled_set_), valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return a loader: of shuffled batches in training, of pairs where there are unlabelled samples."""
        if not training:
            return super().get_iterator(dataset)
        kwargs = {"batch_size": self.batch_size, "shuffle": True, **self.get_params_for("iterator_train")}
        if kwargs["batch_size"] == -1:
            kwargs["batch_size"] = len(dataset)
        if isinstance(dataset, Pairs):
            sizes = len(dataset.labeled), len(dataset.unlabeled), kwargs["batch_size"]
            kwargs.update(shuffle=False, sampler=PairSampler(*sizes, fixed=self.official_code))
        elif "sampler" in kwargs or "batch_sampler" in kwargs:
            del kwargs["shuffle"]
        return self.iterator_train(dataset, **kwargs)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take one step of features and head, then one of the critic."""
        paired = self.unlabeled_set_ is not None
        self._zero_grad_optimizer()
        if paired:
            step, *features = self._paired_gradients(batch, fit_params)
        else:
            step = self.train_step_single(batch, **fit_params)
        parameters = TeeGenerator(self.get_all_learnable_params())
        self.notify("on_grad_computed", named_parameters=parameters, batch=batch, training=True)
        for name in self._optimizers:
            if name != "critic_optimizer":
                getattr(self, name + "_").step()
        if paired:
            # The authors' code sends both batches through the extractor once more, after its step.
            self._critic_step(*(self._paired_features(batch, fit_params) if self.official_code else features))
        return step

    def _paired_gradients(self, batch: Any, fit_params: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor]:
        self._set_training(True)
        (x_labeled, x_unlabeled), y = unpack_data(batch)
        z_labeled = self._features(x_labeled, fit_params)
        z_unlabeled = self._features(x_unlabeled, fit_params)
        y_pred = self.head_(z_labeled)
        loss = self.get_loss(y_pred, y, X=x_labeled, training=True)
        with _frozen(self.critic_):
            adversarial = self._objective(self._judge(z_unlabeled), self._judge(z_labeled))
        (loss + self._adversarial_weight * adversarial).backward()
        return {"loss": loss.detach(), "y_pred": y_pred}, z_labeled.detach(), z_unlabeled.detach()

    @torch.no_grad()
    def _paired_features(self, batch: Any, fit_params: dict[str, Any]) -> tuple[Tensor, Tensor]:
        x_labeled, x_unlabeled = unpack_data(batch)[0]
        return self._features(x_labeled, fit_params), self._features(x_unlabeled, fit_params)

    def _critic_step(self, z_labeled: Tensor, z_unlabeled: Tensor) -> None:
        g_unlabeled, g_labeled = self._judge(z_unlabeled), self._judge(z_labeled)
        loss = -self._objective(g_unlabeled, g_labeled)
        noted = {"transport": transport_objective(g_unlabeled, g_labeled)}
        noted["critic_auc"] = separation(g_unlabeled, g_labeled)
        if not self.h_divergence:
            noted["penalty"] = gradient_penalty(self._judge, z_unlabeled, z_labeled, ends=self.official_code)
            # The authors' code has the other sign, by which the critic is paid for a slope unlike one.
            loss = loss + (-self.penalty if self.official_code else self.penalty) * noted["penalty"]
        noted["critic_loss"] = loss = self._critic_weight * loss
        loss.backward()
        self.critic_optimizer_.step()
        # One transfer from the device for all.
        for name, value in zip(noted, torch.stack(list(noted.values())).detach().tolist(), strict=True):
            self.history.record_batch(name, value)

    @property
    def _adversarial_weight(self) -> float:
        return self.mu if self.h_divergence else self.coefficients_.adversarial

    @property
    def _critic_weight(self) -> float:
        as_features = self.official_code or self.critic_weight is None
        return self._adversarial_weight if as_features else float(self.critic_weight)

    def _objective(self, g_unlabeled: Tensor, g_labeled: Tensor) -> Tensor:
        if self.h_divergence:
            return divergence_objective(g_unlabeled, g_labeled)
        return transport_objective(g_unlabeled, g_labeled, self.coefficients_.labeled)

    def _features(self, x: Any, fit_params: dict[str, Any]) -> Tensor:
        x = to_tensor(x, device=self.device)
        if isinstance(x, Mapping):
            return flat(self.module_.extractor(**self._merge_x_and_fit_params(x, fit_params)))
        return flat(self.module_.extractor(x, **fit_params))

    def _judge(self, z: Tensor) -> Tensor:
        return self.critic_(z).reshape(-1)

    def _note_example(self, X: Any, y: Any) -> None:
        # What the default parts must know of the data before the net is made: one sample, and the number of classes.
        if checks.n_rows(X) == 0:
            raise checks.expected("X to hold at least one sample", "none", "Label some at random first.")
        # Collated first, by which skorch says in words that an item is no pair.
        self.example_ = unpack_data(default_collate([self.get_dataset(X, y)[0]]))[0]
        self.n_classes_ = _count_classes(y)

    def _part(self, name: str, extractor: nn.Module) -> nn.Module:
        made, kwargs = getattr(self, name), self.get_params_for(name)
        if made not in (TwoLayerHead, TwoLayerCritic):
            return self.initialized_instance(made, kwargs)
        sizes: dict[str, Any] = {}
        if made is TwoLayerHead and "n_outputs" not in kwargs:
            n_classes = len(self.classes) if self.classes is not None else self.n_classes_
            if n_classes is None:
                remedy = "Pass classes=[0, 1, ...] when y is not at hand, and number the classes 0 to C-1."
                raise checks.expected("to know the number of classes", "neither classes nor integers in y", remedy)
            sizes["n_outputs"] = n_classes
        if "n_features" not in kwargs:
            sizes["n_features"] = self.n_features or self._width(extractor)
        dtype = next((p.dtype for p in extractor.parameters()), torch.float32)
        return made(**sizes, **kwargs).to(dtype)

    def _width(self, extractor: nn.Module) -> int:
        if self.example_ is None:
            remedy = "Pass n_features, or call fit, which knows the samples."
            raise checks.expected("to know the width of the features", "no sample", remedy)
        device = next((p.device for p in extractor.parameters()), "cpu")
        x = to_tensor(self.example_, device=device)
        with no_trace(extractor), torch.no_grad():
            extractor.eval()
            z = extractor(**x) if isinstance(x, Mapping) else extractor(x)
        return int(flat(z).shape[1])


def _count_classes(y: Any) -> int | None:
    labels = None if y is None else np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    return None if labels is None or labels.dtype.kind not in "iu" or labels.size == 0 else int(labels.max()) + 1


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    flags = [(p, p.requires_grad) for p in module.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
