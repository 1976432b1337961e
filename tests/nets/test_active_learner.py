"""modal_ntk.ActiveLearner: modAL's learner, with what modAL's lacks, on every supported scikit-learn."""

import copy
import pickle
import warnings
from pathlib import Path

import modAL.models
import numpy as np
import pytest
import zoo
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import modal_ntk
from modal_ntk import NTKCPL, ActiveLearner, LabelingSession, Margin
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.testing.situations import MLP

X, y = zoo.blobs()


def test_it_is_modals_class():
    """Whatever asks for modAL's ActiveLearner takes ours."""
    assert issubclass(ActiveLearner, modAL.models.ActiveLearner)


def test_it_prints_clones_and_is_searched():
    """repr, get_params, set_params and clone work, and nested parameters are reached."""
    learner = ActiveLearner(LogisticRegression(C=2.0), Margin(random_state=1), X[:9], y[:9])
    assert "query_strategy=Margin(random_state=1)" in repr(learner)
    parameters = learner.get_params()
    assert parameters["estimator__C"] == 2.0
    assert parameters["query_strategy__random_state"] == 1
    learner.set_params(query_strategy__random_state=5)
    copy = clone(learner)
    assert copy.query_strategy.random_state == 5
    assert copy.X_training is None
    assert learner.X_training is not None
    assert pickle.loads(pickle.dumps(learner)).query(X[9:], 3)[0].tolist() == learner.query(X[9:], 3)[0].tolist()


def test_cross_validation_fits_it():
    """scikit-learn's own tools can fit and score a learner."""
    assert cross_val_score(ActiveLearner(LogisticRegression()), X, y, cv=3).mean() > 0.9


def test_teach_remembers_and_refits():
    """Taught samples are stacked on the training set and the estimator is fitted to all of them."""
    learner = ActiveLearner(LogisticRegression(), Margin(), X[:6], y[:6])
    learner.teach(X[6:12], y[6:12])
    np.testing.assert_array_equal(learner.X_training, X[:12])
    np.testing.assert_array_equal(learner.y_training, y[:12])
    np.testing.assert_allclose(learner.predict_proba(X), LogisticRegression().fit(X[:12], y[:12]).predict_proba(X))


def test_only_new_fits_the_new_samples_and_remembers_all():
    """With only_new the estimator sees the new samples alone; none is forgotten."""
    learner = ActiveLearner(LogisticRegression(), Margin(), X[:6], y[:6])
    learner.teach(X[6:12], y[6:12], only_new=True)
    assert len(learner.X_training) == 12
    np.testing.assert_allclose(learner.predict_proba(X), LogisticRegression().fit(X[6:12], y[6:12]).predict_proba(X))


def test_a_wrong_teach_loses_nothing():
    """Samples of another shape, or with NaN, are refused and the training set stays as it was."""
    learner = ActiveLearner(LogisticRegression(), Margin(), X[:6], y[:6])
    with pytest.raises(InvalidInputError, match=r"Expected samples of shape \(6,\), .* got shape \(2,\)"):
        learner.teach(X[6:9, :2], y[6:9])
    with pytest.raises(InvalidInputError, match=r"Expected samples of shape \(6,\), .* got single numbers"):
        learner.query(X[6])
    with pytest.raises(ValueError, match="NaN"):
        learner.teach(np.full((1, 6), np.nan), y[:1])
    assert learner.X_training.shape == (6, 6)


def test_a_strategy_that_cannot_be_called_is_refused():
    """The message shows what was given and what would do."""
    with pytest.raises(InvalidInputError, match="query_strategy to be callable, got 'margin'"):
        ActiveLearner(LogisticRegression(), "margin")


def test_the_class_of_an_estimator_is_refused():
    """It has a `fit`, which is nobody's; the message names what would do."""
    with pytest.raises(InvalidInputError, match="an estimator, got the class LogisticRegression"):
        ActiveLearner(LogisticRegression, Margin(), X[:6], y[:6])


def test_the_class_of_a_strategy_is_refused_wherever_one_is_given(tmp_path):
    """It is callable, and fails only when it is called; the instance that is named in its place is taken."""
    told = r"got the class Margin. Make an instance of it: query_strategy=Margin\(\)"
    for make in (
        lambda strategy: ActiveLearner(LogisticRegression(), strategy, X[:6], y[:6]),
        lambda strategy: SimulatedActiveLearning(LogisticRegression(), strategy, n_rounds=1).fit(X, y),
        lambda strategy: LabelingSession(tmp_path / "log.sqlite", X, LogisticRegression(), strategy),
    ):
        with pytest.raises(InvalidInputError, match=told):
            make(Margin)
        make(Margin())


