"""Look-ahead's filters, objectives, references, finite time, precision and memory against forming everything."""

import numpy as np
import oracles
import oracles_lookahead
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_lookahead import problem

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import Posterior, condition, posterior
from modal_ntk.selection import look_ahead
from modal_ntk.selection.ahead import changes
from modal_ntk.selection.ahead.changes import Limit

# K2 of the method notes: two labelled rows, three candidates, the trained network's outputs.
K2 = np.array(
    [
        [2, 0.5, 1, 0.4, 0.3],
        [0.5, 1, 0.2, 0.9, 0.3],
        [1, 0.2, 2, 0.3, 0.2],
        [0.4, 0.9, 0.3, 1.5, 0.4],
        [0.3, 0.3, 0.2, 0.4, 1],
    ]
)
K2_START = np.array([[0.1, -0.1], [0, 0.2], [0.1, 0], [-0.1, 0.1], [0, 0]])
K2_TARGETS = np.array([0, 1, 0, 1, 0])
K2_OPTIONS = {"f0": K2_START, "reference": "start", "evaluation": [2, 3, 4], "rel_jitter": 1e-12, "greedy": False}


def test_worked_example_of_ntk_look_ahead():
    """A = 1.862592, 1.664563, 2.233109 for the three candidates: order 2, 0, 1; by disagreement 2 comes last."""
    chosen = look_ahead(K2, K2_TARGETS, [0, 1], 3, objective="output_change", **K2_OPTIONS)
    assert chosen.indices.tolist() == [4, 2, 3]
    np.testing.assert_allclose(chosen.scores, [2.233109, 1.862592, 1.664563], atol=1e-6)
    chosen = look_ahead(K2, K2_TARGETS, [0, 1], 3, objective="disagreement", tie_break="first", **K2_OPTIONS)
    assert chosen.indices.tolist() == [2, 3, 4]
    np.testing.assert_allclose(chosen.scores, [1 / 3, 1 / 3, 0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([np.float32, np.float64]),
    n_classes=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    integers=st.booleans(),
    consecutive=st.booleans(),
)
def test_filters_never_change_a_count(seed, dtype, n_classes, scale, integers, consecutive):
    """For any covariance and mean, ties included, counts equal an arg max over all entries bit by bit."""
    rng = np.random.default_rng(seed)
    n = 25
    root = rng.integers(-2, 3, size=(n, 4)) if integers else rng.normal(size=(n, 4))
    covariance = (root @ root.T).astype(dtype)
    mean = scale * (rng.integers(-1, 2, size=(n, n_classes)) if integers else rng.normal(size=(n, n_classes)))
    mean, targets, reference = mean.astype(dtype), rng.integers(n_classes, size=n), rng.integers(n_classes, size=n)
    candidates = np.sort(rng.choice(n, 11, replace=False))
    rows = np.arange(4, 20) if consecutive else rng.permutation(n)[:15]
    state = Posterior(torch.from_numpy(covariance), torch.from_numpy(mean), 1e-6)
    expected = oracles_lookahead.count_entry_by_entry(covariance, mean, targets, candidates, rows, reference, 1e-6)
    limit = Limit(state, targets, rows, 1.0)
    for count in (limit.mismatches, limit.mismatches_by_tensors):
        np.testing.assert_array_equal(count(candidates, reference), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_labeled=st.integers(0, 6),
    copies=st.integers(0, 5),
    near=st.sampled_from([0.0, 1e-4, 1e-2]),
    with_f0=st.booleans(),
)
def test_whole_batches_equal_the_naive_ones_among_copies_and_near_copies(seed, n_labeled, copies, near, with_f0):
    """Exact and nearly singular kernels: all candidates' risks and the picks equal re-solving, at every step."""
    kernel, targets, f0, _ = problem(seed, copies=copies, near=near)
    f0, labeled = f0 if with_f0 else None, np.arange(n_labeled)
    picks, tables = oracles.naive_look_ahead(kernel, targets, labeled, 6, f0=f0)
    chosen = look_ahead(kernel, targets, labeled, 6, f0=f0, tie_break="first")
    assert chosen.indices.tolist() == picks
    np.testing.assert_array_equal(chosen.scores, [tables[k][pick] / 16 for k, pick in enumerate(picks)])
    one_hot, start = torch.eye(3).double()[targets], None if f0 is None else torch.from_numpy(f0)
    state = posterior(torch.from_numpy(kernel), labeled, one_hot, f0=start)
    for table, pick in zip(tables, picks, strict=True):
        free = np.array(sorted(table))
        counts = Limit(state, targets, np.arange(16), 1.0).mismatches(free, targets)
        assert dict(zip(free.tolist(), counts.tolist(), strict=True)) == table
        condition(state, pick, one_hot[pick])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    objective=st.sampled_from(["risk", "output_change", "squared_change", "disagreement"]),
    reference=st.sampled_from(["current", "start"]),
    time=st.sampled_from([None, 0.3, 5.0]),
    n_labeled=st.integers(0, 4),
    copies=st.integers(0, 2),
)
def test_every_objective_equals_its_definition(seed, objective, reference, time, n_labeled, copies):
    """Scores of all candidates at once, in the limit and at a finite time, equal those of predictions one by one."""
    kernel, targets, f0, rng = problem(seed, n=12, copies=copies if time else 0)
    rows = np.sort(rng.choice(12, 9, replace=False))
    free, labeled, one_hot = np.arange(n_labeled, 12), list(range(n_labeled)), np.eye(3)[targets]
    jitter = 1e-9 * np.mean(np.diag(kernel)) if time is None else 0.0
    now = oracles_lookahead.trained(kernel, f0, labeled, one_hot, jitter=jitter, time=time)
    expected = []
    for c in free:
        diagonal = [jitter] * n_labeled + [0.0]
        after = oracles_lookahead.trained(kernel, f0, [*labeled, int(c)], one_hot, jitter=diagonal, time=time)
        against = f0 if reference == "start" else now
        expected.append(oracles_lookahead.objective_of(objective, after, against, targets, rows))
    options = {"objective": objective, "reference": reference, "time": time, "rel_jitter": 1e-9, "f0": f0}
    chosen = look_ahead(kernel, targets, labeled, len(free), evaluation=rows, greedy=False, random_state=0, **options)
    np.testing.assert_allclose(chosen.scores, np.array(expected)[chosen.indices - n_labeled], rtol=1e-5, atol=1e-9)
    falling = chosen.scores if objective == "risk" else -chosen.scores
    assert (np.diff(falling) >= 0).all()


