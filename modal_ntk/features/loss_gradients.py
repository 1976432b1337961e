"""The gradient of each sample's loss, read batch by batch: its length, its product with a direction, the sum."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.features.capture.routes import Routes, SampleGradients
from modal_ntk.features.cotangents import LOSSES, cotangents, given_labels, predicted_labels
from modal_ntk.features.directional import Direction, Directional, added
from modal_ntk.features.factors import norms_and_products, products, squared_norms
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.samples import Samples, by_sample
from modal_ntk.nets.room import in_parts

Loss = Literal["cross_entropy", "mse", "binary_cross_entropy"]
# Bytes that stay in a core's cache, and the least number of rows that repay the calls.
_CACHED, _FEW = 2**22, 8


class Measured(NamedTuple):
    """What one pass tells of a batch of n samples.

    Parameters
    ----------
    labels : Tensor (n,), int64
        The classes that the loss was taken against; zeros and ones (n, K) for several labels.
    squared_norms : Tensor (n,)
        Squared lengths of the loss gradients.
    products : Tensor (n,)
        Their products with the direction; zero if none was given.
    """

    labels: Tensor
    squared_norms: Tensor
    products: Tensor


class LossGradients:
    """Per-sample loss gradients of a module, without their (n, p) matrix.

    One forward and one backward pass over a batch give the lengths of all its gradients and their products with a
    direction. Use it inside `evaluating`, with one batch after another; nothing is kept between them.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K); read in evaluation mode, by those of
        its parameters that require gradients.
    loss : {"cross_entropy", "mse", "binary_cross_entropy"}, default="cross_entropy"
        What is differentiated: the cross-entropy, or half the squared error of the logits to the one-hot label; or the
        binary cross-entropy, summed over the K labels of a sample.
    explicit : bool, default=False
        Whether per-sample gradients are written out, by BackPACK where it is proved and `torch.func` elsewhere.
    memory_budget : int, default=2**30
        Bytes for what is held beside module and results; batches are taken in parts to keep to it.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.
    verify : bool, default=True
        Whether gradients are compared with plain autograd on every batch; otherwise on two samples alone.

    Attributes
    ----------
    routes : Routes or None
        How each parameter is served, settled on the first batch measured.

    Examples
    --------
    >>> gradients = LossGradients(nn.Linear(2, 2, bias=False))
    >>> with gradients.evaluating():
    ...     measured = gradients.measure(torch.zeros(3, 2), labels=[0, 1, 1])
    >>> measured.squared_norms
    tensor([0., 0., 0.])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        loss: Loss = "cross_entropy",
        explicit: bool = False,
        memory_budget: int = 2**30,
        dtype: torch.dtype | None = None,
        verify: bool = True,
    ) -> None:
        self._kind = LOSSES[checks.check_choice("loss", loss, LOSSES)]
        self._budget = checks.check_integer("memory_budget", memory_budget)
        self._explicit, self._verify = explicit, verify
        self.net = FunctionalNet(module, dtype)
        self.routes: Routes | None = None

    def evaluating(self) -> AbstractContextManager[None]:
        """Context in which the module is in evaluation mode, to be left as found."""
        return self.net.evaluating()

    def measure(self, batch: Any, direction: Direction | None = None, labels: Any = None) -> Measured:
        """Measure the loss gradients of a batch.

        Parameters
        ----------
        batch : Tensor (n, ...), or dict of them by argument
            Samples, on any device.
        direction : dict of str to Tensor, optional
            By trainable parameter, in its shape.
        labels : array-like (n,), optional
            Class numbers; by default those that the module predicts, the lowest where several tie. Zeros and ones
            (n, K) for the binary cross-entropy; by default a one for each positive logit.

        Returns
        -------
        Measured
            Labels, squared lengths and products.
        """
        samples = self.net.batch(batch)
        labels = by_sample("labels", labels, len(samples))
        if direction is not None:
            direction = self.net.direction(direction)
        parts = self._in_parts(lambda i, j: self._measured(samples[i:j], direction, labels, i), samples)
        return Measured(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def products(self, batch: Any, direction: Direction, labels: Any) -> Tensor:
        """Return products (n,) of the loss gradients of a batch with a direction."""
        samples = self.net.batch(batch)
        labels, direction = by_sample("labels", labels, len(samples)), self.net.direction(direction)

        def product(start: int, stop: int) -> Tensor:
            gradients = self._gradients(samples[start:stop], labels[start:stop])[0]
            return self._summed(gradients, lambda f, v: (products(f, v),), direction, stop - start)[0]

        return torch.cat(list(self._in_parts(product, samples)))

    def sum(self, batch: Any, labels: Any) -> Direction:
        """Return the loss gradient summed over a batch, by parameter in its shape."""
        samples = self.net.batch(batch)
        labels = by_sample("labels", labels, len(samples))
        if not len(samples):
            nothing = {name: torch.zeros_like(p, dtype=self.net.held_dtype) for name, p in self.net.parameters.items()}
            return self.net.in_own_shapes(nothing)
        pass_ = Directional(self.net, verify=self._verify)

        def part(start: int, stop: int) -> Direction:
            return pass_.pulled_back(samples[start:stop], self.residuals(labels[start:stop]))

        return self.net.in_own_shapes(functools.reduce(added, in_parts(part, len(samples), len(samples))))

    def residuals(self, labels: Any) -> Callable[[Tensor], Tensor]:
        """Return what makes of logits (n, K) the derivative of each sample's loss by them (n, K), against labels."""
        return lambda logits: cotangents(self._kind, logits, None, labels)[:, 0]

    def _in_parts(self, work: Callable[[int, int], Any], samples: Samples) -> Iterator[Any]:
        if self.routes is None:
            self.routes = Routes(self.net, samples, explicit=self._explicit, verify=self._verify)
        step = max(1, self._budget // max(1, self.routes.bytes_per_direction))
        return in_parts(work, len(samples), step)

    def _measured(self, samples: Samples, direction: Direction | None, labels: Any, start: int) -> Measured:
        given = None if labels is None else labels[start : start + len(samples)]
        gradients, classes = self._gradients(samples, given)
        if direction is None:
            norms = self._summed(gradients, lambda f, _: (squared_norms(f),), self.net.parameters, len(samples))
            return Measured(classes, norms[0], torch.zeros_like(norms[0]))
        return Measured(classes, *self._summed(gradients, norms_and_products, direction, len(samples)))

    def _gradients(self, samples: Samples, labels: Any) -> tuple[SampleGradients, Tensor]:
        assert self.routes is not None  # settled by _in_parts
        seen: list[Tensor] = []

        def weights(logits: Tensor) -> Tensor:
            given = None if labels is None else given_labels(self._kind, labels, logits)
            seen.append(predicted_labels(self._kind, logits) if given is None else given)
            return cotangents(self._kind, logits, None, seen[-1])

        return self.routes.gradients(samples, weights), seen[0]

    def _summed(self, gradients: SampleGradients, measure: Any, direction: Direction, n: int) -> Tensor:
        assert self.routes is not None
        parts = []
        for name in gradients.names:
            vector = direction[name].to(self.net.held_dtype).flatten()
            # So few rows that on a processor what is made of them stays in its cache; a graphics card wants them all.
            size = self.routes.bytes_by_name.get(name, 0) if self.net.device.type == "cpu" else 0
            step = max(_FEW, _CACHED // size) if size else n
            blocks = (gradients.factor(name, joint=True, rows=slice(i, i + step)) for i in range(0, n, step))
            parts.append(torch.cat([torch.stack(measure(block, vector)) for block in blocks], 1))
        none = torch.zeros(2, n, dtype=self.net.held_dtype, device=self.net.device)
        return torch.stack(parts).sum(0) if parts else none
