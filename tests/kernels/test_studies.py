"""Alignment, bound, discrepancy and dynamics against worked figures and their laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_kernels import kernel_oracle, logits64, nets

from modal_ntk import kernels
from modal_ntk.errors import InvalidInputError
from modal_ntk.features import loss_gradient_sum

THETA = torch.tensor([[2, 0.5, 0.1], [0.5, 1.5, 0.2], [0.1, 0.2, 1]], dtype=torch.float64)


def test_worked_example_d2():
    """All figures of one three-point kernel."""
    assert kernels.alignment(THETA, [0, 1, 0]) == pytest.approx(4.7)
    assert kernels.generalization_bound(THETA, [0, 1, 0], rel_jitter=0.0) == pytest.approx(1.232984, abs=1e-6)
    assert kernels.mmd(THETA, [0, 1]).squared == pytest.approx(0.116667, abs=1e-6)
    assert kernels.mmd(THETA, [0, 1]).value == pytest.approx(0.116667**0.5, abs=1e-6)


def drawn(n, seed):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, n + 3, generator=generator, dtype=torch.float64)
    return factors @ factors.T, torch.randint(0, 3, (n,), generator=generator)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 7), seed=st.integers(0, 10_000))
def test_alignment_bounds_the_generalisation_bound(n, seed):
    """Tr(Y'Y)^2 / A <= n B^2 / 2 <= (largest / smallest eigenvalue) Tr(Y'Y)^2 / A."""
    kernel, y = drawn(n, seed)
    values = torch.linalg.eigvalsh(kernel)
    left = n**2 / kernels.alignment(kernel, y)
    middle = n / 2 * kernels.generalization_bound(kernel, y, rel_jitter=0.0) ** 2
    assert left <= middle * (1 + 1e-9)
    assert middle <= float(values[-1] / values[0]) * left * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 7), seed=st.integers(0, 10_000), n_steps=st.integers(0, 5))
def test_training_error_is_that_of_gradient_descent(n, seed, n_steps):
    """Equals the residual of descent from zero step by step, and keeps between its bounds by alignment."""
    kernel, y = drawn(n, seed)
    targets = torch.nn.functional.one_hot(y).double()
    rate = 0.9 / float(torch.linalg.eigvalsh(kernel)[-1])
    outputs = torch.zeros_like(targets)
    for _ in range(n_steps):
        outputs = outputs - rate * kernel @ (outputs - targets)
    error = kernels.training_error(kernel, y, rate=rate, n_steps=n_steps)
    assert error == pytest.approx(float((targets - outputs).square().sum()), rel=1e-8)
    aligned = kernels.alignment(kernel, y)
    assert n - 2 * n_steps * rate * aligned <= error * (1 + 1e-9) + 1e-9
    if n_steps:
        assert error <= n - rate * aligned + 1e-9


@settings(deadline=None, max_examples=30)
@given(n=st.integers(3, 7), m=st.integers(2, 3), seed=st.integers(0, 10_000))
def test_mmd_is_its_sums(n, m, seed):
    """Equals the three sums over pairs, written as loops."""
    kernel, _ = drawn(n, seed)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:m].tolist()
    within = sum(kernel[i, j] for i in rows for j in rows if i != j) / (m * m - m)
    overall = sum(kernel[i, j] for i in range(n) for j in range(n) if i != j) / (n * n - n)
    across = sum(kernel[i, j] for i in rows for j in range(n) if i != j) / (m * (n - 1))
    assert kernels.mmd(kernel, rows).squared == pytest.approx(float(within + overall - 2 * across), abs=1e-9)


def test_negative_discrepancy_is_kept_beside_its_root():
    """An unbiased estimate below zero has root zero and is told."""
    kernel = torch.eye(3, dtype=torch.float64) - 0.2
    kernel[0, 1] = kernel[1, 0] = -0.9
    found = kernels.mmd(kernel, [0, 1])
    assert found.squared < 0
    assert found.value == 0


def test_training_dynamics_is_the_squared_length_of_the_summed_gradient():
    """With the full kernel and residuals softmax - y, equation 8 is |sum of loss gradients|^2."""
    module, x = nets()["lenet"]
    y = torch.arange(len(x)) % 3
    full = kernel_oracle(module, x, x, "full")
    residuals = logits64(module, x).softmax(1) - torch.nn.functional.one_hot(y, 3)
    total = loss_gradient_sum(module, x, y, dtype=torch.float64)
    length = sum(float(g.square().sum()) for g in total.values())
    assert kernels.training_dynamics(full, residuals) == pytest.approx(length, rel=1e-9)
    scalar = kernel_oracle(module, x, x, "trace")
    expected = torch.einsum("ia,ij,ja->", residuals, scalar, residuals)
    assert kernels.training_dynamics(scalar, residuals) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.alignment(THETA, [0, 1]), "kernel \\(n, n\\) with targets"),
        (lambda: kernels.mmd(THETA, [0]), "two rows or more"),
        (lambda: kernels.mmd(THETA, [0, 3]), "below 3"),
        (lambda: kernels.training_dynamics(THETA, torch.zeros(2, 2)), "residuals \\(n, K\\)"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    """Each refusal names the shapes."""
    with pytest.raises(InvalidInputError, match=message):
        call()
