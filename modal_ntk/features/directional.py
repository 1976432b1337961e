"""How a step along one direction of the parameters moves a network's logits, without any per-sample gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.samples import Samples


def kernel_times(
    module: nn.Module, x: Any, x_from: Any, weights: Any, *, batch_size: int = 512, dtype: torch.dtype | None = None
) -> Tensor:
    """Multiply the full tangent kernel between samples and others by weights on the others' outputs.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples whose logits are moved.
    x_from : Tensor (m, ...), or dict of them by argument
        Samples that move them.
    weights : Tensor (m, K)
        Weights of the outputs of `x_from`.
    batch_size : int, default=512
        Samples taken at once.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.

    Returns
    -------
    Tensor (n, K)
        The sum over j of Theta(x_i, x_j) weights_j, with Theta (K, K) the kernel of two samples.

    Notes
    -----
    The kernel is J J', so one backward pass makes J' weights, a direction in the parameters, and a second pass its
    product with J: the cost is linear in both numbers of samples.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> kernel_times(net, torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), torch.ones(2, 2)).tolist()
    [[8.0, 8.0]]
    """
    net = FunctionalNet(module, dtype)
    left, right = net.batch(x), net.batch(x_from)
    size = checks.check_integer("batch_size", batch_size)
    given = torch.as_tensor(weights).to(device=net.device, dtype=net.dtype)
    with net.evaluating(), torch.enable_grad():
        direction = _pulled_back(net, right, given, size)
        parts = [_pushed(net, left[start : start + size], direction) for start in range(0, len(left), size)]
    return torch.cat(parts)


def _pulled_back(net: FunctionalNet, samples: Samples, weights: Tensor, size: int) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(p) for name, p in net.parameters.items()}
    for start in range(0, len(samples), size):
        leaves = net.leaves()
        logits = net(leaves, samples[start : start + size])
        part = weights[start : start + size]
        if part.shape != logits.shape:
            got = f"shape {tuple(weights.shape)}"
            what = f"weights of shape ({len(samples)}, {logits.shape[1]})"
            raise checks.expected(what, got, "Pass one weight per sample and output.")
        found = torch.autograd.grad(logits, list(leaves.values()), part, allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                total[name] += gradient
    return total


def _pushed(net: FunctionalNet, samples: Samples, direction: dict[str, Tensor]) -> Tensor:
    # The gradient is linear in the weights of the outputs, so its derivative by these is the product wanted.
    leaves = net.leaves()
    logits = net(leaves, samples)
    weights = torch.zeros_like(logits, requires_grad=True)
    found = torch.autograd.grad(logits, list(leaves.values()), weights, create_graph=True, allow_unused=True)
    terms = [(g * direction[name]).sum() for name, g in zip(leaves, found, strict=True) if g is not None]
    if not terms:
        return torch.zeros_like(logits).detach()
    (out,) = torch.autograd.grad(torch.stack(terms).sum(), weights)
    return out.detach()
