"""Look-ahead: the rank-one form chooses exactly what solving anew for every candidate would."""

from functools import partial

import numpy as np
import oracles
import oracles_lookahead
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import condition, posterior
from modal_ntk.selection import look_ahead
from modal_ntk.selection.ahead.changes import Limit

problem = partial(oracles_lookahead.problem, n=14)

LINE = np.array([0, 1, 1.9, 3, 4, 5.2])
RBF = np.exp(-((LINE[:, None] - LINE) ** 2) / 2)
CPL = np.array([0, 0, 0, 1, 1, 1])


def test_worked_example_n1():
    """Step errors over the unlabelled rows are {1:3, 2:3, 3:1, 4:0, 5:0}, then {1:0, 2:0, 3:1, 5:0}; picks 4, 1."""
    picks, tables = oracles.naive_look_ahead(RBF, CPL, [0], 2, rows=range(1, 6), rel_jitter=1e-12)
    assert (picks, tables) == ([4, 1], [{1: 3, 2: 3, 3: 1, 4: 0, 5: 0}, {1: 0, 2: 0, 3: 1, 5: 0}])
    chosen = look_ahead(RBF, CPL, [0], 2, evaluation=range(1, 6), tie_break="first", rel_jitter=1e-12)
    assert chosen.indices.tolist() == picks
    assert chosen.info["ties"] == [2, 3]
    state = posterior(torch.from_numpy(RBF), torch.tensor([0]), torch.eye(2).double()[CPL], rel_jitter=1e-12)
    for step, table in enumerate(tables):
        free = np.array(sorted(table))
        counts = Limit(state, CPL, np.arange(1, 6), 1.0).mismatches(free, CPL)
        assert dict(zip(free.tolist(), counts.tolist(), strict=True)) == table
        condition(state, picks[step], torch.eye(2).double()[CPL[picks[step]]])
    expected = [[1, 0], [1, 0], [0.516829, 0.100428], [0.086850, 0.604422], [0, 1], [-0.003375, 0.486841]]
    np.testing.assert_allclose(state.mean.numpy(), expected, atol=5e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_labeled=st.integers(0, 5),
    duplicates=st.integers(0, 3),
    with_f0=st.booleans(),
)
def test_picks_and_risks_equal_the_naive_ones(seed, n_labeled, duplicates, with_f0):
    """For random kernels, labels, targets, f0 and duplicates, a whole batch equals solving anew for each candidate."""
    kernel, targets, f0, _ = problem(seed, copies=duplicates)
    f0 = f0 if with_f0 else None
    labeled = np.arange(n_labeled)
    picks, tables = oracles.naive_look_ahead(kernel, targets, labeled, 4, f0=f0)
    chosen = look_ahead(kernel, targets, labeled, 4, f0=f0, tie_break="first")
    assert chosen.indices.tolist() == picks
    risks = [tables[step][pick] / len(kernel) for step, pick in enumerate(picks)]
    np.testing.assert_array_equal(chosen.scores, risks)
    np.testing.assert_array_equal(chosen.info["risk"], risks)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_compiled_counts_equal_forming_every_prediction(seed, dtype):
    """Bounds that skip the arg max never change a count: the tensor form, which skips nothing, agrees."""
    kernel, targets, f0, rng = problem(seed, n=30, n_classes=5)
    state = posterior(
        torch.from_numpy(kernel).to(dtype),
        torch.arange(4),
        torch.eye(5, dtype=dtype)[targets],
        f0=torch.from_numpy(f0).to(dtype),
    )
    free, rows = np.arange(4, 30), np.sort(rng.choice(30, 17, replace=False))
    limit = Limit(state, targets, rows, 1.0)
    np.testing.assert_array_equal(limit.mismatches(free, targets), limit.mismatches_by_tensors(free, targets))


def test_one_class_is_never_mistaken():
    """With a single pseudo-label every prediction agrees, whatever is picked."""
    chosen = look_ahead(RBF, np.zeros(6, int), [], 3, random_state=0)
    assert chosen.scores.tolist() == [0, 0, 0]


