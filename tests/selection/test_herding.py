"""Greedy generalised coverage against its definition."""

import numpy as np
import oracles_herding as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modal_ntk import selection
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import herding

whole = arrays(np.float64, st.tuples(st.integers(3, 14), st.just(2)), elements=st.integers(-3, 3).map(float))


def unit(n, d=6, seed=0, dtype=np.float32):
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None)
@given(
    X=whole,
    n_labeled=st.integers(0, 2),
    width=st.sampled_from([0.5, 1.0, 2.5]),
    b=st.integers(1, 12),
    weighted=st.booleans(),
    stored=st.sampled_from([0, 2**30]),
    pairs=st.sampled_from([1, 2**20]),
)
def test_follows_the_definition(dtype, X, n_labeled, width, b, weighted, stored, pairs):
    """Choices, gains and coverage are those of the stored matrix, on grids full of ties and copies, too."""
    X, labeled = X[: len(X) - n_labeled], X[len(X) - n_labeled :]
    b = min(b, len(X))
    weights = np.arange(len(X)) % 3 + 0.5 if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(herding, "STORED_BYTES", stored)
        patch.setattr(herding, "BLOCK_PAIRS", pairs)
        patch.setattr(herding, "N_FIRST", 1)
        patch.setattr(herding, "TILE", 3)
        rows, centers = (torch.from_numpy(part.astype(dtype)) for part in (X, labeled))
        picks = selection.max_herding(rows, b, centers=centers, weights=weights, kernel=width)
    covered = oracle.gaussian(X, labeled, width).max(axis=1) if n_labeled else None
    chosen, gains, coverage = oracle.herd(oracle.gaussian(X, X, width), b, covered, weights)
    assert picks.indices[: len(chosen)].tolist() == chosen
    assert len(set(picks.indices.tolist())) == b
    np.testing.assert_allclose(picks.scores, gains + [0] * (b - len(chosen)), atol=1e-9)
    assert picks.info["coverage"] == pytest.approx(coverage)


@pytest.mark.parametrize("stored", [0, 2**30])
@pytest.mark.parametrize("width", [1.0, 0.3, 0.05])
def test_single_precision_never_decides(width, stored, monkeypatch):
    """On 300 float32 rows of length one, near copies among them, the choices are those of float64."""
    X = unit(300)
    X[150:] = X[:150] + np.random.default_rng(1).normal(size=(150, 6)).astype(np.float32) * 1e-5
    monkeypatch.setattr(herding, "STORED_BYTES", stored)
    monkeypatch.setattr(herding, "TILE", 70)
    picks = selection.max_herding(torch.from_numpy(X), 40, centers=torch.from_numpy(X[:5]), kernel=width)
    exact = X.astype(float)
    near = np.exp(-((exact[:, None] - exact[None]) ** 2).sum(axis=2) / width**2)
    chosen, gains, _ = oracle.herd(near, 40, near[:, :5].max(axis=1))
    assert picks.indices.tolist() == chosen
    np.testing.assert_allclose(picks.scores, gains, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stored", [0, 2**30])
def test_any_similarity(stored, monkeypatch):
    """A function of rows is maximised as a Gaussian is, in float64; what is negative covers nothing."""
    X = unit(40)
    monkeypatch.setattr(herding, "STORED_BYTES", stored)
    seen = set()

    def cosine(a, b):
        seen.add((a.dtype, b.dtype))
        return a @ b.T

    picks = selection.max_herding(torch.from_numpy(X), 12, kernel=cosine)
    exact = X.astype(float)
    chosen, gains, coverage = oracle.herd(exact @ exact.T, 12)
    assert (picks.indices.tolist(), seen) == (chosen, {(torch.float64, torch.float64)})
    np.testing.assert_allclose(picks.scores, gains)
    assert picks.info["coverage"] == pytest.approx(coverage)


def test_a_ball_is_probcover():
    """With a similarity of one within a radius and zero beyond, choices and gains are those of `greedy_cover`."""
    X = torch.from_numpy(unit(60, d=3))
    ball = selection.max_herding(X, 5, kernel=lambda a, b: (torch.cdist(a, b) < 0.7).double())
    cover = selection.greedy_cover(X, 5, 0.7)
    assert ball.indices.tolist() == cover.indices.tolist()
    assert ball.scores.tolist() == cover.scores.tolist()
    assert ball.info["coverage"] == pytest.approx(cover.info["coverage"])


def test_gains_never_rise_and_all_rows_can_be_chosen():
    """The sum is submodular: gains fall, and with every row chosen each is as similar to one as to itself."""
    X = torch.from_numpy(unit(50))
    picks = selection.max_herding(X, 50)
    assert sorted(picks.indices.tolist()) == list(range(50))
    assert (np.diff(picks.scores) <= 1e-9).all()
    assert picks.info["coverage"] == pytest.approx(1.0)


def test_where_nothing_is_gained_the_rest_is_by_seed():
    """Of copies one is chosen; the others follow by seed, distinct, and every one can come."""
    seen = set()
    for seed in range(30):
        picks = selection.max_herding(torch.ones(6, 2), 3, random_state=seed)
        assert (picks.indices[0], picks.scores.tolist()) == (0, [6.0, 0.0, 0.0])
        assert len(set(picks.indices.tolist())) == 3
        seen.update(picks.indices.tolist())
    assert seen == set(range(6))


def test_rows_of_no_weight_are_not_covered():
    """Weight on one group alone puts the first choice there; without any weight all choices are by seed."""
    X = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]])
    assert selection.max_herding(X, 1, weights=[0, 0, 0, 1, 1]).indices[0] in (3, 4)
    picks = [selection.max_herding(X, 3, weights=np.zeros(5), random_state=seed) for seed in (0, 0, 1)]
    assert picks[0].indices.tolist() == picks[1].indices.tolist() != picks[2].indices.tolist()
    assert (picks[0].scores.tolist(), picks[0].info["coverage"]) == ([0.0] * 3, 1.0)


def test_similarities_are_not_kept_for_large_pools(monkeypatch):
    """Above the limit nothing is stored, and blocks are as large as said."""
    monkeypatch.setattr(herding, "STORED_BYTES", 100**2 * 4 - 1)
    monkeypatch.setattr(herding, "BLOCK_PAIRS", 2_000)
    monkeypatch.setattr(herding, "TILE", 40)
    called, sizes = herding.Gaussian.__call__, []

    def measured(self, X, Y):
        sizes.append(len(X) * len(Y))
        return called(self, X, Y)

    monkeypatch.setattr(herding.Gaussian, "__call__", measured)
    selection.max_herding(torch.from_numpy(unit(100)), 10)
    assert max(sizes) <= 2_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": 0.0}, "kernel"),
        ({"kernel": "cosine"}, "kernel"),
        ({"kernel": lambda a, b: a @ a.T[:, :1]}, "similarities of shape"),
        ({"kernel": lambda a, b: a @ b.T / 0}, "NaN or infinity"),
        ({"weights": [1.0]}, "shape"),
        ({"weights": [1.0, 1.0, -1.0, 1.0]}, "negative"),
        ({"weights": [1.0, 1.0, np.nan, 1.0]}, "negative, infinite or missing"),
    ],
)
def test_what_cannot_be_used_is_told(arguments, message):
    """Wrong widths and weights are refused, and similarities of a wrong shape or not finite."""
    with pytest.raises(InvalidInputError, match=message):
        selection.max_herding(torch.from_numpy(unit(4)), 2, **arguments)
