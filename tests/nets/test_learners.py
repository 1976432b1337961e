"""What the library says of a learner before it is too late."""

import warnings

import modAL.models
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import modal_ntk
from modal_ntk.environment import compatibility
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets import learners

X, y = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture
def clash(monkeypatch):
    """As on scikit-learn 1.8 and later, in a process in which nothing was said yet."""
    monkeypatch.setattr(compatibility, "modal_learner_runs", lambda: False)
    monkeypatch.setattr(learners, "_told", False)


def fitted(learner_class):
    return learner_class(LogisticRegression().fit(X, y), modal_ntk.random_sampling)


def test_modals_learner_is_warned_about_once(clash):
    """The first query on behalf of modAL's own learner names the trouble and both remedies; the second is silent."""
    learner = fitted(modAL.models.ActiveLearner)
    with pytest.warns(ModalNTKWarning, match=r"cannot teach .* modal_ntk\.ActiveLearner .* MODAL_NTK_REPAIR"):
        learner.query(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModalNTKWarning)
        modal_ntk.random_sampling(learner, X)


def test_members_of_a_committee_are_looked_at(clash):
    """A committee teaches through its members, so a member of modAL's own is warned about."""
    committee = modAL.models.Committee([fitted(modAL.models.ActiveLearner)], modal_ntk.random_sampling)
    with pytest.warns(ModalNTKWarning, match="cannot teach"):
        learners.warn_if_it_cannot_teach(committee)


def test_learners_that_can_teach_are_left_in_peace(clash):
    """Ours, a committee of ours, a bare estimator and None are not warned about."""
    ours = fitted(modal_ntk.ActiveLearner)
    committee = modAL.models.Committee([ours], modal_ntk.random_sampling)
    for learner in (ours, committee, LogisticRegression(), None):
        learners.warn_if_it_cannot_teach(learner)


def test_nothing_is_said_where_modal_runs(monkeypatch):
    """Without the clash no learner is warned about."""
    monkeypatch.setattr(compatibility, "modal_learner_runs", lambda: True)
    learners.warn_if_it_cannot_teach(fitted(modAL.models.ActiveLearner))
