"""Laws that hold at one character of the source: each was broken there once, without a test that saw it."""

import sqlite3
from contextlib import closing, nullcontext, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNet
from torch import nn

from modal_ntk import LabelingSession
from modal_ntk.bench.analysis.significance import average_ranks, detectable_difference, doubts, penalty_matrix
from modal_ntk.bench.analysis.statistics import Curves
from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels.posterior import condition_block, posterior
from modal_ntk.labeling.state import State
from modal_ntk.nets import NetView
from modal_ntk.nets.reading.outputs import gives_a_matrix, sums_to_one
from modal_ntk.nets.rows import row_digests
from modal_ntk.nets.traceless import no_trace
from modal_ntk.nets.waal.adversarial import waal_coefficients
from modal_ntk.pruning import SampleHistory, find_label_conflicts
from modal_ntk.selection import herding, look_ahead, max_herding
from modal_ntk.strategies.common.kernel_query import scaled
from modal_ntk.structure import redundant_samples
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


def test_weights_and_similarities_count_by_their_ratios():
    """Fifty times as large, they give the same picks and fifty times the gains, also where similarities exceed one."""
    rows = torch.randn(600, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = np.random.default_rng(0).uniform(0.1, 1, 600)

    def near(unit):
        return lambda X, Y: unit * torch.exp(-torch.cdist(X, Y) / 5)

    plain = max_herding(rows, 12, weights=weights, kernel=near(1.0), random_state=0)
    for weight, unit in ((50.0, 1.0), (1.0, 50.0)):
        heavy = max_herding(rows, 12, weights=weight * weights, kernel=near(unit), random_state=0)
        np.testing.assert_array_equal(heavy.indices, plain.indices)
        np.testing.assert_allclose(heavy.scores, 50 * plain.scores, rtol=1e-9)


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    device = property(lambda _: SimpleNamespace(type="cuda"))


def test_a_gpu_sums_up_what_the_loops_do():
    """Gains of a tile, of its rows and, where they are others, its columns, come from tensors as from loops."""
    rng = torch.Generator().manual_seed(0)
    cover, weights = torch.rand(7, generator=rng), torch.rand(7, generator=rng, dtype=torch.float64)
    for here, there in ((slice(0, 4), slice(4, 7)), (slice(0, 4), slice(0, 4))):
        tile, found = torch.rand(4, there.stop - there.start, generator=rng), []
        for kind in (torch.Tensor, Elsewhere):
            sums = torch.zeros(7, dtype=torch.float64)
            herding._add(sums, tile.as_subclass(kind), cover, weights, here, there)
            found.append(sums.numpy())
        np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
        assert found[0].sum() > 0


def test_a_label_in_every_fold_is_often_enough():
    """Labels that occur n_folds times are judged, once in every fold; those that occur less are refused."""
    X, y = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32), np.array([0] * 6 + [1] * 3)
    net = zoo.net(nn.Linear(2, 2), max_epochs=1)
    assert sorted(find_label_conflicts(net, X, y, n_folds=3, random_state=0).indices.tolist()) == list(range(9))
    with pytest.raises(InvalidInputError, match="n_folds=4"):
        find_label_conflicts(net, X, y, n_folds=4, random_state=0)


def test_both_zeros_are_one_row():
    """Rows that are equal have one digest, whatever the sign of a zero."""
    first, second, other = row_digests(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]]))
    assert first == second != other


@pytest.mark.parametrize(
    ("values", "so"), [([0.25, 0.75], True), ([0.6, 0.6], False), ([1.0, 1.0], False), ([-0.5, 1.5], False)]
)
def test_probabilities_are_known_by_their_sum(values, so):
    """Rows of nothing negative that sum to one."""
    assert sums_to_one(torch.tensor([[0.5, 0.5], values])) is so


def test_the_most_redundant_are_so_by_share():
    """Of the redundant those stay out that exceed their own similarity by the largest part, not by the most."""
    kernel = np.diag([1.0, 100.0, 5.0, 300.0])
    kernel[0, 2] = kernel[2, 0] = 4.0  # three times its own more
    kernel[1, 3] = kernel[3, 1] = 200.0  # as much as its own more
    assert redundant_samples(kernel).tolist() == [True, True, False, False]
    assert redundant_samples(kernel, at_most=1).tolist() == [True, False, False, False]