def test_output_change_is_the_sum_of_norms():
    """The worked example of NTK look-ahead: A = 1.862592, 1.664563, 2.233109 with the trained net as f0."""
    unlabelled = np.array([[2, 0.3, 0.2], [0.3, 1.5, 0.4], [0.2, 0.4, 1]])
    cross = np.array([[1, 0.2], [0.4, 0.9], [0.3, 0.3]])
    kernel = np.block([[np.array([[2, 0.5], [0.5, 1]]), cross.T], [cross, unlabelled]])
    f0 = np.array([[0.1, -0.1], [0, 0.2], [0.1, 0], [-0.1, 0.1], [0, 0]])
    targets = np.array([0, 1, 0, 1, 0])
    one_hot, labeled = np.eye(2)[targets], [0, 1]
    expected = []
    for c in (2, 3, 4):
        before = f0[2:]
        after = oracles.regression(kernel, f0, [*labeled, c], np.zeros(3), one_hot)[2:]
        expected.append(np.linalg.norm(before - after, axis=1).sum())
    np.testing.assert_allclose(expected, [1.862592, 1.664563, 2.233109], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_output_change_and_margin_equal_their_definitions(seed):
    """Closed forms equal the change and the margin of predictions formed one by one."""
    kernel, targets, f0, _ = problem(seed)
    labeled, free, rows = [0, 1], np.arange(2, 14), np.arange(14)
    state = posterior(
        torch.from_numpy(kernel),
        torch.tensor(labeled),
        torch.eye(3).double()[targets],
        f0=torch.from_numpy(f0),
        rel_jitter=1e-9,
    )
    jitter = 1e-9
    before = oracles.regression(kernel, f0, labeled, [jitter] * 2, np.eye(3)[targets])
    sums, margins = [], []
    for c in free:
        after = oracles.regression(kernel, f0, [*labeled, int(c)], [jitter, jitter, 0], np.eye(3)[targets])
        sums.append(np.linalg.norm(after - before, axis=1).sum())
        own = after[rows, targets]
        rival = np.where(np.eye(3)[targets] == 1, -np.inf, after).max(1)
        margins.append((own - rival).mean())
    limit = Limit(state, targets, rows, 1.0)
    np.testing.assert_allclose(limit.output_change(free, squared=False, reference=None), sums, rtol=1e-5)
    np.testing.assert_allclose(limit.mean_margin(free), margins, rtol=1e-5, atol=1e-8)


def test_ties_are_broken_as_asked():
    """At the first step without labels every member of the largest cluster ties; the seed, or the margin, decides."""
    targets = np.array([0, 0, 0, 0, 1, 1])
    seeds = {int(look_ahead(RBF, targets, [], 1, random_state=seed).indices[0]) for seed in range(30)}
    assert seeds == {0, 1, 2, 3}
    assert look_ahead(RBF, targets, [], 1, tie_break="first").indices.tolist() == [0]
    chosen = look_ahead(RBF, targets, [], 1, tie_break="margin", random_state=0)
    margins = {}
    for c in range(4):
        f = oracles.regression(RBF, np.zeros((6, 2)), [c], [0.0], np.eye(2)[targets])
        margins[c] = np.mean(f[np.arange(6), targets] - f[np.arange(6), 1 - targets])
    assert chosen.indices[0] == max(margins, key=margins.get)


def test_permuting_rows_permutes_the_picks():
    """Row numbers carry no meaning: a permuted problem has the permuted answer where no ties occur."""
    kernel, targets, f0, rng = problem(5, n=20)
    order = rng.permutation(20)
    straight = look_ahead(kernel, targets, [0], 3, f0=f0, objective="output_change")
    labeled = [int(np.flatnonzero(order == 0)[0])]
    permuted = look_ahead(
        kernel[np.ix_(order, order)], targets[order], labeled, 3, f0=f0[order], objective="output_change"
    )
    np.testing.assert_array_equal(order[permuted.indices], straight.indices)


def test_scaling_the_kernel_changes_nothing():
    """In the limit of training time the kernel's scale cancels."""
    kernel, targets, f0, _ = problem(6)
    picks = [look_ahead(c * kernel, targets, [0, 1], 4, f0=f0, tie_break="first").indices.tolist() for c in (1, 64)]
    assert picks[0] == picks[1]


def test_row_numbers_may_be_tensors():
    """Targets and rows as torch tensors are the same numbers as arrays."""
    as_arrays = look_ahead(RBF, CPL, [0], 2, tie_break="first").indices
    as_tensors = look_ahead(
        torch.from_numpy(RBF), torch.from_numpy(CPL), torch.tensor([0]), 2, tie_break="first"
    ).indices
    np.testing.assert_array_equal(as_arrays, as_tensors)


def test_nothing_of_the_callers_is_changed():
    """Kernel and f0 are the same bits afterwards, as arrays and as tensors."""
    kernel, targets, f0, _ = problem(7)
    gram, start = torch.from_numpy(kernel.copy()), torch.from_numpy(f0.copy())
    look_ahead(gram, targets, [0], 5, f0=start, objective="disagreement", random_state=0)
    np.testing.assert_array_equal(gram.numpy(), kernel)
    np.testing.assert_array_equal(start.numpy(), f0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": np.ones((3, 4))}, "a square kernel of floats, got .*shape \\(3, 4\\)"),
        ({"targets": [0, 1]}, "6 values in targets, one for each row, got 2"),
        ({"targets": [0.0] * 6}, "targets to be a vector of integers"),
        ({"labeled": [6]}, "labeled of at least 0 and below 6"),
        ({"labeled": [1, 1]}, "distinct rows in labeled"),
        ({"n_instances": 6}, "between 1 and the pool's 5 samples, got 6"),
        ({"objective": "luck"}, "objective to be one of 'risk'"),
        ({"f0": np.zeros((6, 1))}, r"f0 of shape \(6, 2 or more\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    """Each wrong argument is an error with what was expected and got."""
    arguments = {"kernel": RBF, "targets": CPL, "labeled": [0], "n_instances": 1, **change}
    with pytest.raises(InvalidInputError, match=message):
        look_ahead(**arguments)
