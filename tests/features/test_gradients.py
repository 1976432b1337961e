"""Loss gradients of samples without their matrix, against the Jacobian oracle."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from oracles_kernels import NETS, jacobian, logits64, nets
from torch.nn import functional as F
from zoo import assert_same_state, state_of

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.features import (
    LossGradients,
    gradient_sketch,
    loss_gradient_norms,
    loss_gradient_products,
    loss_gradient_sum,
)

F64 = {"dtype": torch.float64}
LOSSES = ["cross_entropy", "mse"]


def loss_gradients(module, x, y, loss="cross_entropy"):
    """Each sample's loss gradient (n, P): residual times Jacobian."""
    residuals = logits64(module, x)
    residuals = residuals.softmax(1) if loss == "cross_entropy" else residuals
    residuals = residuals - F.one_hot(y, residuals.shape[1])
    return torch.einsum("nk,nkp->np", residuals, jacobian(module, x))


def labels(x):
    return torch.arange(len(x)) % 3


@pytest.mark.parametrize("budget", [1, 2**30])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_norms(name, loss, budget):
    """Lengths of the rows of the loss gradients' matrix."""
    module, x = nets()[name]
    want = loss_gradients(module, x, labels(x), loss).norm(dim=1)
    got = loss_gradient_norms(module, x, labels(x), loss=loss, memory_budget=budget, **F64)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_sum(name, loss):
    """The sum over samples of the loss gradients, in the parameters' shapes."""
    module, x = nets()[name]
    found = loss_gradient_sum(module, x, labels(x), loss=loss, batch_size=2, **F64)
    for path, p in module.named_parameters():
        assert found[path].shape == p.shape
    want = loss_gradients(module, x, labels(x), loss).sum(0)
    torch.testing.assert_close(torch.cat([g.flatten() for g in found.values()]), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_products(name, loss):
    """Products of each loss gradient with a given direction, by one forward-mode pass where torch has one."""
    module, x = nets()[name]
    direction = {path: torch.randn_like(p) for path, p in module.named_parameters()}
    flat = torch.cat([d.flatten() for d in direction.values()]).double()
    told = pytest.warns(ModalNTKWarning, match="weight_norm") if name == "weight_norm" else nullcontext()
    with told:
        got = loss_gradient_products(module, x, labels(x), direction, loss=loss, batch_size=3, **F64)
    torch.testing.assert_close(got, loss_gradients(module, x, labels(x), loss) @ flat, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("explicit", "budget"), [(False, 1), (False, 2**30), (True, 2**30)])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETS)
