"""The closed-form kernel of the infinitely wide head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_kernels import infinite_width_oracle

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import empirical_ntk, infinite_width_ntk, ntk_head


def samples(seed, n=9, d=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n1=st.integers(1, 12), n2=st.integers(1, 12), d=st.integers(1, 6))
def test_entries_equal_the_integrals(seed, n1, n2, d):
    """K = E[relu(u) relu(v)] + S E[1(u>0) 1(v>0)] for Gaussian u, v with covariance S, as Cho and Saul solve it."""
    x1, x2 = samples(seed, n1, d), samples(seed + 1, n2, d)
    want = infinite_width_oracle(x1.numpy(), x2.numpy())
    np.testing.assert_allclose(infinite_width_ntk(x1, x2), want, rtol=1e-9, atol=1e-12)


def test_it_is_the_limit_of_drawn_heads():
    """The mean over 40 heads of width 4,000 is within the noise of so many draws, which 64 units exceed tenfold."""
    x = samples(0)
    drawn = [
        empirical_ntk(ntk_head(5, 4000, 1, generator=torch.Generator().manual_seed(s)), x).detach() for s in range(40)
    ]
    kernel = infinite_width_ntk(x)
    torch.testing.assert_close(torch.stack(drawn).mean(dim=0), kernel, rtol=0, atol=0.02 * float(kernel.max()))
    narrow = empirical_ntk(ntk_head(5, 64, 1, generator=torch.Generator().manual_seed(0)), x).detach()
    assert float((narrow - kernel).abs().max()) > 0.02 * float(kernel.max())


def test_blocks_change_nothing(monkeypatch):
    """One row at a time gives what one block gives, symmetric to the last bit."""
    x = samples(3, n=40)
    whole = infinite_width_ntk(x)
    monkeypatch.setattr("modal_ntk.kernels.infinite_width._BLOCK_BYTES", 8 * 40 * 7)
    blocks = infinite_width_ntk(x)
    torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-14)
    assert torch.equal(blocks, blocks.T)
    assert torch.equal(whole, whole.T)
    torch.testing.assert_close(infinite_width_ntk(x, x), whole, rtol=1e-7, atol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), copies=st.integers(0, 5))
def test_it_is_positive_semi_definite_also_with_copies(seed, copies):
    """No eigenvalue is below zero by more than the angle's rounding, whatever rows are copies or zero."""
    x = samples(seed, n=12)
    x = torch.cat([x, x[:copies], torch.zeros(1, 5, dtype=torch.float64)])
    kernel = infinite_width_ntk(x)
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-6 * float(kernel.diagonal().mean())
    assert torch.equal(kernel[-1], torch.zeros(len(x), dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e-150, 1e-3, 10.0, 1e150]))
def test_it_is_homogeneous_in_each_sample(seed, factor):
    """A sample times a positive number has its kernel times that number, however large."""
    x = samples(seed)
    torch.testing.assert_close(infinite_width_ntk(factor * x, x), factor * infinite_width_ntk(x, x), rtol=1e-7, atol=0)


def test_single_precision_is_double_precision_rounded():
    """Angles are computed in double precision whatever comes in, and the type of the samples is kept."""
    x = samples(1).float()
    kernel = infinite_width_ntk(x)
    assert kernel.dtype == torch.float32
    torch.testing.assert_close(kernel, infinite_width_ntk(x.double()).float(), rtol=1e-6, atol=0)
    assert infinite_width_ntk(x, dtype=torch.float64).dtype == torch.float64
    assert infinite_width_ntk([[1, 2], [3, 4]]).dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.ones(3),), {}, r"x1 of shape \(n, d\)"),
        ((torch.ones(3, 2), torch.ones(3, 4)), {}, "x2 of width 2"),
        ((torch.tensor([[1.0, torch.nan]]),), {}, "finite x1"),
        ((torch.ones(30, 2),), {"memory_budget": 100}, "at most 100 bytes"),
        ((torch.ones(3, 2, dtype=torch.complex64),), {}, "real numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    """What cannot be used is refused before the kernel is made, in words."""
    with pytest.raises(InvalidInputError, match=message):
        infinite_width_ntk(*arguments, **options)
