"""Recurrent layers written out are torch's own, forward and backward, and no longer go one sample at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_samples import relative_error, sample_gradients, weigher
from torch import nn

from modal_ntk.features import loss_gradient_products
from modal_ntk.features.capture.recurrent import StepByStep
from modal_ntk.kernels import empirical_ntk

N, T = 5, 4


def layer(kind, draw):
    options = {
        "num_layers": draw(st.integers(1, 3)), "bias": draw(st.booleans()), "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }  # fmt: skip
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if kind is nn.LSTM:
        options["proj_size"] = draw(st.sampled_from([0, 2]))
    return kind(3, 4, **options).double()


@settings(max_examples=40)
@given(data=st.data(), kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), packed=st.booleans(), seed=st.integers(0, 99))
def test_outputs_states_and_gradients_are_those_of_torch(data, kind, packed, seed):
    """Of any number of layers, one way or both, with or without biases and projections, whole or packed."""
    torch.manual_seed(seed)
    module = layer(kind, data.draw)
    lengths = torch.randint(1, T + 1, (N,))
    x = torch.randn(N, T, 3).double() if module.batch_first else torch.randn(T, N, 3).double()
    x.requires_grad_()

    def results():
        given = x
        if packed:
            given = nn.utils.rnn.pack_padded_sequence(x, lengths, module.batch_first, enforce_sorted=False)
        out, last = module(given)
        out = out.data if packed else out
        found = [out, *(last if isinstance(last, tuple) else (last,))]
        total = sum(((number + 2) * part.cos()).sum() for number, part in enumerate(found))
        return [*found, *torch.autograd.grad(total, [x, *module.parameters()])]

    with StepByStep():
        got = results()
    for one, other in zip(got, results(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_single_steps_are_those_of_torch(kind, bias):
    """Cells give the same next state."""
    module, x = kind(3, 4, bias=bias), torch.randn(N, 3)
    with StepByStep():
        got = module(x)
    torch.testing.assert_close(got, module(x))


class Last(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_recurrent_nets_are_served_all_samples_at_once(kind, method):
    """No warning, no loop; kernels and products with a direction are the oracle's."""
    module, x, y = Last(kind(3, 4, 2, batch_first=True)), torch.randn(7, T, 3), [0, 1, 2, 0, 1, 2, 0]
    rows = sample_gradients(module, x, weigher("loss", y))
    got, info = empirical_ntk(module, x, kind="loss", labels=y, method=method, dtype=torch.float64, return_info=True)
    assert relative_error(got, rows @ rows.T) < 1e-10
    assert "loop" not in info["routes"].values()
    direction = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    flat = torch.cat([d.flatten() for d in direction.values()]).double()
    products = loss_gradient_products(module, x, y, direction, dtype=torch.float64)
    torch.testing.assert_close(products, rows @ flat)


def test_dropout_between_layers_is_left_to_torch():
    """What is drawn at random is drawn by torch's own layer."""
    module, x = nn.LSTM(3, 4, 2, dropout=0.5), torch.randn(T, N, 3)
    torch.manual_seed(0)
    want = module(x)[0]
    torch.manual_seed(0)
    with StepByStep():
        assert torch.equal(module(x)[0], want)
