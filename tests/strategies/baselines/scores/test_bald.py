"""BALD against exact enumeration of masks, by its laws, and through learners."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from modal_ntk import BALD
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.strategies.baselines.scores.bald import _Moments

X, y = zoo.blobs()


class DropNet(nn.Module):
    def __init__(self, p=0.5, d=6, hidden=4, n_classes=3):
        super().__init__()
        self.hidden = nn.Linear(d, hidden)
        self.drop = nn.Dropout(p)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.hidden(x))))


class FunctionalDropNet(DropNet):
    def forward(self, x):
        return self.head(F.dropout(torch.tanh(self.hidden(x)), 0.5, self.training))


def fitted(module=DropNet, **options):
    torch.manual_seed(0)
    return zoo.net(module, **options).fit(X[:12], y[:12])


# Slow and independent: NumPy, one formula after the other, draws (n_draws, n, C) all at once.
ORACLE = {
    "bald": lambda p: entropy(p.mean(0), axis=1) - entropy(p, axis=2).mean(0),
    "entropy": lambda p: entropy(p.mean(0), axis=1),
    "variation_ratio": lambda p: 1 - p.mean(0).max(1),
    "margin": lambda p: -np.diff(np.sort(p.mean(0), axis=1)[:, -2:], axis=1)[:, 0],
    "mean_std": lambda p: p.std(0).mean(1),
}


@pytest.mark.parametrize("acquisition", ORACLE)
@given(weights=arrays(np.float64, (4, 5, 3), elements=st.floats(0, 1)))
def test_scores_follow_the_formula(acquisition, weights):
    """Every acquisition is that of all passes held at once, zero probabilities included."""
    weights[..., 0] += 1e-3
    p = weights / weights.sum(2, keepdims=True)
    moments = _Moments()
    for draw in p:
        moments.add(torch.from_numpy(draw))
    np.testing.assert_allclose(moments.score(acquisition).numpy(), ORACLE[acquisition](p), atol=1e-9)


@given(weights=arrays(np.float64, (3, 4, 3), elements=st.floats(0, 1)))
def test_bald_lies_between_zero_and_the_entropy_of_the_mean(weights):
    """Mutual information is non-negative, at most the entropy, and zero where all passes agree."""
    weights[..., 0] += 1e-3
    p = weights / weights.sum(2, keepdims=True)
    moments, same = _Moments(), _Moments()
    for draw in p:
        moments.add(torch.from_numpy(draw))
        same.add(torch.from_numpy(p[0]))
    scores = moments.score("bald").numpy()
    assert (scores >= 0).all()
    assert (scores <= moments.score("entropy").numpy() + 1e-12).all()
    np.testing.assert_allclose(same.score("bald").numpy(), 0, atol=1e-12)


def exact_bald(net, X):
    """Mutual information with all 2^4 masks of the hidden layer enumerated, in float64."""
    weights = {name: value.detach().double().numpy() for name, value in net.module_.named_parameters()}
    hidden = np.tanh(X.astype(np.float64) @ weights["hidden.weight"].T + weights["hidden.bias"])
    masks = np.array(list(itertools.product([0.0, 2.0], repeat=4)))
    logits = (hidden * masks[:, None]) @ weights["head.weight"].T + weights["head.bias"]
    return ORACLE["bald"](softmax(logits, axis=2))


@pytest.mark.parametrize("module", [DropNet, FunctionalDropNet])
def test_many_draws_approach_the_sum_over_all_masks(module):
    """The estimate converges to the mutual information over every mask, weighted by its probability."""
    net = fitted(module)
    selected = BALD(n_draws=600, random_state=0).select(net, X[12:24], 12)
    exact = exact_bald(net, X[12:24])
    np.testing.assert_allclose(selected.scores, exact[selected.indices], atol=0.15 * exact.max())


def test_the_top_scores_are_taken_best_first():
    """Picks of a part of the pool are the beginning of those of the whole of it."""
    net = fitted()
    whole = BALD(random_state=0).select(net, X[12:], 48)
    part = BALD(random_state=0).select(net, X[12:], 7)
    assert (np.diff(whole.scores) <= 0).all()
    np.testing.assert_array_equal(part.indices, whole.indices[:7])


def test_a_sample_that_masks_do_not_touch_scores_zero():
    """Where the dropped layer is zero anyway, all passes agree: BALD is zero, and others come first."""
    net = fitted()
    with torch.no_grad():
        net.module_.hidden.bias.zero_()
    pool = np.concatenate([np.zeros((1, 6), np.float32), X[12:20]])
    selected = BALD(random_state=0).select(net, pool, 9)
    assert selected.indices[-1] == 0
    assert selected.scores[-1] == pytest.approx(0, abs=1e-7)
    assert selected.scores[-2] > 1e-4


def test_a_deterministic_net_scores_zero_and_says_so():
    """With dropout of rate zero BALD is zero for every sample, and one warning says why."""
    net = fitted(module__p=0.0)
    with pytest.warns(ModalNTKWarning, match="rate 0") as caught:
        selected = BALD(random_state=0).select(net, X[12:], 48)
    assert len(caught) == 1
    np.testing.assert_allclose(selected.scores, 0, atol=1e-7)


def test_seeds_draw_masks():
    """Equal seeds give equal scores, unequal ones unequal scores; more draws change them too."""
    net = fitted()

    def scores(**params):
        return BALD(**params).select(net, X[12:], 48).scores

    np.testing.assert_array_equal(scores(random_state=1), scores(random_state=1))
    assert not np.array_equal(scores(random_state=1), scores(random_state=2))
    assert not np.array_equal(scores(random_state=1), scores(random_state=1, n_draws=11))


def test_a_net_without_dropout_is_refused_before_it_runs():
    """The need is named, and what to do instead."""
    with pytest.raises(UnmetNeedError, match="dropout"):
        BALD().select(fitted(zoo.MLP), X[12:])


@pytest.mark.parametrize("params", [{"n_draws": 0}, {"n_draws": 2.5}, {"acquisition": "batchbald"}], ids=str)
def test_bad_parameters_are_refused(params):
    """What cannot be used is an error that says what was expected."""
    with pytest.raises(InvalidInputError, match="Expected"):
        BALD(**params).select(fitted(), X[12:])
