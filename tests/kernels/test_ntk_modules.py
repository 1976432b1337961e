"""Modules of every sort for the empirical NTK: what is served, what is refused in words, and no trace left."""

from __future__ import annotations

import pytest
import torch
from oracles_kernels import KINDS, Wary, kernel_oracle, nets
from oracles_samples import relative_error
from torch import nn
from zoo import assert_same_state, state_of

from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.kernels import empirical_ntk


@pytest.fixture
def untouched_generator():
    """The global torch generator is the same after the test's body."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def test_positions_first_with_as_many_positions_as_samples():
    """A layer whose first axis is not the samples' is not mistaken for one, whatever the sizes."""
    module, _ = nets()["sequence_first"]
    for n in (1, 2, 4, 8):
        x = torch.randn(n, n, 5)
        got = empirical_ntk(module, x)
        assert relative_error(got, kernel_oracle(module, x, x, "pseudo")) < 1e-4


@pytest.mark.parametrize("method", ["factored", "explicit", "sketch"])
@pytest.mark.parametrize("name", ["conv_bn", "transformer"])
def test_leaves_no_trace(name, method, request):
    """Parameters, buffers, modes, gradients, hooks, inputs and global generators are as before."""
    module, x = nets()[name]
    module.train()
    next(module.parameters()).grad = torch.ones_like(next(module.parameters()))
    module.register_forward_hook(lambda *_: None)
    before, samples = state_of(module), x.clone()
    request.getfixturevalue("untouched_generator")
    empirical_ntk(module, x, method=method)
    assert_same_state(before, state_of(module))
    assert torch.equal(x, samples)
    assert not any(hasattr(p, "grad_batch") for p in module.parameters())


def test_input_changed_in_place_and_renormed_tables_are_copies():
    """A module that writes to its input, or to a table on reading it, writes to copies."""

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4, max_norm=0.5), nn.Linear(4, 3)

        def forward(self, x):
            x += 1
            return self.head(self.table(x - 1).mean(1))

    module, x = Writes(), torch.randint(0, 8, (4, 3))
    before, samples = module.table.weight.detach().clone(), x.clone()
    with pytest.warns(ModalNTKWarning, match=r"table\.weight"):
        kernel = empirical_ntk(module, x)
    assert torch.equal(module.table.weight, before)
    assert torch.equal(x, samples)
    assert kernel.isfinite().all()


class Named(nn.Module):
    """Words and numbers, each an argument of its own."""

    def __init__(self):
        super().__init__()
        self.table, self.mixed, self.head = nn.Embedding(5, 3), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, words, numbers):
        return self.head(torch.tanh(self.table(words).mean(1) + self.mixed(numbers)))


class Packed(nn.Module):
    """The same net, fed from the columns of one tensor."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(words=x[:, :2].long(), numbers=x[:, 2:])


@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_several_inputs_by_name(method):
    """A dict of tensors goes to the module's arguments by name, and gives the kernel of the same net on one tensor."""
    torch.manual_seed(0)
    module = Named().double()
    words, numbers = torch.randint(5, (6, 2)), torch.randn(6, 4, dtype=torch.float64)
    packed, x = Packed(module), torch.cat([words.double(), numbers], 1)
    y = torch.arange(6) % 3
    named = {"words": words, "numbers": numbers}
    part = {name: value[1:4] for name, value in named.items()}
    for kind in KINDS:
        got = empirical_ntk(module, named, part, kind=kind, labels=(y, y[1:4]), method=method, memory_budget=4000)
        assert relative_error(got, kernel_oracle(packed, x, x[1:4], kind, y, y[1:4])) < 1e-10, kind
    torch.testing.assert_close(named["numbers"], x[:, 2:])


def test_inputs_of_unlike_lengths_are_told():
    """A dict whose tensors have not one row per sample each is refused with the lengths."""
    with pytest.raises(InvalidInputError, match=r"'words': 3, 'numbers': 2"):
        empirical_ntk(Named(), {"words": torch.zeros(3, 2).long(), "numbers": torch.zeros(2, 4)})


