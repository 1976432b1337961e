"""Per-sample gradients of a network's loss: lengths, products with a direction, sums, sketches; never (n, p)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.features.cotangents import LOSSES, cotangents
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.loss_gradients import Direction, Loss, LossGradients
from modal_ntk.features.per_sample import looped_gradients
from modal_ntk.features.routes import Routes
from modal_ntk.features.samples import Samples
from modal_ntk.features.sketches import sketch


def loss_gradient_norms(
    module: nn.Module,
    x: Any,
    labels: Any,
    *,
    loss: Loss = "cross_entropy",
    memory_budget: int = 2**30,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute the length of the gradient of each sample's loss.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples.
    labels : array-like (n,)
        Class numbers, true or pseudo.
    loss : {"cross_entropy", "mse"}, default="cross_entropy"
        The cross-entropy, or half the squared error of the logits to the one-hot label.
    memory_budget : int, default=2**30
        Bytes for what is held beside module and result.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.

    Returns
    -------
    Tensor (n,)
        Euclidean lengths over all trainable parameters.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> loss_gradient_norms(nn.Sequential(net, nn.Flatten()), torch.zeros(1, 1), [0])
    tensor([0.])
    """
    gradients = LossGradients(module, loss=loss, memory_budget=memory_budget, dtype=dtype)
    with gradients.evaluating():
        return gradients.measure(x, labels=labels).squared_norms.sqrt()


