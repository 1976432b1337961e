"""Greedy k-centre and the distances below it."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import distances, k_center
from modal_ntk.selection.distances import DenseRows

whole = arrays(np.float64, st.tuples(st.integers(4, 12), st.just(2)), elements=st.integers(-5, 5).map(float))


def test_the_example_on_a_line():
    """x = (0, 1, 4, 6, 7) with 0 labelled: 7 first, then 4, at distances 7 and 3; 4 is then 3 from 1, 1 from 6."""
    x = torch.tensor([[1.0], [4.0], [6.0], [7.0]])
    picks = selection.k_center_greedy(x, 2, centers=torch.tensor([[0.0]]))
    assert picks.indices.tolist() == [3, 1]
    assert picks.scores.tolist() == [7.0, 3.0]
    assert picks.info["radius"] == 1.0


@settings(deadline=None)  # the first call compiles
@given(X=whole, n_labeled=st.integers(0, 2), b=st.integers(1, 4))
def test_follows_the_definition(X, n_labeled, b):
    """On whole numbers, where distances are exact and ties many, every choice is that of the slow version."""
    X, labeled = X[: len(X) - n_labeled], X[len(X) - n_labeled :]
    b = min(b, len(X))
    picks = selection.k_center_greedy(torch.from_numpy(X), b, centers=torch.from_numpy(labeled), first="first")
    chosen, scores = oracle.k_center(X, labeled, b)
    assert picks.indices.tolist() == chosen
    known = slice(n_labeled == 0, None)  # a first choice without centres has no distance
    np.testing.assert_allclose(picks.scores[known], scores[known], atol=1e-12)


@settings(deadline=None)
@given(X=whole, b=st.integers(1, 12), seed=st.integers(0, 9))
def test_never_repeats_and_scores_never_rise(X, b, seed):
    """Choices are distinct, copies or not; scores fall; the radius is that of the choices."""
    b = min(b, len(X))
    picks = selection.k_center_greedy(torch.from_numpy(X), b, random_state=seed)
    assert len(set(picks.indices.tolist())) == b
    assert (np.diff(picks.scores) <= 0).all()
    radius = oracle.distances(X, X[picks.indices]).min(axis=1).max()
    assert picks.info["radius"] == pytest.approx(radius, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_scale_and_shift_change_nothing(dtype):
    """Permuted, scaled and shifted rows give the same samples, scores scaled along."""
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(80, 5))).to(dtype)
    centers, order = X[:3], torch.from_numpy(np.random.default_rng(1).permutation(77))
    plain = selection.k_center_greedy(X[3:], 10, centers=centers)
    moved = selection.k_center_greedy(X[3:][order] * 4 + 1, 10, centers=centers * 4 + 1)
    np.testing.assert_array_equal(order[moved.indices].numpy(), plain.indices)
    np.testing.assert_allclose(moved.scores, plain.scores * 4, rtol=1e-5)


def test_within_twice_the_best_radius():
    """The greedy radius is at most twice the least possible, found by trying every set."""
    from itertools import combinations

    X = np.random.default_rng(3).normal(size=(11, 2))
    gaps = oracle.distances(X, X)
    least = min(gaps[:, list(some)].min(axis=1).max() for some in combinations(range(11), 3))
    for seed in range(11):
        assert selection.k_center_greedy(torch.from_numpy(X), 3, random_state=seed).info["radius"] <= 2 * least


def test_a_random_start_reaches_every_row():
    """Without centres the first choice is uniform by seed, and row 0 where asked."""
    X = torch.arange(4.0)[:, None]
    assert {int(selection.k_center_greedy(X, 1, random_state=s).indices[0]) for s in range(40)} == set(range(4))
    assert selection.k_center_greedy(X, 1, first="first").indices.tolist() == [0]


def test_bad_arguments_are_told():
    """Too large a batch and an unknown start are refused before anything is computed."""
    X = torch.zeros(3, 1)
    with pytest.raises(InvalidInputError, match="n_instances"):
        selection.k_center_greedy(X, 4)
    with pytest.raises(InvalidInputError, match="first"):
        selection.k_center_greedy(X, 1, first="last")


def test_blocks_sent_one_by_one_change_nothing(monkeypatch):
    """Rows that do not fit on the device go there in blocks, for the same distances and norms."""
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 7)))
    monkeypatch.setattr(distances, "BLOCK_BYTES", 7 * 8 * 6)
    blocks = DenseRows(X)
    blocks._blocks = distances._sent(X, torch.device("meta"))
    assert len(blocks._blocks) == 9
    assert torch.equal(blocks.squared_to(20), DenseRows(X).squared_to(20))
    assert torch.equal(blocks.squared_norms(), DenseRows(X).squared_norms())
    np.testing.assert_allclose(blocks.squared_to(20), ((X - X[20]) ** 2).sum(1), rtol=1e-12)


@settings(deadline=None)
@given(X=whole, b=st.integers(1, 8))
def test_devices_follow_one_rule(X, b):
    """What runs where there is no CPU chooses as the compiled loop does, ties and copies included."""
    X = torch.from_numpy(X)
    compiled = selection.k_center_greedy(X[1:], min(b, len(X) - 1), centers=X[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(k_center, "_lower_on_cpu", k_center._lower_on_device)
        by_tensors = selection.k_center_greedy(X[1:], min(b, len(X) - 1), centers=X[:1])
    assert by_tensors.indices.tolist() == compiled.indices.tolist()
    np.testing.assert_array_equal(by_tensors.scores, compiled.scores)