def test_a_new_log_tells_its_format_and_no_ask(tmp_path):
    """Logs are of format 1, and one of format 2 is refused; the seeds of queries are counted from none."""
    path, pool = tmp_path / "s.sqlite", np.arange(8.0).reshape(4, 2)
    LabelingSession(path, pool)
    assert State(4).n_asks == 0
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT value FROM session WHERE key = 'format'").fetchall() == [("1",)]
        connection.execute("UPDATE session SET value = '2' WHERE key = 'format'")
    with pytest.raises(InvalidInputError, match="a log of format 1 or before"):
        LabelingSession(path, pool)


def test_holm_corrects_only_where_it_is_asked_for():
    """Two budgets, each significant by itself at p = .041, are not by Holm's correction."""
    noise = np.random.default_rng(3).normal(size=(8, 2))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1) + 2.5 / np.sqrt(8)  # a paired t of 2.5
    found = {
        name: Curves(name, tuple(range(8)), np.array([10, 20]), *[values] * 3)
        for name, values in (("a", np.zeros((8, 2))), ("b", noise))
    }
    assert penalty_matrix(found, correction="none").matrix.sum() == 1
    assert penalty_matrix(found, correction="holm").matrix.sum() == 0


@pytest.mark.parametrize("power", [0.06, 0.2, 0.8])
@pytest.mark.parametrize("n_seeds", [3, 10])
def test_the_difference_that_seeds_show_is_that_of_the_t_test(n_seeds, power):
    """Its power is the noncentral t's beyond either bound, also where the lower one still counts."""
    shift = detectable_difference(1.0, n_seeds, power=power) * np.sqrt(n_seeds)
    bound = stats.t.ppf(0.975, n_seeds - 1)
    beyond = stats.nct.sf(bound, n_seeds - 1, shift) + stats.nct.cdf(-bound, n_seeds - 1, shift)
    assert beyond == pytest.approx(power, abs=1e-3)


def test_two_labels_are_several():
    """A net for two labels of one sample has a probability for each."""
    net = zoo.net(kind=NeuralNet, module__n_classes=2, criterion=nn.BCEWithLogitsLoss).initialize()
    found = NetView(net).label_probabilities(np.zeros((3, 6), np.float32))
    assert found.shape == (3, 2)


def test_a_history_without_an_epoch_is_empty():
    """No epoch, and no sample, of losses, errors or answers."""
    history = SampleHistory().initialize()
    assert history.losses_.shape == history.errors_.shape == history.correct_.shape == (0, 0)


def test_a_classifier_of_one_output_gives_no_matrix():
    """Whether it says how many outputs it has or not; of several it does, and as many lists of classes."""
    X, y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2
    forest = RandomForestClassifier(2, random_state=0)
    assert not gives_a_matrix(clone(forest).fit(X, y))
    assert not gives_a_matrix(LogisticRegression().fit(X, y))
    assert gives_a_matrix(clone(forest).fit(X, np.c_[y, 1 - y]))
    assert gives_a_matrix(SimpleNamespace(n_outputs_=2))


def test_two_blocks_are_enough_for_friedmans_test():
    """Of three strategies over two blocks there is a p value; over one there is none, nor of two strategies."""
    scores = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.55]])
    assert average_ranks(["a", "b", "c"], scores).p_value == stats.friedmanchisquare(*scores.T).pvalue
    assert np.isnan(average_ranks(["a", "b", "c"], scores[:1]).p_value)
    assert np.isnan(average_ranks(["a", "b"], scores[:, :2]).p_value)


def test_generators_of_a_nets_own_gpus_are_kept(monkeypatch):
    """The first GPU has number 0, and each is named once."""
    parameters = [SimpleNamespace(is_cuda=n is not None, device=torch.device("cuda", n or 0)) for n in (0, 2, None, 0)]
    kept = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: kept.append(devices) or nullcontext())
    module = nn.Linear(1, 1)
    monkeypatch.setattr(module, "parameters", lambda: parameters)
    with suppress(Exception), no_trace(module):
        pass
    assert kept == [[0, 2]]
