"""Every batch is proved: what no two samples show, what a route gets wrong later, what ties samples together."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles_samples import gram, relative_error, sample_gradients, weigher
from torch import nn
from torch.nn import functional as F

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.features import (
    LossGradients,
    kernel_times,
    loss_gradient_norms,
    loss_gradient_products,
    loss_gradient_sum,
)
from modal_ntk.features.capture import recording as recordings
from modal_ntk.features.capture.proof import Draws, agree, multiplied, projected
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.factors import Dense
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.kernels import empirical_ntk, kernel_rows

F64 = {"dtype": torch.float64}
METHODS = ["factored", "explicit"]
BUDGETS = [1, 2**30]


class Branch(nn.Module):
    """A layer that only samples with a large first entry go through."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        out, large = self.always(x), x[:, :1] > 1
        if large.any():
            out = out + self.sometimes(x) * large
        return out


@pytest.mark.filterwarnings("ignore:torch.func cannot batch")
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_branch_that_neither_the_first_nor_the_last_sample_takes(method, budget):
    """A parameter that some samples alone reach counts for these, in whatever chunk they are."""
    module, x = Branch(), torch.randn(6, 5)
    x[:, 0] = torch.tensor([0.0, 2, 0, 2, 2, 0])
    kernel, info = empirical_ntk(module, x, method=method, memory_budget=budget, return_info=True, **F64)
    assert relative_error(kernel, gram(module, x)) < 1e-10
    assert info["routes"]["sometimes.weight"] != "none"
    y = [0, 1, 2, 0, 1, 2]
    want = sample_gradients(module, x, weigher("loss", y)).norm(dim=1)
    torch.testing.assert_close(loss_gradient_norms(module, x, y, memory_budget=budget, **F64), want)
    rows = kernel_rows(module, x, kind="pseudo", method="exact", **F64)
    assert relative_error(torch.from_numpy(rows.matrix()), gram(module, x)) < 1e-10


