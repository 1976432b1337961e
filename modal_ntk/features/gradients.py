"""Per-sample gradients of a network's loss: lengths, products with a direction, sums, sketches; never (n, p)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.cotangents import Combined
from modal_ntk.features.directional import Direction, Directional, added, by_forward_mode, in_parts_if_known
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.loss_gradients import Loss, LossGradients
from modal_ntk.features.samples import by_sample
from modal_ntk.features.sketches import seeds_of, sketch
from modal_ntk.nets.room import in_parts


def loss_gradient_norms(
    module: nn.Module,
    x: Any,
    labels: Any,
    *,
    loss: Loss = "cross_entropy",
    memory_budget: int = 2**30,
    dtype: torch.dtype | None = None,
    verify: bool = True,
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
    verify : bool, default=True
        Whether every batch is compared with plain backward passes, and samples are checked not to depend on one
        another.

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
    gradients = LossGradients(module, loss=loss, memory_budget=memory_budget, dtype=dtype, verify=verify)
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
    verify: bool = True,
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
    verify : bool, default=True
        Whether every batch is compared with plain backward passes, and samples are checked not to depend on one
        another.

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
    gradients = LossGradients(module, loss=loss, dtype=dtype, verify=verify)
    samples = gradients.net.batch(x)
    labels = by_sample("labels", labels, len(samples))
    with gradients.evaluating():
        starts = range(0, max(1, len(samples)), batch_size)  # no samples make one part
        return functools.reduce(
            added, (gradients.sum(samples[i : i + batch_size], labels[i : i + batch_size]) for i in starts)
        )


def loss_gradient_products(
    module: nn.Module,
    x: Any,
    labels: Any,
    direction: Direction,
    *,
    loss: Loss = "cross_entropy",
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
    verify: bool = True,
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
    verify : bool, default=True
        Whether every batch is compared with plain backward passes, and samples are checked not to depend on one
        another.

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
    gradients = LossGradients(module, loss=loss, dtype=dtype, verify=verify)
    net = gradients.net
    samples = net.batch(x)
    labels = by_sample("labels", labels, len(samples))
    if set(direction) != set(net.parameters):
        remedy = "Take one from loss_gradient_sum."
        raise checks.expected("a direction for every trainable parameter", f"{sorted(direction)}", remedy)
    tangent, pass_ = net.direction(direction), Directional(net, verify=verify)

    def product(start: int, stop: int) -> Tensor:
        logits, change = pass_.pushed(samples[start:stop], tangent, by_forward_mode)
        return (gradients.residuals(labels[start:stop])(logits) * change).sum(1)

    if not len(samples):
        return torch.zeros(0, dtype=net.held_dtype, device=net.device)
    with net.evaluating():
        found = in_parts_if_known(product, len(samples), batch_size, "forward-mode derivative")
        return gradients.products(samples, direction, labels) if found is None else found


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
    verify: bool = True,
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
    verify : bool, default=True
        Whether every batch is compared with plain backward passes, and samples are checked not to depend on one
        another.

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
    budget = checks.check_integer("memory_budget", memory_budget)
    net = FunctionalNet(module, dtype)
    every = Combined(net.batch(x), kind, signs, labels)
    seeds = seeds_of(net.parameters, seed)
    with net.evaluating():
        routes = Routes(net, every.x, verify=verify)

        def projected(start: int, stop: int) -> Tensor:
            part = every[start:stop]
            gradients = routes.gradients(part.x, part.weights)
            features = gradients.recording.logits.new_zeros(stop - start, size)
            for name in gradients.names:
                features += sketch(gradients.factor(name, joint=True), size, seeds[name], keep_small=False)
            return features

        step = max(1, budget // max(1, routes.bytes_per_direction))
        return torch.cat(list(in_parts(projected, len(every), step)))
