"""MaxHerding as a strategy; the choice itself is tested with the selection."""

import numpy as np
import oracles_herding as oracle
import pytest
import zoo
from sklearn.linear_model import LogisticRegression

from modal_ntk import MaxHerding
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs()
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize(("options", "points"), [({}, UNIT), ({"normalise": False, "kernel": 2.0}, X)])
def test_covers_what_labels_leave(options, points):
    """On the unit sphere, or not, choices follow the definition, with the labelled samples as cover."""
    width = options.get("kernel", 1.0)
    known = {"X_labeled": X[:2], "y_labeled": y[:2]}
    selected = MaxHerding(**options).select(None, X[2:], 6, **known)
    near = oracle.gaussian(points.astype(float), points.astype(float), width)
    chosen, gains, coverage = oracle.herd(near[2:, 2:], 6, near[2:, :2].max(axis=1))
    assert selected.indices.tolist() == chosen
    np.testing.assert_allclose(selected.scores, gains, rtol=1e-5, atol=1e-5)
    assert selected.info["coverage"] == pytest.approx(coverage, rel=1e-5)


def test_starts_without_labels_and_finds_every_group():
    """Without labels or a model, as many choices as there are clear groups come one from each."""
    selected = MaxHerding().select(None, X, 3)
    assert sorted(y[selected.indices].tolist()) == [0, 1, 2]
    assert selected.info["features"] == "input"


def test_any_similarity_of_the_features():
    """A function takes the place of the Gaussian."""
    selected = MaxHerding(kernel=lambda a, b: a @ b.T).select(LogisticRegression(), X, 4)
    exact = UNIT.astype(float)
    assert selected.indices.tolist() == oracle.herd(exact @ exact.T, 4)[0]


@pytest.mark.parametrize("kernel", [0, -1.0, float("nan"), "gaussian"])
def test_what_cannot_be_used_is_told(kernel):
    """A similarity that is neither a positive width nor a function is refused by name."""
    with pytest.raises(InvalidInputError, match="kernel"):
        MaxHerding(kernel=kernel).select(None, X, 2)