def test_measuring_gives_lengths_and_products_in_one_pass(name, loss, budget, explicit):
    """Squared lengths and products are those of the gradients' matrix at the predicted classes, or at given ones."""
    module, x = nets()[name]
    direction = {path: torch.randn_like(p).double() for path, p in module.named_parameters()}
    flat = torch.cat([d.flatten() for d in direction.values()])
    gradients = LossGradients(module, loss=loss, explicit=explicit, memory_budget=budget, **F64)
    for given in (None, labels(x)):
        classes = logits64(module, x).argmax(1) if given is None else given
        want = loss_gradients(module, x, classes, loss)
        with gradients.evaluating():
            got = gradients.measure(x, direction, given)
            alone = gradients.products(x, direction, classes)
        torch.testing.assert_close(got.labels, classes)
        torch.testing.assert_close(got.squared_norms, want.square().sum(1), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(got.products, want @ flat, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(alone, got.products, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_rows_measured_a_few_at_a_time_are_the_same_rows(name, monkeypatch):
    """However few rows are made at once, each one's length and product are its own."""
    monkeypatch.setattr("modal_ntk.features.loss_gradients._CACHED", 1)
    monkeypatch.setattr("modal_ntk.features.loss_gradients._FEW", 2)
    module, x = nets()[name]
    direction = {path: torch.randn_like(p) for path, p in module.named_parameters()}
    flat = torch.cat([d.flatten() for d in direction.values()]).double()
    gradients = LossGradients(module, **F64)
    with gradients.evaluating():
        measured = gradients.measure(x, direction, labels(x))
    want = loss_gradients(module, x, labels(x))
    torch.testing.assert_close(measured.squared_norms, want.square().sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(measured.products, want @ flat, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("positions", [2, 30])
def test_lengths_by_pairs_of_positions_and_written_out_agree(positions):
    """A convolution with few positions and one with many have the lengths of their gradients written out."""
    module = torch.nn.Sequential(torch.nn.Conv1d(9, 20, 3), torch.nn.Tanh(), torch.nn.Flatten())
    module.append(torch.nn.Linear(20 * positions, 3))
    x = torch.randn(4, 9, positions + 2)
    want = loss_gradients(module, x, labels(x)).norm(dim=1)
    torch.testing.assert_close(loss_gradient_norms(module, x, labels(x), **F64), want, rtol=1e-9, atol=1e-12)


def test_logits_that_depend_on_no_parameter_have_no_gradient():
    """All lengths and products are zero, and labels still the predicted ones."""

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x

    gradients = LossGradients(Constant())
    with gradients.evaluating():
        got = gradients.measure(torch.eye(3), {"unused": torch.ones(2)})
    assert got.labels.tolist() == [0, 1, 2]
    assert got.squared_norms.tolist() == got.products.tolist() == [0.0, 0.0, 0.0]


def test_products_without_forward_mode_say_so():
    """A module that forward mode cannot follow takes per-sample gradients, with a warning, to the same result."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 3 * x**2 * gradient

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

        def forward(self, x):
            return self.last(Cube.apply(self.first(x)))

    module, x = Net(), torch.randn(4, 4)
    total = loss_gradient_sum(module, x, labels(x), **F64)
    with pytest.warns(ModalNTKWarning, match="forward-mode"):
        got = loss_gradient_products(module, x, labels(x), total, **F64)
    square = sum(g.square().sum() for g in total.values())
    torch.testing.assert_close(got.sum(), square)


@pytest.mark.parametrize("name", ["mlp", "lenet", "transformer", "embedding"])
def test_sketch_is_unbiased_and_of_the_dimension_asked_for(name):
    """Inner products of features are the loss kernel on average over seeds, within five standard errors."""
    module, x = nets()[name]
    y = labels(x)
    want = loss_gradients(module, x, y)
    want = want @ want.T
    draws = []
    for seed in range(60):
        features = gradient_sketch(module, x, 6, kind="loss", labels=y, random_state=seed, **F64)
        assert features.shape == (len(x), 6)
        draws.append(features @ features.T)
    draws = torch.stack(draws)
    assert ((draws.mean(0) - want).abs() <= 5 * draws.std(0) / len(draws) ** 0.5 + 1e-9).all()


def test_sketches_of_one_seed_are_comparable_between_calls():
    """Rows do not depend on which samples share a call, nor on chunks."""
    module, x = nets()["lenet"]
    together = gradient_sketch(module, x, 8, random_state=3, **F64)
    alone = torch.cat([gradient_sketch(module, x[i : i + 1], 8, random_state=3, **F64) for i in range(len(x))])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, gradient_sketch(module, x, 8, random_state=3, memory_budget=1, **F64))


def test_leave_no_trace():
    """The module, its gradients and the global generator are as before."""
    module, x = nets()["conv_bn"]
    module.train()
    before, generator = state_of(module), torch.get_rng_state()
    total = loss_gradient_sum(module, x, labels(x))
    loss_gradient_norms(module, x, labels(x))
    loss_gradient_products(module, x, labels(x), total)
    gradient_sketch(module, x, 3)
    assert_same_state(before, state_of(module))
    assert torch.equal(generator, torch.get_rng_state())


def test_errors_say_what_was_expected():
    """A direction that is not the module's, labels out of range."""
    module, x = nets()["mlp"]
    with pytest.raises(InvalidInputError, match="direction for every trainable parameter"):
        loss_gradient_products(module, x, labels(x), {})
    with pytest.raises(InvalidInputError, match="labels below 3"):
        loss_gradient_norms(module, x, torch.full((5,), 3))
