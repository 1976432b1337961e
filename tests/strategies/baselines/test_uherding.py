"""UHerding, its temperature and its width; the choice itself is tested with the selection."""

import math

import numpy as np
import oracles_herding as oracle
import pandas as pd
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import TensorDataset

from modal_ntk import MaxHerding, UHerding
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.strategies.baselines import calibration

X, y = zoo.blobs()
UNIT = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(float)
KNOWN = {"X_labeled": X[:20], "y_labeled": y[:20]}
MODEL = LogisticRegression().fit(X[:20], y[:20])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


WORTH = {
    "margin": lambda p: 1 - (np.sort(p, axis=1)[:, -1] - np.sort(p, axis=1)[:, -2]),
    "entropy": lambda p: -(p * np.log(p)).sum(axis=1),
    "least_confidence": lambda p: 1 - p.max(axis=1),
}


@pytest.mark.parametrize("uncertainty", WORTH)
@pytest.mark.parametrize("temperature", [1.0, 3.0, "held_out"])
@pytest.mark.parametrize("kernel", ["auto", "nearest", "median", 0.7])
def test_covers_what_is_uncertain(uncertainty, temperature, kernel):
    """Choices follow the definition: weights by the tempered probabilities, the width by the labelled points."""
    strategy = UHerding(uncertainty=uncertainty, temperature=temperature, kernel=kernel, random_state=0)
    selected = strategy.select(MODEL, X[20:], 8, **KNOWN)
    gaps = [np.linalg.norm(UNIT[i] - UNIT[j]) for i in range(20) for j in range(i)]
    width = {"auto": min(gaps), "nearest": min(gaps), "median": sorted(gaps)[(len(gaps) - 1) // 2]}.get(kernel, kernel)
    assert selected.info["width"] == pytest.approx(width, rel=1e-5)
    worth = WORTH[uncertainty](softmax(MODEL.decision_function(X[20:]) / selected.info["temperature"]))
    near = oracle.gaussian(UNIT, UNIT, width)
    chosen, gains, _ = oracle.herd(near[20:, 20:], 8, near[20:, :20].max(axis=1), worth)
    assert selected.indices.tolist() == chosen
    np.testing.assert_allclose(selected.scores, gains, rtol=1e-3, atol=1e-5)


def test_the_width_is_the_median_in_a_layer_of_the_net():
    """A net draws what it was taught together: by default its embedding's width is the median distance there."""
    images, y = zoo.blobs(n=60)
    images = images.reshape(-1, 1, 2, 3)
    net = zoo.net(zoo.ConvNet).fit(images[:20], y[:20])
    known = {"X_labeled": images[:20], "y_labeled": y[:20]}
    found = {
        (kernel, features): UHerding(kernel=kernel, features=features, random_state=0)
        .select(net, images[20:], 3, **known)
        .info["width"]
        for kernel in ("auto", "nearest", "median")
        for features in ("fixed", "input")
    }
    assert found["auto", "fixed"] == found["median", "fixed"] != found["nearest", "fixed"]
    assert found["auto", "input"] == found["nearest", "input"] != found["median", "input"]


def test_without_labels_it_is_maxherding():
    """Neither a model nor a label is needed for the first choices, which are MaxHerding's."""
    selected = UHerding().select(None, X, 6)
    assert selected.indices.tolist() == MaxHerding().select(None, X, 6).indices.tolist()
    assert (selected.info["temperature"], selected.info["width"]) == (math.inf, 1.0)


def test_with_labels_it_needs_a_fitted_model():
    """Labels without probabilities are refused before anything is computed."""
    with pytest.raises(UnmetNeedError, match="probabilities"):
        UHerding().select(LogisticRegression(), X[20:], 2, **KNOWN)


@pytest.mark.parametrize("labeled", [X[:1], np.repeat(X[:1], 4, axis=0)])
def test_a_width_needs_two_places(labeled):
    """One labelled place has no distance to another: the width is MaxHerding's."""
    known = {"X_labeled": labeled, "y_labeled": np.zeros(len(labeled), int)}
    selected = UHerding(temperature=1.0).select(MODEL, X[20:], 3, **known)
    assert selected.info["width"] == 1.0


def test_a_very_high_temperature_is_maxherding():
    """Where all samples are as uncertain, choices are those of MaxHerding of the same width."""
    flat = UHerding(temperature=1e9, kernel=0.8).select(MODEL, X[20:], 8, **KNOWN)
    assert flat.indices.tolist() == MaxHerding(kernel=0.8).select(MODEL, X[20:], 8, **KNOWN).indices.tolist()


def test_a_very_narrow_width_is_margin_sampling():
    """Where no sample is similar to another, the most uncertain are chosen, best first."""
    narrow = UHerding(temperature=1.0, kernel=1e-4).select(MODEL, X[20:], 8, **KNOWN)
    worth = WORTH["margin"](MODEL.predict_proba(X[20:]))
    assert narrow.indices.tolist() == np.argsort(-worth)[:8].tolist()


def slow_error(confidence, right, n_bins):
    total = 0.0
    for b in range(n_bins):
        inside = [(c, r) for c, r in zip(confidence, right, strict=True) if b / n_bins < c <= (b + 1) / n_bins]
        if inside:
            confidences, rights = np.transpose(inside)
            total += len(inside) / len(right) * abs(confidences.mean() - rights.mean())
    return total


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 16))
def test_the_calibration_error_follows_its_formula(samples, n_bins):
    """It is the weighted mean over bins of the gap between accuracy and confidence."""
    confidence, right = (np.array(part) for part in zip(*samples, strict=True))
    if np.abs(confidence * n_bins - np.round(confidence * n_bins)).min() > 1e-9:
        expected = slow_error(confidence, right, n_bins)
        assert calibration.calibration_error(confidence, right, n_bins) == pytest.approx(expected)


