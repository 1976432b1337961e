"""Max-pooling as maxima of whole arrays is torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from modal_ntk.features.capture.pooling import Maxima, adaptive_avg_pool2d, max_pool2d
from modal_ntk.features.loss_gradients import LossGradients

SIZES = [1, 2, (2, 1), (1, 2), (1, 4), 3]


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(3, 7), st.integers(4, 7)),
    size=st.sampled_from(SIZES),
    levels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_torch(shape, size, levels, seed):
    """Maxima and their gradient equal torch's, where pixels tie and where windows leave an edge over."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(levels, shape, generator=generator).double().requires_grad_()
    want = F.max_pool2d(pixels, size)
    got = max_pool2d(pixels, size)
    assert torch.equal(got, want)
    assert ("Maxima" in got.grad_fn.name()) == (size != 3)
    weights = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(want, pixels, weights)[0]
    for again in (True, False):
        assert torch.equal(torch.autograd.grad(got, pixels, weights, retain_graph=again)[0], expected)


@pytest.mark.parametrize(
    "options",
    [{"stride": 1}, {"padding": 1}, {"dilation": 2}, {"ceil_mode": True}, {"kernel_size": 3}, {"stride": (2, 1)}],
    ids=str,
)
def test_other_windows_are_left_to_torch(options, monkeypatch):
    """Windows that overlap, are padded, spread, cut or large go to torch as they were asked for."""
    monkeypatch.setattr(Maxima, "apply", None)
    pixels = torch.randn(2, 3, 7, 7)
    asked = {"kernel_size": 2, **options}
    assert torch.equal(max_pool2d(pixels, **asked), F.max_pool2d(pixels, **asked))
    values, where = max_pool2d(pixels, 2, return_indices=True)
    expected = F.max_pool2d(pixels, 2, return_indices=True)
    assert torch.equal(values, expected[0])
    assert torch.equal(where, expected[1])


@pytest.mark.parametrize("size", [1, (1, 1), [1, 1], 2, (1, 2), (None, 1)], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_averages_are_those_of_torch(size, layout):
    """Averages over all pixels, and over parts of them, and their gradients equal torch's, however laid out."""
    pixels = torch.randn(3, 4, 5, 6).double().contiguous(memory_format=layout).requires_grad_()
    want, got = F.adaptive_avg_pool2d(pixels, size), adaptive_avg_pool2d(pixels, size)
    assert torch.equal(got, want)
    weights = torch.randn_like(want)
    assert torch.equal(*(torch.autograd.grad(out, pixels, weights)[0] for out in (got, want)))
    assert torch.equal(adaptive_avg_pool2d(pixels[0], size), F.adaptive_avg_pool2d(pixels[0], size))


def test_a_change_in_place_after_pooling_is_allowed():
    """A net that rectifies its pooled pixels in place has the gradients of one that does not."""
    layers = nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3)
    net = nn.Sequential(*layers).double()
    apart = nn.Sequential(*layers[:2], nn.ReLU(), *layers[3:])
    x = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    found = []
    for module in (net, apart):
        gradients = LossGradients(module)
        with gradients.evaluating():
            found.append(gradients.measure(x, labels=[0, 1, 2, 0]).squared_norms)
        assert set(gradients.routes.by_name.values()) == {"factored"}
    assert torch.equal(*found)
