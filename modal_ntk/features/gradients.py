"""Per-sample gradients of a network's loss: lengths, products with a direction, sums, sketches; never (n, p)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.features.cotangents import class_numbers, cotangents
from modal_ntk.features.factors import products, squared_norms
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.per_sample import looped_gradients
from modal_ntk.features.routes import Routes, SampleGradients
from modal_ntk.features.samples import Samples
from modal_ntk.features.sketches import sketch


def loss_gradient_norms(
    module: nn.Module, x: Any, labels: Any, *, memory_budget: int = 2**30, dtype: torch.dtype | None = None
) -> Tensor:
    """Compute the length of the gradient of each sample's cross-entropy.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples.
    labels : array-like (n,)
        Class numbers, true or pseudo.
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
    net = FunctionalNet(module, dtype)
    out = []
    with net.evaluating():
        routes = Routes(net, net.batch(x))
        for gradients in _loss_gradients(net, routes, net.batch(x), labels, memory_budget):
            squares = [squared_norms(gradients.factor(name, joint=True)) for name in routes.names()]
            out.append(torch.stack(squares).sum(0).sqrt())
    return torch.cat(out)


def loss_gradient_sum(
    module: nn.Module, x: Any, labels: Any, *, batch_size: int = 512, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Compute the gradient of the cross-entropy summed over samples.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples; none of them give zero.
    labels : array-like (n,)
        Class numbers.
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
    net = FunctionalNet(module, dtype)
    samples = net.batch(x)
    total = {name: torch.zeros_like(p) for name, p in net.parameters.items()}
    with net.evaluating(), torch.enable_grad():
        for start in range(0, len(samples), batch_size):
            leaves = net.leaves()
            logits = net(leaves, samples[start : start + batch_size])
            classes = class_numbers(labels[start : start + batch_size], logits)
            loss = F.cross_entropy(logits, classes, reduction="sum")
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    total[name] += gradient.detach()
    return total


def loss_gradient_products(
    module: nn.Module,
    x: Any,
    labels: Any,
    direction: dict[str, Tensor],
    *,
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute the inner product of the gradient of each sample's cross-entropy with one direction.

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
    net = FunctionalNet(module, dtype)
    samples = net.batch(x)
    if set(direction) != set(net.parameters):
        remedy = "Take one from loss_gradient_sum."
        raise checks.expected("a direction for every trainable parameter", f"{sorted(direction)}", remedy)
    tangent = {name: direction[name].to(p).reshape(p.shape) for name, p in net.parameters.items()}
    tangent = _without_padding(module, tangent)
    with net.evaluating():
        try:
            _prove_forward(net, samples, labels, tangent)
            return _forward_products(net, samples, labels, tangent, batch_size)
        except (NotImplementedError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
        message = f"No forward-mode derivative of this module ({reason}): per-sample gradients are taken instead."
        warnings.warn(message, ModalNTKWarning, stacklevel=2)
        routes = Routes(net, samples)
        out = []
        for gradients in _loss_gradients(net, routes, samples, labels, 2**30):
            parts = [products(gradients.factor(n, joint=True), tangent[n].flatten()) for n in routes.names()]
            out.append(torch.stack(parts).sum(0))
    return torch.cat(out)


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


def _prove_forward(net: FunctionalNet, samples: Samples, labels: Any, tangent: dict[str, Tensor]) -> None:
    # Two samples by plain autograd, as for every route.
    if len(samples) == 0:
        return
    pair, classes = samples[[0, -1]], [int(labels[0]), int(labels[-1])]
    got = _forward_products(net, pair, classes, tangent, 2)
    truth = looped_gradients(net, pair, cotangents("loss", net.logits(pair), None, classes), list(tangent))
    want = torch.stack([g[:, 0] @ tangent[name].flatten() for name, g in truth.items()]).sum(0)
    size = torch.stack([g.norm() * tangent[name].norm() for name, g in truth.items()]).sum()
    if not bool(((got - want).abs() <= 1e-3 * size).all()):
        raise RuntimeError("it differs from autograd")


def _forward_products(
    net: FunctionalNet, samples: Samples, labels: Any, tangent: dict[str, Tensor], batch_size: int
) -> Tensor:
    out = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        # With gradients enabled, for fused inference functions have no derivative of any mode.
        with torch.enable_grad(), forward_ad.dual_level(), warnings.catch_warnings():
            # Loading its forward-mode rules, torch warns of a function of its own.
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
            parameters = {name: forward_ad.make_dual(p, tangent[name]) for name, p in net.leaves().items()}
            logits = net(parameters, batch)
            classes = class_numbers(labels[start : start + batch_size], logits)
            losses = F.cross_entropy(logits, classes, reduction="none")
            found = forward_ad.unpack_dual(losses).tangent
            out.append(torch.zeros_like(losses).detach() if found is None else found.detach())
    return torch.cat(out)


def _loss_gradients(
    net: FunctionalNet, routes: Routes, samples: Samples, labels: Any, budget: int
) -> Iterator[SampleGradients]:
    for start, stop in _chunks(len(samples), routes, budget):
        batch = samples[start:stop]
        yield routes.gradients(batch, cotangents("loss", net.logits(batch), None, labels[start:stop]))


def _chunks(n: int, routes: Routes, budget: int) -> Iterator[tuple[int, int]]:
    step = max(1, checks.check_integer("memory_budget", budget) // max(1, routes.bytes_per_direction))
    for start in range(0, n, step):
        yield start, min(start + step, n)
