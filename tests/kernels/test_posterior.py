"""Kernel regression, its posterior and the updates against dense solves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels.posterior import condition, condition_block, posterior
from modal_ntk.kernels.regression import all_finite, jittered_cholesky, ntk_regression

F64 = {"dtype": torch.float64}
K_LL = torch.tensor([[2, 0.5], [0.5, 1]], **F64)
K_UL = torch.tensor([[1, 0.2], [0.4, 0.9], [0.3, 0.3]], **F64)
K_UU = torch.tensor([[2, 0.3, 0.2], [0.3, 1.5, 0.4], [0.2, 0.4, 1]], **F64)
F0_L = torch.tensor([[0.1, -0.1], [0, 0.2]], **F64)
F0_U = torch.tensor([[0.1, 0], [-0.1, 0.1], [0, 0]], **F64)
WHOLE = torch.cat([torch.cat([K_LL, K_UL.T], 1), torch.cat([K_UL, K_UU], 1)])


def near(got, want, atol=1.1e-6):
    torch.testing.assert_close(got, torch.tensor(want, **F64), rtol=0, atol=atol)


def test_worked_example_k2_regression():
    """Predictions in the limit and at time one, computed elsewhere to six digits."""
    options = {"f0_train": F0_L, "f0_test": F0_U, "rel_jitter": 0.0}
    limit = ntk_regression(K_LL, K_UL, torch.eye(2), **options)
    near(limit, [[0.562857, 0.005714], [-0.125714, 0.828571], [0.077143, 0.214286]])
    finite = ntk_regression(K_LL, K_UL, torch.eye(2), time=1.0, **options)
    near(finite, [[0.482489, 0.065002], [-0.021950, 0.543025], [0.092812, 0.141557]])


def k2_state(rel_jitter=0.0):
    targets = torch.zeros(5, 2, **F64)
    targets[:2] = torch.eye(2)
    return posterior(WHOLE, [0, 1], targets, f0=torch.cat([F0_L, F0_U]), rel_jitter=rel_jitter)


@pytest.mark.parametrize(
    ("candidate", "label", "expected"),
    [
        (0, 0, [[1, 0], [-0.083168, 0.828015], [0.095496, 0.214046]]),
        (1, 1, [[0.589461, 0.041992], [0, 1], [0.101660, 0.247718]]),
        (2, 1, [[0.557452, 0.060764], [-0.137261, 0.946178], [0, 1]]),
    ],
)
def test_worked_example_k2_posterior_and_one_point(candidate, label, expected):
    """Posterior covariance of the pool, and predictions after adding one candidate."""
    state = k2_state()
    near(
        state.covariance[2:, 2:],
        [[1.497143, 0.145714, 0.062857], [0.145714, 0.688571, 0.134286], [0.062857, 0.134286, 0.897143]],
    )
    condition(state, 2 + candidate, torch.eye(2)[label])
    near(state.mean[2:], expected)


def random_kernel(n, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, rank, generator=generator, **F64)
    return factors @ factors.T, torch.randn(n, 2, generator=generator, **F64), generator


@settings(deadline=None, max_examples=30)
@given(n=st.integers(3, 9), n_labeled=st.integers(0, 3), seed=st.integers(0, 10_000))
def test_updates_equal_solving_anew(n, n_labeled, seed):
    """Adding rows one by one, or as a block, gives mean and covariance of the regression on all of them."""
    kernel, targets, generator = random_kernel(n, n + 2, seed)
    f0 = torch.randn(n, 2, generator=generator, **F64)
    order = torch.randperm(n, generator=generator)
    labeled, more = order[:n_labeled], order[n_labeled : n_labeled + 2]
    both = torch.cat([labeled, more])
    whole = posterior(kernel, both, targets, f0=f0, rel_jitter=1e-13)
    one, block = (posterior(kernel, labeled, targets, f0=f0, rel_jitter=1e-13) for _ in range(2))
    for row in more.tolist():
        condition(one, row, targets[row])
    condition_block(block, more, targets[more])
    scale = float(kernel.diagonal().mean()) * 1e-6
    inverse = torch.linalg.pinv(kernel[both][:, both], hermitian=True)
    dense = f0 + kernel[:, both] @ inverse @ (targets[both] - f0[both])
    if float(torch.linalg.cond(kernel[both][:, both])) < 1e4:
        for state in (whole, one, block):
            torch.testing.assert_close(state.mean, dense, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(state.covariance, whole.covariance, rtol=1e-5, atol=scale)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 8), rank=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_singular_kernels_stay_finite_and_tell_their_jitter(n, rank, seed):
    """Kernels of low rank factor with a jitter that is reported, and factor times its transpose gives it back."""
    kernel, _, _ = random_kernel(n, rank, seed)
    factor, jitter = jittered_cholesky(kernel)
    shifted = kernel + jitter * torch.eye(n, **F64)
    assert jitter >= 1e-6 * float(kernel.diagonal().mean()) * (1 - 1e-9)
    torch.testing.assert_close(factor @ factor.T, shifted, rtol=1e-9, atol=1e-9 * float(kernel.diagonal().max()))


def test_duplicates_are_known_already():
    """A copy of a labelled row changes nothing; predictions with copies are those without."""
    kernel, targets, _ = random_kernel(4, 6, 0)
    rows = torch.tensor([0, 1, 2, 3, 0])
    doubled = kernel[rows][:, rows]
    state = posterior(doubled, [0, 1], targets[rows])
    before = state.mean.clone(), state.covariance.clone()
    condition(state, 4, torch.full((2,), 9.0))
    assert torch.equal(state.mean, before[0])
    assert torch.equal(state.covariance, before[1])
    both = posterior(doubled, [0, 1, 4], targets[rows])
    assert both.mean.isfinite().all()
    torch.testing.assert_close(both.mean, before[0], rtol=0, atol=1e-4)
    empty = posterior(doubled, [], targets[rows])
    jitter = condition_block(empty, [0, 4], targets[rows][[0, 4]])
    assert empty.mean.isfinite().all()
    assert jitter >= empty.jitter


def test_nothing_labelled_is_the_prior():
    """Without labels covariance and mean are kernel and f0, as copies."""
    kernel, targets, _ = random_kernel(4, 6, 0)
    state = posterior(kernel, [], targets, f0=targets)
    assert torch.equal(state.covariance, kernel)
    assert torch.equal(state.mean, targets)
    condition(state, 0, targets[0] + 1)
    kernel_again, targets_again, _ = random_kernel(4, 6, 0)
    assert torch.equal(kernel, kernel_again)
    assert torch.equal(targets, targets_again)


def test_escalation_is_reported():
    """An indefinite kernel takes more than the first jitter, and the sum says how much."""
    kernel = torch.tensor([[1, 0], [0, -1e-3]], **F64)
    factor, jitter = jittered_cholesky(kernel)
    assert 1e-3 < jitter < 0.1
    torch.testing.assert_close(factor @ factor.T, kernel + jitter * torch.eye(2, **F64))
    bare, none = jittered_cholesky(torch.eye(2), rel=0.0)
    assert none == 0
    assert torch.equal(bare, torch.eye(2, **F64))
    assert jittered_cholesky(torch.zeros(2, 2))[1] == 1e-6


def test_batches_of_kernels():
    """Leading axes hold kernels of their own."""
    kernels = torch.stack([random_kernel(4, 6, seed)[0] for seed in (0, 1)])
    targets = torch.stack([random_kernel(4, 6, seed)[1] for seed in (0, 1)])
    for time in (None, 0.3):
        together = ntk_regression(kernels[:, :3, :3], kernels[:, 3:, :3], targets[:, :3], time=time)
        alone = [ntk_regression(k[:3, :3], k[3:, :3], y[:3], time=time) for k, y in zip(kernels, targets, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone))


def test_finite_time_runs_from_the_start_to_the_limit():
    """A short time leaves f0, a long one gives the limit, and a singular kernel is no obstacle."""
    options = {"f0_train": F0_L, "f0_test": F0_U}
    start = ntk_regression(K_LL, K_UL, torch.eye(2), time=1e-9, **options)
    torch.testing.assert_close(start, F0_U, rtol=0, atol=1e-8)
    late = ntk_regression(K_LL, K_UL, torch.eye(2), time=1e4, **options)
    limit = ntk_regression(K_LL, K_UL, torch.eye(2), rel_jitter=0.0, **options)
    torch.testing.assert_close(late, limit, rtol=0, atol=1e-10)
    ones = torch.ones(2, 2, **F64)
    singular = ntk_regression(ones, ones, torch.eye(2), time=1e6)
    near(singular, [[0.5, 0.5], [0.5, 0.5]], atol=1e-9)


def test_gradient_flow_is_what_is_predicted():
    """Predictions at a finite time are those of small steps of descent on the kernel's features."""
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), **F64)
    train, test, goal = features[:3], features[3:], torch.eye(3, **F64)
    weights, steps = torch.zeros(7, 3, **F64), 20_000
    for _ in range(steps):
        weights -= 0.4 / steps * train.T @ (train @ weights - goal)
    got = ntk_regression(train @ train.T, test @ train.T, goal, time=0.4)
    torch.testing.assert_close(got, test @ weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jittered_cholesky(torch.ones(2, 3)), "square kernel"),
        (lambda: jittered_cholesky(torch.full((2, 2), float("nan"))), "finite kernel"),
        (lambda: jittered_cholesky(-torch.eye(2)), "positive semi-definite"),
        (lambda: ntk_regression(K_LL, K_UU, torch.eye(2)), "2 columns"),
        (lambda: ntk_regression(K_LL, K_UL, torch.eye(3)), "targets of shape"),
        (lambda: ntk_regression(K_LL, K_UL, torch.eye(2), time=0), "time"),
        (lambda: posterior(K_LL, [0, 0], torch.eye(2)), "distinct rows"),
        (lambda: posterior(K_LL, [2], torch.eye(2)), "below 2"),
        (lambda: posterior(K_LL, [0], torch.eye(2), f0=torch.zeros(2, 3)), "f0 of shape"),
        (lambda: condition(k2_state(), 5, torch.zeros(2)), "row from 0 to 4"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    """Each refusal names the argument and what it should be."""
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_entry_that_is_not_finite_is_found(dtype, value):
    """Wherever it stands; a matrix of the largest numbers, whose sum overflows, and an empty one are finite."""
    matrix = torch.full((40, 40), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite(matrix)
    assert all_finite(matrix[:0])
    for row, column in ((0, 0), (17, 31), (39, 39)):
        odd = matrix.clone()
        odd[row, column] = value
        assert not all_finite(odd)
