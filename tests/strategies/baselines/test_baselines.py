"""Uncertainty and random sampling against their formulas."""

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare, entropy
from sklearn.ensemble import RandomForestClassifier

from modal_ntk import Entropy, LeastConfidence, Margin, RandomSampling

X, y = zoo.blobs()

FORMULAS = {
    Entropy: lambda p: entropy(p, axis=1),
    Margin: lambda p: -np.diff(np.sort(p, axis=1)[:, -2:], axis=1)[:, 0],
    LeastConfidence: lambda p: 1 - p.max(axis=1),
}


@pytest.mark.parametrize("strategy", FORMULAS, ids=lambda s: s.__name__)
@given(weights=arrays(np.float64, (5, 4), elements=st.floats(0, 1)))
def test_scores_follow_the_formula(strategy, weights):
    """Entropy in nats, negative margin and one minus the top probability, zeros included."""
    weights[:, 0] += 1e-3
    p = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(strategy._uncertainty(torch.from_numpy(p)).numpy(), FORMULAS[strategy](p), atol=1e-12)


@pytest.mark.parametrize("strategy", FORMULAS, ids=lambda s: s.__name__)
def test_the_most_uncertain_are_taken_best_first(strategy):
    """Picks are the top of the formula over the pool, in falling order, whatever the pool's order."""
    net = zoo.net().fit(X[:12], y[:12])
    expected = FORMULAS[strategy](net.predict_proba(X[12:]).astype(np.float64))
    selected = strategy(random_state=0).select(net, X[12:], 6)
    np.testing.assert_array_equal(selected.indices, np.argsort(-expected)[:6])
    np.testing.assert_allclose(selected.scores, np.sort(expected)[::-1][:6], atol=1e-6)
    order = np.random.default_rng(0).permutation(48)
    permuted = strategy(random_state=0).select(net, X[12:][order], 6)
    np.testing.assert_array_equal(order[permuted.indices], selected.indices)


def test_ties_are_broken_by_seed_and_reach_every_sample():
    """Among equal samples each is taken by some seed, and a seed takes the same one again."""
    forest = RandomForestClassifier(5, random_state=0).fit(X[:12], y[:12])  # equal samples, equal bits
    same = np.repeat(X[20:21], 5, axis=0)
    first = [int(Entropy(random_state=s).select(forest, same, 1).indices[0]) for s in range(40)]
    assert set(first) == set(range(5))
    assert first == [int(Entropy(random_state=s).select(forest, same, 1).indices[0]) for s in range(40)]


def test_random_sampling_is_uniform():
    """Over many seeds every sample is drawn equally often (chi-square test at a fixed set of seeds)."""
    draws = np.concatenate([RandomSampling(random_state=s).select(None, X[:10], 3).indices for s in range(400)])
    assert chisquare(np.bincount(draws, minlength=10)).pvalue > 0.01