class KeptTokens(nn.Module):
    """A layer that is run on the valid tokens of all samples at once."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x, keep):
        out = x.new_zeros(*x.shape[:2], 6)
        out[keep] = torch.tanh(self.token(x[keep]))
        return self.head(out.sum(1))


@pytest.mark.parametrize("lengths", [(3, 2, 4, 3), (3, 2, 2, 3), (4, 4, 4, 4), (1, 4, 0, 3)])
def test_a_layer_run_on_valid_tokens_alone(lengths):
    """Rows are given to the samples that they belong to, also where their number divides evenly by chance."""
    module = KeptTokens()
    x = {"x": torch.randn(4, 4, 5), "keep": torch.arange(4)[None] < torch.tensor(lengths)[:, None]}
    kernel, info = empirical_ntk(module, x, return_info=True, **F64)
    assert relative_error(kernel, gram(module, x)) < 1e-10
    assert set(info["routes"].values()) == {"factored"}
    full = empirical_ntk(module, x, kind="full", **F64)
    torch.testing.assert_close(full.sum((2, 3)) / 3, kernel)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts, self.head = nn.ModuleList([nn.Linear(5, 6), nn.Linear(5, 6)]), nn.Linear(6, 3)

    def forward(self, x):
        which = (x[:, 0] > 0).long()
        out = x.new_zeros(len(x), 6)
        for number, expert in enumerate(self.experts):
            if (which == number).any():
                out[which == number] = expert(x[which == number])
        return self.head(torch.tanh(out))


@pytest.mark.filterwarnings("ignore:torch.func cannot batch")
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_mixture_of_experts(method, budget):
    """Samples are sent to experts by index, each to its own, in batches of any size."""
    module, x = Experts(), torch.randn(7, 5)
    kernel, info = empirical_ntk(module, x, method=method, memory_budget=budget, return_info=True, **F64)
    assert relative_error(kernel, gram(module, x)) < 1e-10
    if method == "factored":
        assert set(info["routes"].values()) == {"factored"}


class UsedAgain(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.layer, self.share = nn.Linear(5, 5), share

    def forward(self, x):
        return self.layer(x) + self.share * (x @ self.layer.weight)


@pytest.mark.parametrize("share", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("method", METHODS)
def test_a_weight_used_a_little_beside_its_layer(method, share):
    """However small the second use, it counts, and BackPACK, which does not see it, is not believed."""
    module, x = UsedAgain(share), torch.randn(6, 5)
    kernel, info = empirical_ntk(module, x, method=method, return_info=True, **F64)
    assert relative_error(kernel, gram(module, x)) < 1e-11
    assert info["routes"]["layer.weight"] == ("torch.func" if method == "explicit" else "factored")


class Mixing(nn.Module):
    def __init__(self, share, mix):
        super().__init__()
        self.layer, self.share, self.mix = nn.Linear(5, 3), share, mix

    def forward(self, x):
        return self.layer(x) + self.share * self.mix(self.layer(x))


MIXES = {
    "mean": lambda z: z.mean(0),
    "fixed mean": lambda z: z.mean(0).detach(),
    "gradient alone": lambda z: z.mean(0) - z.mean(0).detach(),
    "neighbour": lambda z: z.roll(1, 0),
    "maximum": lambda z: z.max(0).values,
    "order": lambda z: z.argsort(0).double(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("share", [1.0, 1e-3])
def test_samples_that_depend_on_one_another_are_refused(share, mix, dtype):
    """By values or by gradients, much or little, at the first batch that shows it, by every function."""
    module, x = Mixing(share, MIXES[mix]).to(dtype), torch.randn(9, 5)
    y = torch.arange(9) % 3
    given = {"dtype": dtype}
    direction = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    for compute in (
        lambda: empirical_ntk(module, x, **given),
        lambda: empirical_ntk(module, x, method="explicit", **given),
        lambda: loss_gradient_norms(module, x, y, **given),
        lambda: loss_gradient_sum(module, x, y, **given),
        lambda: loss_gradient_products(module, x, y, direction, **given),
        lambda: kernel_times(module, x, x, torch.ones(9, 3), **given),
    ):
        with pytest.raises(InvalidInputError, match=r"share a batch|alone and in a batch"):
            compute()


def test_the_check_of_independence_can_be_left_out():
    """With verify=False what the two samples looked at show is all that is asked."""
    module, x = Branch(), torch.randn(6, 5)
    x[:, 0] = torch.tensor([0.0, 2, 0, 2, 2, 0])
    kernel, info = empirical_ntk(module, x, verify=False, return_info=True, **F64)
    assert not info["verified"]
    assert info["routes"]["sometimes.weight"] == "none"
    assert relative_error(kernel, gram(module, x)) > 0.01
    x[:, 0] = 2
    torch.testing.assert_close(empirical_ntk(module, x, verify=False, **F64), gram(module, x))


def plain_net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4])
def test_a_route_that_is_wrong_for_one_sample_of_many_is_found_out(monkeypatch, size):
    """One gradient off by a little sends its parameter to the next route for that batch, with one warning."""
    module, x = plain_net().double(), torch.randn(60, 5).double()
    monkeypatch.setattr(recordings, "apart", lambda *_: None)
    make = recordings.Use.weighted

    def wrong(self, weights):
        gradient = make(self, weights)
        if len(gradient) == 30 and gradient.shape[-1] == 3:
            gradient[17] *= 1 + size
        return gradient

    monkeypatch.setattr(recordings.Use, "weighted", wrong)
    net = FunctionalNet(module)
    with net.evaluating():
        routes = Routes(net, x)
        assert set(routes.by_name.values()) == {"factored"}
        with pytest.warns(ModalNTKWarning, match=r"'factored' of 2\.weight, 2\.bias .* 'torch\.func' is taken") as told:
            gradients = routes.gradients(x[:30], lambda f: torch.ones(len(f), 1, 3, dtype=torch.float64))
        assert len(told) == 1
        assert set(gradients.written) == {"2.weight", "2.bias"}
        again = routes.gradients(x[30:], lambda f: torch.ones(len(f), 1, 3, dtype=torch.float64))
        assert set(again.written) == {"2.weight", "2.bias"}
        fewer = routes.gradients(x[:29], lambda f: torch.ones(len(f), 1, 3, dtype=torch.float64))
        assert not fewer.written


def test_projections_are_of_the_summed_gradient():
    """Whatever the form of the gradients, both ways of multiplying agree with the matrices written out."""
    draws = Draws()
    layer = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2).double()
    x, y = torch.randn(5, 4, 7, 8).double(), None
    out = layer(x)
    y = torch.randn_like(out)
    (truth,) = torch.autograd.grad(out, layer.weight, y)
    pairs = draws.pairs(truth.shape, truth)
    net = nn.Sequential(layer, nn.Flatten())
    functional = FunctionalNet(net)
    with functional.evaluating():
        found = recordings.record(functional, x, y.flatten(1)[:, None], weigh=lambda n, r, t: torch.ones(n, r).to(t))
    want = torch.einsum("ka,ab,kb->k", pairs[0], truth.flatten(1), pairs[1])
    torch.testing.assert_close(multiplied(truth, pairs), want)
    torch.testing.assert_close(found.projected("0.weight", pairs), want)
    torch.testing.assert_close(projected(found.factor("0.weight", joint=True), pairs), want)
    torch.testing.assert_close(projected(Dense(truth.flatten()[None]), pairs), want)
    assert not agree(want * (1 + 1e-7), want, float(truth.norm()), torch.float64)


def test_weights_of_the_proof_are_all_different():
    """No two weights of a batch are equal, in float32 too, and none is near zero."""
    weights = Draws().weights(2000, 10, torch.zeros(1))
    assert weights.unique().numel() > 0.99 * weights.numel()
    assert float(weights.abs().min()) >= 0.5


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=0)

    def forward(self, x):
        return F.linear(torch.tanh(self.table(x)).mean(1), self.table.weight)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(F.embedding(x, self.table, padding_idx=0)).mean(1))


class Gated(nn.Module):
    """A gate that no gradient passes, by parameters that it reads all the same."""

    def __init__(self):
        super().__init__()
        self.body, self.gate, self.head = nn.Linear(60, 5), nn.Parameter(torch.randn(1, 5) / 100), nn.Linear(5, 3)

    def forward(self, x):
        z = torch.tanh(self.body(x))
        with torch.no_grad():
            gate = 1 + z @ self.gate.T
        return self.head(z * gate)


@pytest.mark.parametrize("case", [Tied, Padded, Gated])
def test_products_where_forward_mode_and_backward_differ(case):
    """Padding lines and no_grad stop gradients on their way back; products with any direction honour that."""
    module = case()
    x = torch.randn(6, 60) / 8 if case is Gated else torch.tensor([[1, 2, 3], [0, 0, 5], [4, 0, 2], [2, 3, 4]])
    y = [0] * len(x)
    direction = {name: torch.randn_like(p) for name, p in module.double().named_parameters()}
    flat = torch.cat([d.flatten() for d in direction.values()])
    rows = sample_gradients(module, x, weigher("loss", y))
    torch.testing.assert_close(loss_gradient_products(module, x, y, direction, **F64), rows @ flat)
    gradients = LossGradients(module, **F64)
    with gradients.evaluating():
        torch.testing.assert_close(gradients.measure(x, direction, y).products, rows @ flat)
    total = loss_gradient_sum(module, x, y, **F64)
    torch.testing.assert_close(torch.cat([g.flatten() for g in total.values()]), rows.sum(0))
    weights = torch.randn(len(x), module(x.double() if case is Gated else x).shape[1]).double()
    full = empirical_ntk(module, x, kind="full", **F64)
    want = torch.einsum("ijab,jb->ia", full, weights)
    torch.testing.assert_close(kernel_times(module, x, x, weights, **F64), want)


def test_a_wrong_derivative_takes_per_sample_gradients():
    """A forward-mode rule that lies is found out; products are those of backward passes."""

    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            ctx.save_for_forward(x)
            return x**2

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

        @staticmethod
        def jvp(ctx, change):
            (x,) = ctx.saved_tensors
            return 2.001 * x * change

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(Lying.apply(self.first(x)))

    module, x, y = Net().double(), torch.randn(4, 4).double(), [0, 1, 2, 0]
    total = loss_gradient_sum(module, x, y)
    with pytest.warns(ModalNTKWarning, match="differs from backward"):
        got = loss_gradient_products(module, x, y, total)
    torch.testing.assert_close(got.sum(), sum(g.square().sum() for g in total.values()))


def test_modules_are_as_they_were_after_a_refusal():
    """Attributes, modes and gradients are left as found, also where an error ends the reading."""

    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen, self.kept = nn.Linear(5, 3), None, {"all": []}

        def forward(self, x):
            self.seen = self.layer(x)
            self.kept["all"].append(self.seen)
            self.fresh = self.seen
            return self.seen

    module, x = Caching(), torch.randn(4, 5)
    for method in METHODS:
        empirical_ntk(module, x, method=method)
        with pytest.raises(InvalidInputError, match="finite outputs"):
            empirical_ntk(module, x * float("nan"), method=method)
        assert module.seen is None
        assert module.kept == {"all": []}
        assert not hasattr(module, "fresh")
        assert module.training
        copy.deepcopy(module)
