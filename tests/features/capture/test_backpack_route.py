"""BackPACK where it is right, and not where it is wrong or silent."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from oracles_kernels import kernel_oracle, nets
from torch import nn

from modal_ntk.features import loss_gradient_norms
from modal_ntk.features.capture.backpack_route import BackpackCopy
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.kernels import empirical_ntk


def explicit(module, x):
    return empirical_ntk(module, x, method="explicit", dtype=torch.float64, return_info=True)


def close_to_oracle(module, x, kernel):
    want = kernel_oracle(module, x, x, "pseudo")
    return float((kernel - want).norm() / want.norm()) < 1e-10


PROVED = {
    "linear": (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (4,)),
    "conv1d": (nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, dilation=2, padding=1), nn.Flatten()), (2, 8)),
    "conv2d": (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten()), (2, 4, 4)),
    "grouped": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten()), (4, 4, 4)),
    "batch_norm": (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)), (4,)),
    "batch_norm_2d": (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()), (1, 4, 4)),
}


@pytest.mark.parametrize("name", PROVED)
def test_right_on_the_layers_listed(name):
    """Every parameter of these layers takes the BackPACK route, and the kernel is the oracle's."""
    module, shape = PROVED[name]
    x = torch.randn(5, *shape)
    kernel, info = explicit(module, x)
    assert set(info["routes"].values()) == {"backpack"}
    assert close_to_oracle(module, x, kernel)


@pytest.mark.parametrize("padding", [None, 0])
def test_embedding(padding):
    """A table of words takes torch.func: on the line of padding BackPACK is wrong, and it fails in float64.

    The two samples on which routes are compared have no padding here: that comparison alone would not tell.
    """
    module, x = nets()["embedding"]
    module.table.padding_idx = padding
    x = x.clamp_min(1)
    x[2:4, 1:3] = 0
    kernel, info = explicit(module, x)
    assert info["routes"]["table.weight"] == "torch.func"
    assert info["routes"]["head.weight"] == "backpack"
    assert close_to_oracle(module, x, kernel)


@pytest.mark.parametrize(
    ("module", "shape", "odd"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten()), (1, 4, 4), "0.weight"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), (4,), "1.weight"),
        (nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2)), (4,), "1.weight"),
    ],
    ids=["same_padding", "layer_norm", "group_norm"],
)
def test_what_it_gets_wrong_or_leaves_out_goes_elsewhere(module, shape, odd):
    """Same padding, LayerNorm and GroupNorm take torch.func, other layers of the net do not, the kernel is right."""
    x = torch.randn(5, *shape)
    kernel, info = explicit(module, x)
    assert info["routes"][odd] == "torch.func"
    assert all(route == "backpack" for name, route in info["routes"].items() if name[0] != odd[0])
    assert close_to_oracle(module, x, kernel)


@pytest.mark.parametrize("name", ["shared", "tied", "transformer"])
def test_layers_used_twice_and_attention(name):
    """A weight with several uses, and attention's projections, do not take the BackPACK route."""
    module, x = nets()[name]
    kernel, info = explicit(module, x)
    several = {
        "shared": "again.weight",
        "tied": "table.weight",
        "transformer": "encoder.layers.0.self_attn.in_proj_weight",
    }
    assert info["routes"][several[name]] == "torch.func"
    assert close_to_oracle(module, x, kernel)


def test_same_padding_is_wrong_in_backpack_itself():
    """The reason for the exclusion: extended by hand, BackPACK gives other gradients than autograd."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad
    module = extend(nn.Conv2d(1, 2, 4, padding="same"))
    x = torch.randn(2, 1, 6, 6, requires_grad=True)
    with backpack(BatchGrad()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module(x).square().sum().backward()
    found = module.weight.grad_batch.sum(0)
    assert float((found - module.weight.grad).norm() / module.weight.grad.norm()) > 0.1


def test_a_route_that_lies_is_found_out(monkeypatch):
    """Gradients that differ from autograd's on two samples are not used, whoever made them."""
    honest = BackpackCopy.gradients

    def lying(self, batch, cotangents):
        found = honest(self, batch, cotangents)
        return {name: g * (1.1 if name == "0.weight" else 1) for name, g in found.items()}

    monkeypatch.setattr(BackpackCopy, "gradients", lying)
    module, shape = PROVED["linear"]
    x = torch.randn(5, *shape)
    kernel, info = explicit(module, x)
    assert info["routes"] == {
        "0.weight": "torch.func", "0.bias": "backpack", "2.weight": "backpack", "2.bias": "backpack",
    }  # fmt: skip
    assert close_to_oracle(module, x, kernel)


def test_the_module_is_never_extended():
    """BackPACK's marks and hooks are on a copy, and vmap works on the module afterwards."""
    module, shape = copy.deepcopy(PROVED["linear"][0]), (4,)
    x = torch.randn(5, *shape)
    explicit(module, x)
    for part in module.modules():
        assert not any("backpack" in name for name in vars(part))
        assert not part._forward_hooks
        assert not part._backward_hooks
    assert set(empirical_ntk(module, x, return_info=True)[1]["routes"].values()) == {"factored"}


def test_a_module_it_cannot_follow_is_served_by_torch_func():
    """An error of BackPACK's own is kept on the routes, and the parameters take torch.func."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.last(self.first(x).clamp_(0))

        def __deepcopy__(self, memo):
            raise TypeError("this module cannot be copied")

    module, x = Odd(), torch.randn(4, 4)
    net = FunctionalNet(module)
    with net.evaluating():
        routes = Routes(net, x, explicit=True)
    assert set(routes.by_name.values()) == {"torch.func"}
    assert "cannot be copied" in routes.backpack_error


@pytest.mark.parametrize("name", PROVED)
def test_lengths_are_autograds_and_batch_l2_grads_but_for_groups(name):
    """Lengths of loss gradients are autograd's; BackPACK's BatchL2Grad agrees, but is wrong on grouped convolutions."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    module, shape = PROVED[name]
    module = copy.deepcopy(module).double().eval()
    x, labels = torch.randn(5, *shape, dtype=torch.float64), torch.arange(5) % 2
    truth = []
    for i in range(5):
        loss = nn.functional.cross_entropy(module(x[i : i + 1]), labels[i : i + 1])
        truth.append(sum(g.square().sum() for g in torch.autograd.grad(loss, list(module.parameters()))))
    squares = torch.stack(truth)
    torch.testing.assert_close(loss_gradient_norms(module, x, labels).square(), squares)
    watched = extend(copy.deepcopy(module))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))(watched(x.clone().requires_grad_()), labels)
    with backpack(BatchL2Grad()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss.backward()
    theirs = sum(p.batch_l2 for p in watched.parameters())
    assert torch.allclose(theirs, squares) == (name != "grouped")
