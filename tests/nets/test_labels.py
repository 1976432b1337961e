"""Labels of a learner, wherever it keeps them; labels that cannot be used; learners without classes."""

import warnings

import modAL.models
import numpy as np
import pandas as pd
import pytest
import skorch
import torch
import zoo
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

import modal_ntk
from modal_ntk import BADGE, NTKCPL, ActiveLearner, CoreSet, DynamicAL, Entropy, LookAhead, Margin, ProbCover
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.checks import check_labels
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.nets import labeled_set_of

X, y = zoo.blobs()
LOOKING = [CoreSet(features="input"), modal_ntk.TypiClust(), modal_ntk.DDAL(), ProbCover(), NTKCPL(variant="self")]


def member(rows, labels=y):
    return ActiveLearner(LogisticRegression(), Margin(), X[rows], labels[rows])


class TestCommittee:
    """A committee knows what its members know."""

    @pytest.mark.parametrize("strategy", LOOKING, ids=lambda s: type(s).__name__)
    def test_its_labels_are_heeded(self, strategy):
        """A strategy picks for a committee as it does with the members' labels in hand."""
        strategy = clone(strategy).set_params(random_state=0)
        committee = modAL.models.Committee([member(slice(12)), member(slice(12))], strategy)
        known = {"X_labeled": X[:12], "y_labeled": y[:12]}
        want = strategy.select(committee, X[12:], 4, **known)
        assert strategy.select(committee, X[12:], 4).indices.tolist() == want.indices.tolist()
        assert strategy.select(None, X[12:], 4).indices.tolist() != want.indices.tolist()

    def test_its_labels_are_the_union(self):
        """What members share counts once, in the order of the first; what one holds alone is added."""
        samples, labels = labeled_set_of(modAL.models.Committee([member(slice(4)), member(slice(2, 7))], Margin()))
        np.testing.assert_array_equal(samples, X[:7])
        np.testing.assert_array_equal(labels, y[:7])

    def test_repetition_and_disagreement_are_kept(self):
        """A sample that one member holds twice stays twice; two labels of one sample are two pairs."""
        twice = ActiveLearner(LogisticRegression(), Margin(), X[[0, 0, 1]], y[[0, 0, 1]])
        other = ActiveLearner(LogisticRegression(), Margin(), X[[1, 0]], [y[0], y[1]])
        samples, labels = labeled_set_of(modAL.models.Committee([twice, other], Margin()))
        np.testing.assert_array_equal(samples, X[[0, 0, 1, 1, 0]])
        np.testing.assert_array_equal(labels, [*y[[0, 0, 1]], y[0], y[1]])

    def test_without_labels_it_has_none(self):
        """Members that were never taught give no labelled set."""
        assert labeled_set_of(modAL.models.Committee([ActiveLearner(LogisticRegression())], Margin())) == (None, None)


