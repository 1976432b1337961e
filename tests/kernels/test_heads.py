"""The freshly drawn head."""

from __future__ import annotations

import pytest
import torch
from oracles_kernels import kernel_oracle

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import empirical_ntk, ntk_head


def head(seed=0, **options):
    return ntk_head(6, 20, 4, generator=torch.Generator().manual_seed(seed), **options)


def test_outputs_are_scaled_by_the_root_of_the_fan_in():
    """f = W2 relu(W1 x / sqrt(d)) / sqrt(h), with standard normal weights and no biases."""
    module, x = head(), torch.randn(3, 6, dtype=torch.float64)
    w1, w2 = (p.detach() for p in module.parameters())
    assert (w1.shape, w2.shape) == ((20, 6), (4, 20))
    want = torch.relu(x @ w1.T / 6**0.5) @ w2.T / 20**0.5
    torch.testing.assert_close(module(x).detach(), want)
    wide = ntk_head(200, 300, 2, generator=torch.Generator().manual_seed(0))
    assert float(next(wide.parameters()).detach().std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_kernel_takes_the_factored_route_and_is_right(bias):
    """Every parameter by factors, equal to the oracle."""
    module, x = head(bias=bias), torch.randn(5, 6, dtype=torch.float64)
    kernel, info = empirical_ntk(module, x, return_info=True)
    torch.testing.assert_close(kernel, kernel_oracle(module, x, x, "pseudo"), rtol=1e-10, atol=1e-12)
    assert set(info["routes"].values()) == {"factored"}


def test_one_seed_one_head_and_no_global_generator():
    """The generator passed is the only source of the weights."""
    before = torch.get_rng_state()
    first, again, other = head(0), head(0), head(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(next(first.parameters()), next(again.parameters()))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert next(head(dtype=torch.float32).parameters()).dtype == torch.float32


def test_widths_are_checked():
    """A width below one is named."""
    with pytest.raises(InvalidInputError, match="n_hidden"):
        ntk_head(2, 0, 2, generator=torch.Generator())
