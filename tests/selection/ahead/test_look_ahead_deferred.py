"""Look-ahead at squared error and posterior variance, and ties broken by variance, against solving anew."""

from functools import partial

import numpy as np
import oracles_lookahead
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import Posterior, posterior
from modal_ntk.selection import look_ahead
from modal_ntk.selection.ahead.changes import Limit
from modal_ntk.selection.ahead.deferred import Deferred

problem = partial(oracles_lookahead.problem, n=18)


def naive(objective, kernel, targets, f0, known, rows, candidates, jitter):
    """Objective of every candidate by training and conditioning on it, one linear solve each; larger is better.

    A number behind the name is the weight of the share of variance left.
    """
    objective, weight = objective
    one_hot = np.eye(f0.shape[1])[targets]
    values = []
    before = oracles_lookahead.remaining_variance(kernel, known, jitter=jitter)[rows].sum()
    for c in candidates:
        noise = [*jitter, 0.0]
        left = oracles_lookahead.remaining_variance(kernel, [*known, c], jitter=noise)[rows]
        after = oracles_lookahead.trained(kernel, f0, [*known, c], one_hot, jitter=noise)
        share = left.sum() / np.diag(kernel)[rows].sum()
        if objective == "variance":
            values.append(before - left.sum())
        else:
            error = oracles_lookahead.objective_of(objective, after, f0, targets, rows)
            values.append(-error - weight * share)
    return np.array(values)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    objective=st.sampled_from([("variance", 0), ("squared_error", 0), ("squared_error", 2), ("risk", 0.5)]),
    n_labeled=st.integers(0, 5),
    n_rows=st.integers(6, 18),
)
def test_whole_batches_equal_solving_anew_for_every_candidate(seed, objective, n_labeled, n_rows):
    """At every step the pick is the best of all candidates tried one by one, and its score is its objective."""
    kernel, targets, f0, rng = problem(seed)
    rows = np.sort(rng.choice(18, n_rows, replace=False))
    known, scale = list(range(n_labeled)), 1e-6 * np.mean(np.diag(kernel))
    chosen = look_ahead(
        kernel, targets, known, 6, f0=f0, objective=objective[0], variance_weight=objective[1], evaluation=rows,
        tie_break="first", rel_jitter=1e-6,
    )  # fmt: skip
    jitter = [scale] * n_labeled
    for pick, score in zip(chosen.indices.tolist(), chosen.scores, strict=True):
        free = np.setdiff1d(np.arange(18), known)
        values = naive(objective, kernel, targets, f0, known, rows, free, jitter)
        assert values[free == pick][0] >= values.max() - 1e-7 * abs(values.max())
        want = values[free == pick][0] * (1 if objective[0] == "variance" else -1)
        assert score == pytest.approx(want, rel=1e-5, abs=1e-7)
        known, jitter = [*known, pick], [*jitter, 0.0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n_labeled=st.integers(0, 5), single=st.booleans())
def test_tie_break_and_objective_read_the_same_variance(seed, n_labeled, single):
    """The covariance's column sums, on either device's code, are the deferred ones, before and after a pick."""
    kernel, targets, f0, _ = problem(seed, copies=2)
    dtype = torch.float32 if single else torch.float64
    gram, known, everyone = torch.from_numpy(kernel).to(dtype), np.arange(n_labeled), np.arange(18)
    deferred = Deferred(gram, known, torch.from_numpy(f0), targets, everyone, n_picks=1, rel_jitter=1e-6)
    state = posterior(gram, known, torch.eye(3).double()[targets], f0=torch.from_numpy(f0), dtype=dtype)
    options = {"rtol": 2e-3, "atol": 2e-4} if single else {"rtol": 1e-6, "atol": 1e-8}
    got, limit = deferred.variance_reduction(everyone), Limit(state, targets, everyone, 1.0)
    np.testing.assert_allclose(got, limit.variance_reduction(everyone), **options)
    by_blocks = torch.cat([gains for _, gains in limit._gains(everyone)]).square().sum(dim=1)
    want = by_blocks.double().numpy() * state.covariance.diagonal().double().numpy()
    np.testing.assert_allclose(got, want, **options)
    np.testing.assert_allclose(deferred.mean.numpy(), state.mean.double().numpy(), rtol=1e-3, atol=1e-4)


def test_copies_of_what_is_known_are_worth_nothing():
    """A candidate equal to a labelled row lowers no variance and moves no error, in either precision."""
    kernel, targets, f0, _ = problem(5, copies=2)
    for dtype in (torch.float32, torch.float64):
        gram = torch.from_numpy(kernel).to(dtype)
        state = Deferred(gram, np.arange(2), torch.from_numpy(f0), targets, np.arange(18), n_picks=3, rel_jitter=1e-6)
        now = state.squared_error(np.array([0]))[0]
        assert state.variance_reduction(np.array([16, 17])).tolist() == [0, 0]
        assert state.squared_error(np.array([16, 17])).tolist() == [now, now]
        before = state.mean.clone()
        state.accept(16)
        assert torch.equal(before, state.mean)