def loss_gradient_sum(
    module: nn.Module,
    x: Any,
    labels: Any,
    *,
    loss: Loss = "cross_entropy",
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> Direction:
    """Compute the gradient of the loss summed over samples.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples; none of them give zero.
    labels : array-like (n,)
        Class numbers.
    loss : {"cross_entropy", "mse"}, default="cross_entropy"
        The cross-entropy, or half the squared error of the logits to the one-hot label.
    batch_size : int, default=512
        Samples taken at once.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.

    Returns
    -------
    dict of str to Tensor
        By trainable parameter, in its shape.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> loss_gradient_sum(net, torch.zeros(3, 1), [0, 1, 1])["weight"].tolist()
    [[0.0], [0.0]]
    """
    gradients = LossGradients(module, loss=loss, dtype=dtype)
    total = {name: torch.zeros_like(p) for name, p in gradients.net.parameters.items()}
    samples = gradients.net.batch(x)
    with gradients.evaluating():
        for start in range(0, len(samples), batch_size):
            part = gradients.sum(samples[start : start + batch_size], labels[start : start + batch_size])
            for name, gradient in part.items():
                total[name] += gradient
    return total


def loss_gradient_products(
    module: nn.Module,
    x: Any,
    labels: Any,
    direction: Direction,
    *,
    loss: Loss = "cross_entropy",
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute the inner product of the gradient of each sample's loss with one direction.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples.
    labels : array-like (n,)
        Class numbers, true or pseudo.
    direction : dict of str to Tensor
        By trainable parameter, in its shape, as `loss_gradient_sum` returns.
    loss : {"cross_entropy", "mse"}, default="cross_entropy"
        The cross-entropy, or half the squared error of the logits to the one-hot label.
    batch_size : int, default=512
        Samples taken at once.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.

    Returns
    -------
    Tensor (n,)
        How fast each sample's loss grows along the direction.

    Warns
    -----
    ModalNTKWarning
        If the module has no forward-mode derivative, and the products are made from per-sample gradients instead.

    Notes
    -----
    One forward-mode pass gives a whole batch, at the cost of about two forward passes.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> x, y = torch.ones(2, 1), [0, 1]
    >>> total = loss_gradient_sum(net, x, y)
    >>> products = loss_gradient_products(net, x, y, total)
    >>> torch.allclose(products.sum(), total["weight"].square().sum())
    True
    """
    gradients = LossGradients(module, loss=loss, dtype=dtype)
    net = gradients.net
    samples = net.batch(x)
    if set(direction) != set(net.parameters):
        remedy = "Take one from loss_gradient_sum."
        raise checks.expected("a direction for every trainable parameter", f"{sorted(direction)}", remedy)
    tangent = {name: direction[name].to(p).reshape(p.shape) for name, p in net.parameters.items()}
    forward = _Forward(net, LOSSES[loss], _without_padding(module, tangent))
    with net.evaluating():
        try:
            forward.prove(samples, labels)
            parts = range(0, len(samples), batch_size)
            out = [forward.products(samples[i : i + batch_size], labels[i : i + batch_size]) for i in parts]
            return torch.cat(out) if out else torch.zeros(0, dtype=net.dtype, device=net.device)
        except (NotImplementedError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
        message = f"No forward-mode derivative of this module ({reason}): per-sample gradients are taken instead."
        warnings.warn(message, ModalNTKWarning, stacklevel=2)
        return gradients.products(samples, tangent, labels)


def gradient_sketch(
    module: nn.Module,
    x: Any,
    dim: int,
    *,
    kind: str = "pseudo",
    signs: Any = None,
    labels: Any = None,
    memory_budget: int = 2**30,
    dtype: torch.dtype | None = None,
    random_state: Any = None,
) -> Tensor:
    """Project per-sample gradients to a few features whose inner products are the kernel's on average.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples.
    dim : int
        Number of features.
    kind : {"pseudo", "labelled", "loss"}, default="pseudo"
        What is differentiated, as in `modal_ntk.kernels.empirical_ntk`.
    signs : Tensor (n, K), optional
        For "labelled", weights of the outputs.
    labels : array-like (n,), optional
        Class numbers, for "labelled" and "loss".
    memory_budget : int, default=2**30
        Bytes for what is held beside module and result.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.
    random_state : int, generator or None, default=None
        Seed: features of one seed, module and `dim` are comparable, also between calls.

    Returns
    -------
    Tensor (n, dim)
        Features.

    Notes
    -----
    Every parameter's gradient is projected on its own and the projections are added up, so cross terms between
    parameters vanish only on average; the kernel's own sketch keeps parameters apart and errs less.

    Examples
    --------
    >>> gradient_sketch(nn.Linear(3, 2), torch.ones(4, 3), 5, random_state=0).shape
    torch.Size([4, 5])
    """
    checks.check_choice("kind", kind, ("pseudo", "labelled", "loss"))
    size = checks.check_integer("dim", dim)
    seed = int(checks.check_random_state(random_state).integers(2**31))
    net = FunctionalNet(module, dtype)
    samples = net.batch(x)
    out = []
    with net.evaluating():
        routes = Routes(net, samples)
        for start, stop in _chunks(len(samples), routes, memory_budget):
            part = samples[start:stop]
            logits = net.logits(part)
            chosen = [None if v is None else v[start:stop] for v in (signs, labels)]
            gradients = routes.gradients(part, cotangents(kind, logits, chosen[0], chosen[1]))
            features = logits.new_zeros(len(part), size)
            for number, name in enumerate(routes.names()):
                features += sketch(gradients.factor(name, joint=True), size, seed + number, keep_small=False)
            out.append(features)
    return torch.cat(out)


def _without_padding(module: nn.Module, tangent: dict[str, Tensor]) -> dict[str, Tensor]:
    # The padding line of a table has no gradient backward, but torch's forward mode knows nothing of that.
    tables: dict[int, Any] = {id(p.weight): p.padding_idx for p in module.modules() if _is_padded(p)}
    out = dict(tangent)
    for name, parameter in module.named_parameters():
        if name in out and id(parameter) in tables:
            out[name] = out[name].clone()
            out[name][tables[id(parameter)]] = 0
    return out


def _is_padded(part: nn.Module) -> bool:
    return isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None


class _Forward:
    # Products by forward-mode differentiation of the logits along one direction.
    def __init__(self, net: FunctionalNet, kind: str, tangent: Direction) -> None:
        self.net, self.kind, self.tangent = net, kind, tangent

    def products(self, batch: Samples, labels: Any) -> Tensor:
        # With gradients enabled, for fused inference functions have no derivative of any mode.
        with torch.enable_grad(), forward_ad.dual_level(), warnings.catch_warnings():
            # Loading its forward-mode rules, torch warns of a function of its own.
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
            duals = {name: forward_ad.make_dual(p, self.tangent[name]) for name, p in self.net.leaves().items()}
            logits, change = forward_ad.unpack_dual(self.net(duals, batch))
        residuals = cotangents(self.kind, logits.detach(), None, labels)[:, 0]
        return residuals.sum(1) * 0 if change is None else (residuals * change.detach()).sum(1)

    def prove(self, samples: Samples, labels: Any) -> None:
        # Two samples by plain autograd, as for every route.
        if len(samples) == 0:
            return
        pair, classes = samples[[0, -1]], [int(labels[0]), int(labels[-1])]
        got = self.products(pair, classes)
        weights = cotangents(self.kind, self.net.logits(pair), None, classes)
        truth = looped_gradients(self.net, pair, weights, list(self.tangent))
        want = torch.stack([g[:, 0] @ self.tangent[name].flatten() for name, g in truth.items()]).sum(0)
        size = torch.stack([g.norm() * self.tangent[name].norm() for name, g in truth.items()]).sum()
        if not bool(((got - want).abs() <= 1e-3 * size).all()):
            raise RuntimeError("it differs from autograd")


def _chunks(n: int, routes: Routes, budget: int) -> Iterator[tuple[int, int]]:
    step = max(1, checks.check_integer("memory_budget", budget) // max(1, routes.bytes_per_direction))
    for start in range(0, n, step):
        yield start, min(start + step, n)
