"""Laws that hold at one character of the source: each was broken there once, without a test that saw it."""

import numpy as np
import pytest
import torch

from modal_ntk import LabelingSession
from modal_ntk.bench.analysis.significance import detectable_difference, doubts
from modal_ntk.bench.analysis.statistics import Curves
from modal_ntk.kernels.posterior import condition_block, posterior
from modal_ntk.nets.waal.adversarial import waal_coefficients
from modal_ntk.selection import look_ahead
from modal_ntk.strategies.common.kernel_query import scaled
from modal_ntk.structure.assignment import LabeledRows, assign_labeled


def kernel_of(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 2 * n))
    return x @ x.T / n


def test_a_block_is_conditioned_with_the_jitter_of_the_state():
    """Mean and covariance move by K_:B (K_BB + jitter)^-1, with a jitter that is no rounding."""
    kernel, targets = kernel_of(6), np.arange(12.0).reshape(6, 2)
    state = posterior(torch.from_numpy(kernel), [0], torch.from_numpy(targets), rel_jitter=0.3)
    covariance, mean, jitter = state.covariance.numpy().copy(), state.mean.numpy().copy(), state.jitter
    assert jitter > 0.1
    rows = [2, 4]
    assert condition_block(state, rows, torch.from_numpy(targets[rows])) == pytest.approx(jitter)
    gain = covariance[:, rows] @ np.linalg.inv(covariance[np.ix_(rows, rows)] + jitter * np.eye(2))
    np.testing.assert_allclose(state.mean, mean + gain @ (targets[rows] - mean[rows]), rtol=1e-9)
    np.testing.assert_allclose(state.covariance, covariance - gain @ covariance[rows], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labeled", [[], [0]])
def test_in_single_precision_rounding_is_known_already(labeled):
    """With labels or without, a variance below 1e-5 of the mean diagonal counts as known in float32, not in float64."""
    kernel = torch.from_numpy(kernel_of(5))
    mean = float(kernel.diagonal().mean())
    single, double = (
        posterior(kernel, labeled, torch.zeros(5, 1), rel_jitter=1e-9, dtype=dtype).jitter
        for dtype in (torch.float32, torch.float64)
    )
    assert single == pytest.approx(1e-5 * mean)
    assert double < 1e-7 * mean


def test_equal_margins_are_ordered_by_seed():
    """Where objective and margin tie, every one of the tied comes first for some seed."""
    picks = {
        look_ahead(np.eye(6), [0, 1] * 3, [], 1, tie_break="margin", random_state=seed).indices[0] for seed in range(60)
    }
    assert picks == {1, 3, 5}  # those of the class that an arg max of zeros does not name


def test_the_row_nearest_to_a_centre_is_seated_first():
    """Nearness is that to the nearest centre, not to the farthest or to all of them."""
    known = LabeledRows(np.array([0, 1]), np.array([0, 1]), linked=False)
    assert assign_labeled(known, np.array([[2.0, 9.0], [1.0, 50.0]]), []).tolist() == [1, 0]


def test_standard_features_have_the_deviation_of_all_rows():
    """Columns have mean zero and, over the rows themselves, deviation one: no sample correction."""
    rows = scaled(torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]), "standard").numpy()
    np.testing.assert_allclose((rows**2).mean(0), [1, 0])
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-15)


@pytest.mark.parametrize("how", ["l2", "center_l2", "standard"])
@pytest.mark.parametrize("unit", [2.0**-1060, 2.0**-700, 2.0**700, 2.0**1020])
def test_scaled_features_do_not_depend_on_the_unit(how, unit):
    """What squares would carry out of float64 is scaled as anything else is."""
    rows = torch.tensor([[1.0, 5.0], [2.0, -3.0], [6.0, 5.0]], dtype=torch.float64)
    np.testing.assert_allclose(scaled(rows * unit, how), scaled(rows, how), rtol=1e-3 if unit < 1e-310 else 1e-14)


@pytest.mark.parametrize("how", ["center_l2", "standard"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.1, 7e5, 1e30])
def test_a_constant_column_changes_no_other(how, dtype, constant):
    """Its mean is rounded, and by as much as the others are large; what is left of it counts for nothing."""
    rows = torch.randn(101, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    beside = scaled(torch.hstack([rows, torch.full((101, 1), constant, dtype=dtype)]), how)
    np.testing.assert_array_equal(beside[:, 3], 0)
    np.testing.assert_allclose(beside[:, :3], scaled(rows, how), rtol=1e-12)


def test_no_query_is_larger_than_what_is_unlabelled():
    """A batch beyond the pool weighs as the whole pool."""
    for equation in (7, 8):
        beyond, whole = (waal_coefficients(10, 4, b, equation=equation) for b in (400, 4))
        assert beyond == whole
        assert beyond != waal_coefficients(10, 4, 3, equation=equation)


def test_what_seeds_would_show_is_for_as_many_rivals_as_there_are():
    """The difference that is named is the one of a test whose level is divided by the number of rivals."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(3, 6, 2))
    names = ("a", "b", "c")
    found = {
        name: Curves(name, tuple(range(6)), np.array([10, 20]), 0.5 + noise[i], noise[i], noise[i])
        for i, name in enumerate(names)
    }
    best = max(found.values(), key=lambda curve: curve.areas.mean())
    rivals = [curve for curve in found.values() if curve is not best]
    said = " ".join(doubts(found))
    for rival in rivals:
        deviation = float((best.areas - rival.areas).std(ddof=1))
        assert f"seeds show a difference of {detectable_difference(deviation, 6, alpha=0.05 / 2):.4f}" in said


def test_a_row_skipped_unasked_is_never_asked(tmp_path):
    """What was skipped counts as taken, although nobody had asked for it."""
    session = LabelingSession(tmp_path / "s.sqlite", np.arange(8.0).reshape(4, 2))
    session.skip(2)
    assert sorted(session.ask(3).tolist()) == [0, 1, 3]