def test_kernel_and_targets_are_read_only_and_no_covariance_is_budgeted():
    """The kernel keeps its values though it is offered, and a budget of one byte suffices."""
    kernel, targets, _, _ = problem(1)
    gram = torch.from_numpy(kernel.copy())
    look_ahead(gram, targets, [0], 4, objective="variance", overwrite_kernel=True, memory_budget=1, random_state=0)
    assert torch.equal(gram, torch.from_numpy(kernel))


@pytest.mark.parametrize("n_classes", [1, 4])
def test_variance_asks_for_no_targets(n_classes):
    """Picks by posterior variance are the same whatever the targets are; the risk reported is theirs."""
    kernel, targets, _, rng = problem(2, n_classes=3)
    other = rng.integers(n_classes, size=18)
    picks = [look_ahead(kernel, t, [0], 5, objective="variance", tie_break="first") for t in (targets, other)]
    assert picks[0].indices.tolist() == picks[1].indices.tolist()


def test_ties_by_variance_take_the_largest_fall_within_the_tolerance():
    """Among all candidates within the tolerance of the least risk, the one that lowers the variance most is taken."""
    kernel, targets, _, _ = problem(4, n=40, n_classes=4)
    everyone = np.arange(40)
    for tolerance in (0.0, 0.1, 1.0):
        chosen = look_ahead(kernel, targets, [0, 1], 1, tie_break="variance", tie_tolerance=tolerance, random_state=0)
        state = posterior(torch.from_numpy(kernel), [0, 1], torch.eye(4).double()[targets])
        free = np.arange(2, 40)
        limit = Limit(state, targets, everyone, 1.0)
        risk = limit.mismatches(free, targets) / 40
        tied = free[risk <= risk.min() + tolerance + 1e-12]
        fall = limit.variance_reduction(tied)
        assert chosen.indices.tolist() == [tied[fall.argmax()]]
        assert chosen.info["ties"] == [len(tied)]
        assert chosen.scores[0] == risk[free == chosen.indices[0]][0]
    design = look_ahead(kernel, targets, [0, 1], 6, objective="variance", random_state=0)
    wide = look_ahead(kernel, targets, [0, 1], 6, tie_break="variance", tie_tolerance=1.0, random_state=0)
    assert wide.indices.tolist() == design.indices.tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e-6, 100.0]))
def test_scaling_and_permuting_leave_the_picks_alone(seed, factor):
    """A kernel times a number gives the same design, and permuted rows the permuted one."""
    kernel, targets, _, rng = problem(seed)
    order = rng.permutation(18)
    options = {"objective": "variance", "tie_break": "first"}
    plain = look_ahead(kernel, targets, [], 5, **options)
    assert look_ahead(factor * kernel, targets, [], 5, **options).indices.tolist() == plain.indices.tolist()
    moved = look_ahead(kernel[np.ix_(order, order)], targets[order], [], 5, **options)
    assert order[moved.indices].tolist() == plain.indices.tolist()


def test_the_tensor_code_of_other_devices_agrees(monkeypatch):
    """The blocks that serve a GPU give the sums of the compiled loop."""
    kernel, targets, _, _ = problem(7)
    state = posterior(torch.from_numpy(kernel), [0], torch.eye(3).double()[targets])
    compiled = Limit(state, targets, np.arange(3, 15), 1.0).variance_reduction(np.arange(18))

    class Elsewhere:
        is_cpu = False

        def __init__(self, values):
            self.values = values

        def __getitem__(self, which):
            return self.values[which]

        def diagonal(self):
            return self.values.diagonal()

    elsewhere = Posterior(Elsewhere(state.covariance), state.mean, state.jitter)
    tensors = Limit(elsewhere, targets, np.arange(3, 15), 1.0).variance_reduction(np.arange(18))
    np.testing.assert_allclose(tensors, compiled, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie_tolerance": 1.5}, "tie_tolerance"),
        ({"tie_tolerance": -0.1}, "tie_tolerance"),
        ({"objective": "variance", "tie_tolerance": 0.1}, "Leave it at zero"),
        ({"objective": "squared_error", "time": 1.0}, "Leave time at None"),
        ({"tie_break": "variance", "time": 1.0}, 'tie_break="random"'),
        ({"objective": "variance", "tie_break": "margin"}, 'Use "random"'),
        ({"objective": "variance", "variance_weight": 1.0}, "Leave it at zero"),
        ({"variance_weight": 1.0, "time": 1.0}, "variance_weight=0"),
        ({"variance_weight": -1.0}, "variance_weight"),
    ],
)
def test_what_does_not_go_together_is_said(options, message):
    """An objective or tie-break that is not defined beside another option is refused, with what to do."""
    kernel, targets, _, _ = problem(0)
    with pytest.raises(InvalidInputError, match=message):
        look_ahead(kernel, targets, [0], 2, **options)