class Remembers(ClassifierMixin, BaseEstimator):
    """Overconfident on what it was not taught, and keeps what it was taught."""

    taught = []

    def __init__(self, logit=4.0):
        self.logit = logit

    def fit(self, X, y):
        type(self).taught.append(len(X))
        self.classes_ = np.unique(y)
        self.first_ = X[0]
        return self

    def predict_proba(self, X):
        logits = np.zeros((len(X), len(self.classes_)))
        logits[:, 0] = self.logit
        return softmax(logits)


def test_the_temperature_calibrates_a_copy_on_what_it_has_not_seen():
    """Seven tenths are learned from, and the temperature's confidence on the rest is nearest their accuracy."""
    labels = np.array([0, 1] * 20)
    points = np.arange(40, dtype=float)[:, None]
    model = Remembers().fit(points, labels)
    Remembers.taught.clear()
    known = {"X_labeled": points, "y_labeled": labels}
    selected = UHerding(normalise=False, random_state=3).select(model, points + 0.5, 2, **known)
    assert Remembers.taught == [28]
    # Every confidence is the same, so the error is its distance from the accuracy of the held-out part.
    accuracies = np.arange(13) / 12
    confidence = 1 / (1 + np.exp(-4.0 / selected.info["temperature"]))
    confidences = 1 / (1 + np.exp(-4.0 / np.arange(1, 20, 0.1)))
    best = [confidences[np.abs(confidences - accuracy).argmin()] for accuracy in accuracies]
    assert np.abs(np.array(best) - confidence).min() < 1e-9
    assert selected.info["temperature"] > 1
    assert model.first_ == 0.0


def test_labels_of_one_class_cannot_calibrate():
    """Where a copy could learn from one class only, all samples count the same."""
    known = {"X_labeled": X[:20], "y_labeled": np.zeros(20, int)}
    selected = UHerding(random_state=0, kernel=1.0).select(MODEL, X[20:], 5, **known)
    assert selected.info["temperature"] == math.inf
    assert selected.indices.tolist() == MaxHerding().select(MODEL, X[20:], 5, **known).indices.tolist()


def test_a_plain_net_may_not_have_seen_all_classes():
    """Columns of a net without classes= are class numbers, also where the copy has not seen them all."""
    net = zoo.net(classes=None).fit(X[:20], y[:20])
    strategy = UHerding(random_state=0)
    labels = np.where(np.arange(20) < 1, 2, y[:20] % 2)
    selected = strategy.select(net, X[20:], 3, X_labeled=X[:20], y_labeled=labels)
    assert 1 <= selected.info["temperature"] < 20


class TakesAtLeast(Remembers):
    def fit(self, X, y):
        if len(X) < 20:
            raise ValueError("too few samples")
        return super().fit(X, y)


def test_a_copy_that_cannot_be_fitted_is_told_and_the_remedy_works():
    """The error says how many samples the copy had and what to pass, which then works."""
    model = TakesAtLeast().fit(X[:20], y[:20])
    with pytest.raises(InvalidInputError, match=r"fit 14 labelled samples.*too few samples.*temperature=1.0"):
        UHerding().select(model, X[20:], 2, **KNOWN)
    assert len(UHerding(temperature=1.0).select(model, X[20:], 2, **KNOWN).indices) == 2


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(1).float()


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (lambda X: X, "input"),
        (lambda X: X.astype(float), "input"),
        (torch.from_numpy, "input"),
        (lambda X: X.tolist(), "input"),
        (pd.DataFrame, "input"),
        (sparse.csr_matrix, "input"),
        (lambda X: X.reshape(-1, 1, 2, 3), "embedding"),
        (lambda X: (10 * X).astype(int), "embedding"),
        (lambda X: TensorDataset(torch.from_numpy(X)), "input"),
        (lambda X: TensorDataset(torch.from_numpy(X), torch.arange(len(X))), "input"),
        (lambda X: SliceDataset(TensorDataset(torch.from_numpy(X))), "input"),
        (lambda X: TensorDataset(torch.from_numpy(X.reshape(-1, 1, 2, 3))), "embedding"),
        (lambda X: TensorDataset(torch.from_numpy(X).mul(10).long()), "embedding"),
    ],
)
def test_features_stay_fixed_where_samples_are_rows_of_real_numbers(change, source):
    """Such rows are taken as they are, in any container; images and whole numbers by the net's embedding."""
    pool = change(X[20:])
    flat = nn.Sequential(Flat(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    net = zoo.net(flat).fit(X[:20], y[:20])
    known = {"X_labeled": change(X[:20]), "y_labeled": y[:20]}
    if sparse.issparse(pool):
        net = MODEL
    selected = UHerding(temperature=1.0).select(net, pool, 3, **known)
    assert selected.info["features"] == source
    assert UHerding(temperature=1.0, features="auto").select(MODEL, X[20:], 3, **KNOWN).info["features"] == "input"


def test_a_copy_leaves_generators_alone():
    """Fitting the copy of a net draws from no global generator, and the same seed gives the same temperature."""
    net = zoo.net().fit(X[:20], y[:20])
    with zoo.generators_untouched():
        first, second = (UHerding(random_state=5).select(net, X[20:], 4, **KNOWN) for _ in range(2))
    assert first.info["temperature"] == second.info["temperature"]


@pytest.mark.parametrize(
    "wrong", [{"uncertainty": "variance"}, {"temperature": 0.0}, {"temperature": "validation"}, {"kernel": "mean"}]
)
def test_what_cannot_be_used_is_told(wrong):
    """Parameters out of range are refused by name."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        UHerding(**wrong).select(None, X, 2)