def test_a_finite_batch_equals_training_anew_after_every_pick():
    """Greedy picks at a finite time are the naive ones; a long time gives the limit."""
    kernel, targets, f0, _ = problem(3)
    one_hot, trained, picks = np.eye(3)[targets], [0, 1], []
    for _ in range(4):
        free = [c for c in range(16) if c not in trained]
        risks = [
            oracles_lookahead.objective_of(
                "risk",
                oracles_lookahead.trained(kernel, f0, [*trained, c], one_hot, time=0.7),
                f0,
                targets,
                np.arange(16),
            )
            for c in free
        ]
        picks.append(free[int(np.argmin(risks))])
        trained.append(picks[-1])
    options = {"f0": f0, "tie_break": "first"}
    assert look_ahead(kernel, targets, [0, 1], 4, time=0.7, **options).indices.tolist() == picks
    long = look_ahead(kernel, targets, [0, 1], 4, time=1e9, **options)
    limit = look_ahead(kernel, targets, [0, 1], 4, rel_jitter=1e-12, **options)
    assert long.indices.tolist() == limit.indices.tolist()
    assert long.info["jitter"] == 0


@pytest.mark.parametrize("objective", ["risk", "output_change", "squared_change", "disagreement"])
@pytest.mark.parametrize("reference", ["current", "start"])
def test_other_devices_code_agrees(objective, reference, monkeypatch):
    """The tensor code of other devices, run here, makes the compiled code's picks."""
    kernel, targets, f0, _ = problem(8, n=40, n_classes=5)
    options = {"f0": f0, "objective": objective, "reference": reference, "tie_break": "first"}
    compiled = look_ahead(kernel, targets, [0, 1, 2], 6, **options)
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    monkeypatch.setattr(changes, "_BLOCK_BYTES", 4000)  # several blocks, several lists of pairs
    tensors = look_ahead(kernel, targets, [0, 1, 2], 6, **options)
    assert tensors.indices.tolist() == compiled.indices.tolist()
    np.testing.assert_allclose(tensors.scores, compiled.scores, rtol=1e-10)


