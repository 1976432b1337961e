"""Per-sample gradients written out: by `torch.func` for a batch at once, or by autograd one sample at a time."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from modal_ntk.features.capture.recurrent import StepByStep
from modal_ntk.features.functional import FunctionalNet, differentiated
from modal_ntk.features.samples import NamedTensors, Samples

Gradients = dict[str, Tensor]


def vectorised_gradients(net: FunctionalNet, batch: Samples, cotangents: Tensor, names: list[str]) -> Gradients:
    """Differentiate weighted outputs of all samples at once by some of the parameters.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    batch : Tensor (n, ...) or NamedTensors
        Samples.
    cotangents : Tensor (n, r, K)
        Weights of the outputs.
    names : list of str
        Parameters to differentiate by.

    Returns
    -------
    dict of str to Tensor (n, r, p)
        Flattened gradients by parameter.

    Notes
    -----
    Raises what `torch.func.vmap` raises for modules that it cannot batch; `looped_gradients` can.
    """
    chosen = {name: net.parameters[name] for name in names}
    rest = {name: p for name, p in net.parameters.items() if name not in chosen}

    def weighted(out: Tensor, weights: Tensor) -> Tensor:
        return out @ weights.to(out.dtype)

    def of_sample(sample: Any, weights: Tensor) -> Gradients:
        one = NamedTensors({k: v[None] for k, v in sample.items()}) if isinstance(sample, dict) else sample[None]
        if len(weights) == 1:
            # Some operations have no right derivative by a batched cotangent, and plain gradients are faster, too.
            grads = torch.func.grad(lambda p: weighted(net({**p, **rest}, one)[0], weights[0]))(chosen)
            return {name: g[None] for name, g in grads.items()}
        out, pull = torch.func.vjp(lambda p: net({**p, **rest}, one)[0], chosen)  # type: ignore[misc]
        return torch.func.vmap(lambda v: pull(v)[0])(weights.to(out.dtype))

    with warnings.catch_warnings(), StepByStep():
        # Some operations are batched by a loop inside torch, which is slower and as right.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        grads = torch.func.vmap(of_sample)(batch.parts if isinstance(batch, NamedTensors) else batch, cotangents)
    return {name: g.detach().reshape(*g.shape[:2], -1).to(net.held_dtype) for name, g in grads.items()}


def looped_gradients(net: FunctionalNet, batch: Samples, cotangents: Tensor, names: list[str]) -> Gradients:
    """Differentiate weighted outputs of one sample after another by some of the parameters.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    batch : Tensor (n, ...) or NamedTensors
        Samples.
    cotangents : Tensor (n, r, K)
        Weights of the outputs.
    names : list of str
        Parameters to differentiate by.

    Returns
    -------
    dict of str to Tensor (n, r, p)
        Flattened gradients by parameter; zero where the logits do not depend on it.

    Raises
    ------
    InvalidInputError
        If the module cannot be differentiated; the parameters are named.
    """
    n, r = cotangents.shape[:2]
    out = {
        name: torch.zeros(n, r, net.parameters[name].numel(), dtype=net.held_dtype, device=net.device) for name in names
    }
    for i in range(n):
        leaves = net.leaves()
        with torch.enable_grad():
            logits = net(leaves, batch[i : i + 1])
        if not logits.requires_grad:
            continue
        for j in range(r):
            along = cotangents[i : i + 1, j].to(logits.dtype)
            found = differentiated(logits, [leaves[name] for name in names], along, names, retain_graph=True)
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    out[name][i, j] = gradient.detach().flatten()
    return out