@pytest.mark.parametrize(
    "instance", [modal_ntk.ntkcpl, NTKCPL(max_clusters=50, random_state=0)], ids=["default", "class"]
)
def test_five_rounds_from_no_labels(active_learner, instance):
    """ActiveLearner with NTKCPL queries and teaches five rounds, the first from nothing, and learns the classes."""
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    digits, labels = (digits[:600] / 16).astype(np.float32), labels[:600]
    net = zoo.net(n_classes=10, module__d=64, module__hidden=32, module__n_classes=10, max_epochs=40, lr=0.2)
    learner = active_learner(estimator=net, query_strategy=instance)
    pool = np.arange(len(digits))
    for _ in range(5):
        indices, samples = learner.query(digits[pool], n_instances=10)
        np.testing.assert_array_equal(samples, digits[pool[indices]])
        learner.teach(samples, labels[pool[indices]])
        pool = np.delete(pool, indices)
    assert len(learner.X_training) == 50
    assert learner.score(digits, labels) > 0.6


def test_a_pipeline_that_ends_in_a_net(active_learner):
    """NTKCPL reads features after the earlier steps; the learner teaches the whole pipeline."""
    learner = active_learner(make_pipeline(StandardScaler(), zoo.net()), NTKCPL(random_state=0))
    pool = np.arange(len(X))
    for _ in range(3):
        indices, samples = learner.query(X[pool], n_instances=6)
        learner.teach(samples, y[pool[indices]])
        pool = np.delete(pool, indices)
    assert len(learner.X_training) == 18


def test_a_replaced_estimator_answers_for_itself():
    """What numbers the labels belongs to the net that it was made for: another estimator's answers are its own."""
    X, y = zoo.blobs()
    names = np.array(["ant", "bee", "cat"])[y]
    learner = ActiveLearner(zoo.net(), X_training=X[:12], y_training=names[:12])
    assert set(learner.predict(X)) <= {"ant", "bee", "cat"}
    other = zoo.net(classes=[0, 1, 2]).fit(X[:12], y[:12])
    learner.estimator = other
    np.testing.assert_array_equal(learner.predict(X), other.predict(X))
    assert learner.classes_.tolist() == [0, 1, 2]


def lasting_net():
    """A net whose weights stay from fit to fit."""
    return zoo.net(MLP())


class TestSharedEstimators:
    """One estimator in two learners answers by the labels of whichever fitted it last: it is said, with the remedy."""

    @pytest.mark.parametrize("make", [zoo.net, LogisticRegression, lambda: make_pipeline(StandardScaler(), zoo.net())])
    @pytest.mark.parametrize("ask", ["query", "predict", "predict_proba"])
    def test_the_former_learner_is_warned(self, make, ask):
        """Of whatever kind the estimator is, at every question; the latter learner is left in peace."""
        estimator = make()
        first, second = (ActiveLearner(estimator, Margin(), X[rows], y[rows]) for rows in (slice(12), slice(20)))
        with pytest.warns(ModalNTKWarning, match=r"Another learner.*since.*sklearn\.base\.clone\(estimator\)") as told:
            getattr(first, ask)(X[20:])
        assert {Path(warning.filename).name for warning in told} == {Path(__file__).name}
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            getattr(second, ask)(X[20:])

    @pytest.mark.parametrize("kind", ["instance", "warm start"])
    def test_a_fit_that_goes_on_is_warned_about(self, kind):
        """A module given as an instance keeps what a learner of more labels taught it; clones, as told, do not."""
        estimator = lasting_net() if kind == "instance" else LogisticRegression(warm_start=True)
        copies = [clone(estimator) for _ in range(2)]
        ActiveLearner(estimator, Margin(), X[:20], y[:20])
        with pytest.warns(ModalNTKWarning, match="to 20 labels, and this fit to 12 goes on from there"):
            ActiveLearner(estimator, Margin(), X[:12], y[:12])
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            first, _ = (ActiveLearner(c, Margin(), X[:n], y[:n]) for c, n in zip(copies, (20, 12), strict=True))
            first.query(X[20:])

    def test_what_does_no_harm_is_left_in_peace(self):
        """A learner made again from a net that starts anew, one that goes on with more labels, and one's own rounds."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            net, lasting = zoo.net(), lasting_net()
            for n in (20, 12):
                learner = ActiveLearner(net, Margin(), X[:n], y[:n])
                learner.teach(X[20:24], y[20:24])
                learner.query(X[24:])
            for n in (12, 20):
                ActiveLearner(lasting, Margin(), X[:n], y[:n]).query(X[24:])

    def test_a_copy_knows_the_same_labels(self):
        """A shallow copy is asked in peace until either of the two is taught more."""
        learner = ActiveLearner(zoo.net(), Margin(), X[:12], y[:12])
        twin = copy.copy(learner)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            twin.query(X[12:])
        learner.teach(X[12:16], y[12:16])
        with pytest.warns(ModalNTKWarning, match="Another learner"):
            twin.query(X[16:])

    def test_an_estimator_without_a_hash_is_not_remembered(self):
        """What cannot be told apart is fitted and queried all the same."""

        class Unhashable(LogisticRegression):
            __hash__ = None

        ActiveLearner(Unhashable(), Margin(), X[:12], y[:12]).query(X[12:])