def test_frozen_parameters_do_not_count():
    """The kernel is of the parameters that require gradients."""
    module, x = nets()["lenet"]
    module.conv1.requires_grad_(False)
    got = empirical_ntk(module, x, dtype=torch.float64)
    assert relative_error(got, kernel_oracle(module, x, x, "pseudo")) < 1e-10
    module.requires_grad_(False)
    with pytest.raises(InvalidInputError, match="trainable parameters"):
        empirical_ntk(module, x)


def test_unused_parameters_give_nothing():
    """A parameter that the outputs do not depend on is reported as such."""
    module, x = nets()["mlp"]
    module.spare = nn.Linear(2, 2)
    module.forward = lambda x: module[2](module[1](module[0](x)))
    kernel, info = empirical_ntk(module, x, return_info=True)
    assert info["routes"]["spare.weight"] == "none"
    assert relative_error(kernel, kernel_oracle(nets_like(module), x, x, "pseudo")) < 1e-4


def nets_like(module):
    return nn.Sequential(module[0], module[1], module[2])


def test_one_logit_without_an_axis():
    """Outputs of shape (n,) are one logit."""
    module, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0)), torch.randn(4, 4)
    assert relative_error(empirical_ntk(module, x), kernel_oracle(module, x, x, "pseudo")) < 1e-4


def test_a_net_that_looks_at_values_goes_one_by_one_and_says_so():
    """What torch.func cannot batch is served sample by sample, with a warning that names the parameters."""
    module, x = Wary(), torch.randn(4, 6, 5)
    with pytest.warns(ModalNTKWarning, match=r"torch\.func cannot batch mix"):
        kernel, info = empirical_ntk(module, x, dtype=torch.float64, return_info=True)
    assert relative_error(kernel, kernel_oracle(module, x, x, "pseudo")) < 1e-10
    assert info["routes"] == {"mix": "loop", "head.weight": "factored", "head.bias": "factored"}


def test_batch_statistics_are_refused():
    """Outputs that depend on the batch have no per-sample gradient."""
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3))
    with pytest.raises((InvalidInputError, ValueError)):
        empirical_ntk(module, torch.randn(6, 5))
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())
    with pytest.raises(InvalidInputError, match="share a batch"):
        empirical_ntk(module, torch.randn(6, 1, 5, 5))


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no derivative here")


def test_an_uncovered_parameter_is_named():
    """A parameter that no route can differentiate by is an error that names it."""

    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.odd = nn.Linear(3, 2), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return NoDerivative.apply(self.first(x), self.odd)

    with pytest.raises(InvalidInputError, match="odd"):
        empirical_ntk(Opaque(), torch.randn(3, 3))


def test_bad_arguments_are_told():
    """Every refusal says what was expected."""
    module, x = nets()["mlp"]
    cases = [
        ({"kind": "neural"}, "kind to be one of"),
        ({"method": "fast"}, "method to be one of"),
        ({"kind": "labelled"}, "labels for kind='labelled'"),
        ({"kind": "loss", "labels": [0, 1, 2, 3, 0]}, "labels below 3"),
        ({"kind": "loss", "labels": [0, 1]}, "5 labels, one for each sample"),
        ({"kind": "labelled", "signs": torch.ones(5, 2)}, "signs of shape"),
        ({"memory_budget": 0}, "memory_budget"),
        ({"method": "sketch", "sketch_dim": 0}, "sketch_dim"),
    ]
    for options, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            empirical_ntk(module, x, **options)
    with pytest.raises(InvalidInputError, match="at least one sample"):
        empirical_ntk(module, x[:0])
    with pytest.raises(InvalidInputError, match="outputs of shape"):
        empirical_ntk(nn.Conv2d(1, 2, 3), torch.randn(2, 1, 5, 5))


def test_progress_is_shown_only_when_asked_for(capsys):
    """Silent by default; a bar on the error stream with verbose."""
    module, x = nets()["mlp"]
    empirical_ntk(module, x)
    assert capsys.readouterr() == ("", "")
    empirical_ntk(module, x, verbose=1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "kernel" in shown.err


def test_warning_points_at_the_caller():
    """The fall-back's warning is shown for the line that asked for the kernel."""
    with pytest.warns(ModalNTKWarning) as told:
        empirical_ntk(Wary(), torch.randn(2, 3, 5), dtype=torch.float64)
    assert told[0].filename == __file__
