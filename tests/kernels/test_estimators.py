"""The kernel as scikit-learn estimators."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from torch import nn
from zoo import assert_same_state, blobs, state_of

from modal_ntk.errors import InvalidInputError
from modal_ntk.kernels import NTKClassifier, NTKRegressor, empirical_ntk, ntk_head


def test_regressor_interpolates_and_equals_the_dense_solve():
    """Predictions are K(x, X) K(X, X)^-1 y with the kernel of the module used."""
    rng = np.random.default_rng(0)
    X, y, new = rng.normal(size=(12, 4)), rng.normal(size=(12, 2)), rng.normal(size=(5, 4))
    model = NTKRegressor(n_hidden=64, random_state=0, rel_jitter=1e-12).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-5)
    train, test = torch.from_numpy(X), torch.from_numpy(new)
    kernel, cross = empirical_ntk(model.module_, train), empirical_ntk(model.module_, test, train)
    np.testing.assert_allclose(model.predict(new), cross.numpy() @ np.linalg.solve(kernel.numpy(), y), rtol=1e-6)
    assert model.fit(X, y[:, 0]).predict(new).shape == (5,)


def test_initial_outputs_are_part_of_the_prediction_if_asked():
    """With f0, predictions are f0(x) + K K^-1 (y - f0(X)), which still meets the targets in the limit."""
    rng = np.random.default_rng(0)
    X, y, new = rng.normal(size=(8, 4)), rng.normal(size=(8, 1)), rng.normal(size=(3, 4))
    module = ntk_head(4, 32, 1, generator=torch.Generator().manual_seed(0))
    model = NTKRegressor(module, add_initial=True, rel_jitter=1e-12).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-5)
    with torch.no_grad():
        start = module(torch.from_numpy(new)).numpy()
    early = NTKRegressor(module, add_initial=True, time=1e-12).fit(X, y)
    np.testing.assert_allclose(early.predict(new), start, atol=1e-6)


@pytest.mark.parametrize("labels", [np.array([0, 1, 2]), np.array(["ant", "bee", "cat"]), np.array([5, 7, 11])])
def test_classifier_learns_blobs_with_any_labels(labels):
    """Separated blobs are told apart; probabilities are rows of a simplex in the order of classes_."""
    X, y = blobs(90, seed=1)
    model = NTKClassifier(n_hidden=64, random_state=0).fit(X[:60], labels[y[:60]])
    assert model.score(X[60:], labels[y[60:]]) > 0.9
    assert model.classes_.tolist() == sorted(labels.tolist())
    proba = model.predict_proba(X[60:])
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (model.classes_[proba.argmax(1)] == model.predict(X[60:])).all()


def test_two_classes_have_one_decision():
    """For two classes the decision is positive exactly where the second is predicted."""
    X, y = blobs(40, n_classes=2)
    model = NTKClassifier(n_hidden=32, random_state=0).fit(X[:20], y[:20])
    decision = model.decision_function(X[20:])
    assert decision.shape == (20,)
    assert ((decision > 0) == (model.predict(X[20:]) == 1)).all()


def test_works_in_scikit_learn():
    """Cloned, searched, cross-validated and pickled like any estimator; one seed, one result."""
    X, y = blobs(45)
    model = NTKClassifier(n_hidden=16, random_state=0)
    assert clone(model).get_params()["n_hidden"] == 16
    search = GridSearchCV(model, {"rel_jitter": [1e-6, 1e-2]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    assert len(cross_val_score(NTKRegressor(n_hidden=8, random_state=0), X, y.astype(float), cv=2)) == 2
    first, second = (clone(model).fit(X, y).decision_function(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    fitted = model.fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))


def test_images_and_the_users_module():
    """A convolutional module on images is used as it is and left as found."""
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    X, y = np.random.default_rng(0).normal(size=(10, 1, 6, 6)).astype(np.float32), np.arange(10) % 2
    before = state_of(module)
    model = NTKClassifier(module).fit(X, y)
    assert model.score(X, y) == 1
    assert_same_state(before, state_of(module))


def test_errors_say_what_was_expected():
    """Other features than at fit, a kernel per pair of outputs, missing values."""
    X, y = blobs(20)
    model = NTKClassifier(n_hidden=8, random_state=0).fit(X, y)
    with pytest.raises(InvalidInputError, match="6 features"):
        model.predict(X[:, :4])
    with pytest.raises(InvalidInputError, match="kind to be one of"):
        NTKRegressor(kind="full").fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        NTKRegressor().fit(np.full((2, 2), np.nan), [0, 1])


@pytest.mark.parametrize("estimator", [NTKRegressor, NTKClassifier])
@pytest.mark.filterwarnings("ignore")  # its checks provoke warnings and expect errors after them
def test_scikit_learn_accepts_them(estimator):
    """The library's own checks of an estimator hold."""
    check_estimator(estimator(n_hidden=32, random_state=0))
