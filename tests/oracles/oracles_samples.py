"""Per-sample gradients by their definition: float64, one sample after another, plain backward passes."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F


def parts_of(x):
    return x if isinstance(x, dict) else {"": x}


def count(x):
    return len(next(iter(parts_of(x).values())))


def rows_of(x, rows):
    return {name: part[rows] for name, part in x.items()} if isinstance(x, dict) else x[rows]


def in_float64(module):
    """A float64 copy in evaluation mode, and a converter of samples."""
    net = copy.deepcopy(module).double().eval()
    for name, p in net.named_parameters():
        p.data = p.data.to(torch.complex128) if p.is_complex() else p.data
        p.requires_grad_(module.get_parameter(name).requires_grad)
    return net


def doubled(x):
    if isinstance(x, dict):
        return {name: doubled(part) for name, part in x.items()}
    return x.double() if x.is_floating_point() else x


def called(net, x):
    with torch.enable_grad():
        out = net(**x) if isinstance(x, dict) else net(x.clone())
    return out.reshape(1, -1)


def sample_gradients(module, x, weigh=None):
    """Rows (n, P): gradient of ``weigh(outputs (K,), i) @ outputs``; the sum of outputs over root K by default."""
    net = in_float64(module)
    weigh = weigh or (lambda out, i: torch.full_like(out, len(out) ** -0.5))
    parameters = [p for p in net.parameters() if p.requires_grad]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    rows = []
    for i in range(count(x)):
        out = called(net, doubled(rows_of(x, slice(i, i + 1))))[0]
        grads = torch.autograd.grad(out @ weigh(out.detach(), i), parameters, allow_unused=True)
        rows.append(torch.cat([_flat(g, p) for g, p in zip(grads, parameters, strict=True)]))
    torch.backends.mha.set_fastpath_enabled(fast)
    return torch.stack(rows)


def _flat(gradient, parameter):
    if gradient is None:
        gradient = torch.zeros_like(parameter)
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).reshape(-1)


def weigher(kind, y):
    """The weights of the outputs that make a kind of kernel with one direction."""

    def weigh(out, i):
        if kind == "pseudo":
            return torch.full_like(out, len(out) ** -0.5)
        one_hot = F.one_hot(torch.as_tensor(int(y[i])), len(out)).to(out)
        if kind == "labelled":
            return (2 * one_hot - 1) * len(out) ** -0.5
        return (out.softmax(0) if kind == "loss" else out) - one_hot

    return weigh


def gram(module, x, kind="pseudo", y=None):
    rows = sample_gradients(module, x, weigher(kind, y))
    return rows @ rows.T


def relative_error(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-8))