def test_taking_all_at_once_breaks_ties_by_seed_or_margin():
    """Equal candidates beyond the best are ordered by the seed too; "margin" puts the larger mean margin first."""
    kernel, targets, f0, _ = problem(4)
    options = {"f0": f0, "greedy": False, "labeled": [0], "n_instances": 15}
    values = look_ahead(kernel, targets, **options, tie_break="first")
    one = look_ahead(kernel, targets, **options, random_state=1)
    two = look_ahead(kernel, targets, **options, random_state=2)
    np.testing.assert_array_equal(one.scores, values.scores)
    assert one.indices.tolist() != two.indices.tolist()
    state = posterior(torch.from_numpy(kernel), [0], torch.eye(3).double()[targets], f0=torch.from_numpy(f0))
    lead = Limit(state, targets, np.arange(16), 1.0).mean_margin(np.arange(1, 16))
    margins = dict(zip(range(1, 16), lead, strict=True))
    ordered = look_ahead(kernel, targets, **options, tie_break="margin", random_state=0)
    keys = [(score, -margins[i]) for i, score in zip(ordered.indices.tolist(), ordered.scores, strict=True)]
    assert keys == sorted(keys)


def test_single_precision_picks_like_double():
    """Float32 state from a float64 or a float32 kernel: the same picks where nothing is near a tie."""
    kernel, targets, f0, _ = problem(5, n=60, n_classes=4)
    options = {"f0": f0, "objective": "output_change"}
    double = look_ahead(kernel, targets, [0, 1, 2], 10, **options)
    for gram in (kernel, kernel.astype(np.float32)):
        single = look_ahead(gram, targets, [0, 1, 2], 10, dtype="float32", **options)
        np.testing.assert_array_equal(single.indices, double.indices)
        # The last candidates are nearly determined: a change of 800 over a variance of 1e-4.
        np.testing.assert_allclose(single.scores, double.scores, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies_of_what_is_known_change_nothing_in_either_precision(dtype):
    """Copies of labelled rows leave the risk as it is and are never better than a new row."""
    kernel, targets, f0, _ = problem(6, n=30, copies=5)
    targets[-5:] = (targets[:5] + 1) % 3
    options = {"f0": f0, "dtype": dtype, "random_state": 0}
    known, copies = np.arange(5), np.arange(25, 30)
    chosen = look_ahead(kernel, targets, known, 5, candidates=copies, objective="output_change", **options)
    np.testing.assert_array_equal(chosen.scores, np.zeros(5))
    assert len(set(chosen.info["risk"])) == 1


def test_the_kernel_is_overwritten_only_when_offered():
    """With `overwrite_kernel` the covariance lives in the kernel's memory, and the picks are the same."""
    kernel, targets, f0, _ = problem(7)
    mine, offered = torch.from_numpy(kernel.copy()), torch.from_numpy(kernel.copy())
    kept = look_ahead(mine, targets, [0, 1], 4, f0=f0, random_state=0)
    np.testing.assert_array_equal(mine.numpy(), kernel)
    given_away = look_ahead(offered, targets, [0, 1], 4, f0=f0, random_state=0, overwrite_kernel=True)
    assert not torch.equal(offered, mine)
    np.testing.assert_array_equal(kept.indices, given_away.indices)


def test_a_covariance_beyond_the_budget_is_refused_before_it_is_made():
    """The error names the rows, the bytes and the ways out; what fits, or needs no second matrix, goes on."""
    kernel, targets, _, _ = problem(9)
    with pytest.raises(InvalidInputError, match="at most 2000 bytes, got 16 rows, whose covariance takes 2048 bytes"):
        look_ahead(kernel, targets, [0], 1, memory_budget=2000)
    look_ahead(kernel, targets, [0], 1, memory_budget=2000, dtype="float32")
    look_ahead(kernel.copy(), targets, [0], 1, memory_budget=1, overwrite_kernel=True)


def test_scaling_and_permuting_leave_all_at_once_scores_alone():
    """Scores follow their rows under a permutation; the kernel's scale cancels in the limit."""
    kernel, targets, f0, rng = problem(10)
    order = rng.permutation(16)
    options = {"objective": "output_change", "reference": "start", "greedy": False}
    plain = look_ahead(kernel, targets, [0, 1], 14, f0=f0, **options)
    labeled = [int(np.flatnonzero(order == row)[0]) for row in (0, 1)]
    moved = look_ahead(16 * kernel[np.ix_(order, order)], targets[order], labeled, 14, f0=f0[order], **options)
    np.testing.assert_array_equal(order[moved.indices], plain.indices)
    np.testing.assert_allclose(moved.scores, plain.scores, rtol=1e-9)