class TestLabelsElsewhere:
    """What the strategy is told and what the net knows should be one; where they are not, it is said."""

    def test_a_net_that_another_learner_taught(self):
        """The second learner of one net, without labels, is told to clone it; a clone and labels are no matter."""
        net = zoo.net()
        ActiveLearner(net, BADGE(), X[:12], y[:12])
        second = ActiveLearner(net, BADGE(random_state=0))
        with pytest.warns(ModalNTKWarning, match=r"its net has been trained.*sklearn\.base\.clone\(net\)"):
            second.query(X[12:], n_instances=3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            second.query(X[12:], n_instances=3, X_labeled=X[:12], y_labeled=y[:12])
            with pytest.raises(UnmetNeedError, match="unfitted"):
                ActiveLearner(clone(net), BADGE()).query(X[12:], n_instances=3)
            BADGE(random_state=0).select(net, X[12:], 3)

    @pytest.mark.skipif(not hasattr(modAL.models, "DeepActiveLearner"), reason="modAL 0.4.1 has no DeepActiveLearner")
    def test_a_learner_that_keeps_none(self):
        """DeepActiveLearner is said to keep no labels where the strategy reads them, and only there."""
        learner = modAL.models.DeepActiveLearner(zoo.net(), CoreSet(random_state=0))
        learner.teach(X[:12], y[:12])
        with pytest.warns(ModalNTKWarning, match="DeepActiveLearner keeps no labelled samples.*X_labeled=X"):
            CoreSet(random_state=0).select(learner, X[12:], 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            Entropy().select(learner, X[12:], 3)

    @pytest.mark.parametrize("hold", [np.asarray, torch.from_numpy, np.asfortranarray])
    def test_labelled_samples_in_the_pool(self, hold):
        """All of them in the pool again is said, with how to take them out; some of them may be chance."""
        learner = ActiveLearner(LogisticRegression(), CoreSet(random_state=0), X[:12], y[:12])
        with pytest.warns(ModalNTKWarning, match=r"All 12 labelled samples are in the pool.*np\.delete"):
            learner.query(hold(X), n_instances=3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ModalNTKWarning)
            learner.query(hold(X[11:]), n_instances=3)


BAD = {
    "None": (["a", None, "b"], "row 1"),
    "None beside numbers": ([0, 1, None], "row 2"),
    "NaN beside strings": (["a", "b", np.nan], "row 2"),
    "NaN among objects": (np.array([np.nan, 1, 2], dtype=object), "row 0"),
    "NaN": (np.array([0.0, np.nan, 1.0]), "row 1"),
    "infinity": ([0.0, np.inf, 1.0], "row 1"),
    "pandas.NA": (pd.Series(["a", pd.NA, "b"]), "row 1"),
    "pandas.NA of integers": (pd.array([1, 2, pd.NA], dtype="Int64"), "row 2"),
    "NaT": (np.array(["2020-01-01", "NaT", "2020-01-01"], "datetime64[D]"), "row 1"),
    "a category not there": (pd.Series(pd.Categorical(["a", None, "b"])), "row 1"),
    "masked": (np.ma.masked_array([0, 1, 2], [False, True, False]), "row 1"),
    "strings and numbers": (["a", 1, "b"], "one kind"),
    "numbers and booleans": ([True, 2, 0], "one kind"),
    "complex": (np.array([1j, 2, 3]), "names or numbers.*Complex data not supported: pass strings"),
    "bytes": (np.array([b"a", b"b", b"a"]), "bytes. Decode them"),
    "bytes as objects": ([b"a", b"b", b"c"], "bytes. Decode them"),
    "lists": (np.array([[1], [1, 2], [3]], dtype=object), "strings, numbers or booleans"),
    "unlike lengths": ([[1], [1, 2], [3]], "unlike lengths"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_refused_before_anything(case):
    """Missing and mixed labels are no class of their own: strategy, learner and simulation say which row it is."""
    labels, words = BAD[case]
    with pytest.raises(InvalidInputError, match=words):
        check_labels(labels, 3)
    estimator = LogisticRegression()
    for attempt in (
        lambda: CoreSet().select(estimator, X[3:], 2, X_labeled=X[:3], y_labeled=labels),
        lambda: ActiveLearner(estimator, Margin(), X[:3], labels),
        lambda: SimulatedActiveLearning(estimator, Margin(), n_initial=1, batch_size=1, n_rounds=1).fit(X[:3], labels),
    ):
        with pytest.raises(InvalidInputError, match=words):
            attempt()
    assert not hasattr(estimator, "classes_")


GOOD = [["a", "b"], [True, False], [1, 2.0], [np.int8(3), 4], (0, 1), pd.Series(["x", "y"]), torch.tensor([1, 0])]
GOOD += [np.ma.masked_array([0, 1]), pd.array([2, 1], dtype="Int64")]


@pytest.mark.parametrize("labels", GOOD, ids=repr)
def test_labels_of_one_kind_keep_their_values(labels):
    """Whatever scikit-learn knows as labels comes back by value."""
    found = check_labels(labels, 2)
    assert found.tolist() == [value.item() if hasattr(value, "item") else value for value in labels]


READING = [modal_ntk.LpNTK(), DynamicAL(), LookAhead(), modal_ntk.DDAL(), Margin()]


@pytest.mark.parametrize("strategy", READING, ids=repr)
def test_a_plain_net_with_a_loss_of_classes_is_served(strategy):
    """skorch.NeuralNet with cross-entropy gives the picks of the classifier with the same weights."""
    strategy, known = clone(strategy).set_params(random_state=0), {"X_labeled": X[:12], "y_labeled": y[:12]}
    picks = []
    for kind in (skorch.NeuralNetClassifier, skorch.NeuralNet):
        torch.manual_seed(0)
        net = kind(zoo.MLP, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, lr=0.1, max_epochs=2)
        picks.append(strategy.select(net.fit(X[:12], y[:12]), X[12:], 3, **known).indices.tolist())
    assert picks[0] == picks[1]


def test_regressors_are_refused_by_what_they_lack():
    """A regressor has no classes to be unsure of; distances between its inputs need none."""
    from sklearn.ensemble import RandomForestRegressor

    net = zoo.net(kind=skorch.NeuralNetRegressor, criterion=nn.MSELoss, module__n_classes=1).initialize()
    for estimator in (net, RandomForestRegressor(5).fit(X, y)):
        with pytest.raises(UnmetNeedError, match=r"probabilities \(class probabilities"):
            Margin().select(estimator, X, 2)
        assert len(CoreSet(random_state=0, features="input").select(estimator, X, 2).indices) == 2
    with pytest.raises(InvalidInputError, match="an estimator, got the class LogisticRegression"):
        Margin().select(LogisticRegression, X, 2)
