"""Labels of any kind for a net: names are numbered, numbers are outputs, and what is neither is said."""

import numpy as np
import pandas as pd
import pytest
import skorch
import torch
import zoo
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from modal_ntk import ALBL, ActiveLearner, DynamicAL, LookAhead, Margin, ProbCover
from modal_ntk.bench import SimulatedActiveLearning, area_score
from modal_ntk.errors import InvalidInputError
from modal_ntk.labeling import LabelingSession
from modal_ntk.nets import LabelEncoded, NetView
from modal_ntk.testing import situations

X, y = zoo.blobs()
NAMES = np.array(["cow", "ant", "bee"])[y]

KINDS = {
    "strings": NAMES,
    "objects": NAMES.astype(object),
    "list": NAMES.tolist(),
    "categories": pd.Series(pd.Categorical(NAMES)),
    "booleans": y > 0,
}


def two_outputs(kind):
    return 2 if kind == "booleans" else 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piped", [False, True])
def test_a_net_is_taught_by_labels_of_any_kind(kind, piped):
    """Labels that are no numbers are numbered for the net: picks are those of the numbers, answers the labels."""
    labels = KINDS[kind]
    named, numbers = np.unique(np.asarray(labels), return_inverse=True)
    pairs = []
    for told in (numbers, labels):
        torch.manual_seed(0)
        net = zoo.net(module__n_classes=two_outputs(kind), classes=None)
        estimator = make_pipeline(StandardScaler(), net) if piped else net
        learner = ActiveLearner(estimator, DynamicAL(random_state=0), X[:12], told[:12])
        indices, rows = learner.query(X[12:], n_instances=3)
        learner.teach(rows, [list(told)[12 + i] for i in indices])
        assert learner.estimator is estimator
        pairs.append((indices.tolist(), np.asarray(learner.predict(X)), learner.score(X, np.asarray(told))))
    (first, codes, score), (second, answers, same_score) = pairs
    assert first == second
    assert score == same_score
    np.testing.assert_array_equal(named[codes], answers)
    np.testing.assert_array_equal(learner.classes_, named)


def test_declared_classes_give_the_order_of_outputs():
    """A net's own `classes` say which output a label is, also of labels not seen yet."""
    learner = ActiveLearner(zoo.net(classes=["bee", "cow", "ant"]), Margin(), X[:12], np.where(y, "cow", "ant")[:12])
    assert learner.classes_.tolist() == ["bee", "cow", "ant"]
    assert NetView(learner).classes.tolist() == ["bee", "cow", "ant"]
    ActiveLearner(learner.estimator, Margin(), X[:12], NAMES[:12])


def test_a_new_label_is_refused_where_training_goes_on():
    """Numbers are kept by `partial_fit`, so a label without one is said; `fit` numbers anew."""
    encoded = LabelEncoded(zoo.net(classes=None)).fit(X[:12], np.where(y, "b", "a")[:12])
    encoded.partial_fit(X[:4], ["b", "a", "b", "b"])
    with pytest.raises(InvalidInputError, match=r"new ones \['c'\].*classes="):
        encoded.partial_fit(X[:4], ["a", "b", "c", "a"])
    assert encoded.fit(X[:12], NAMES[:12]).classes_.tolist() == ["ant", "bee", "cow"]


ONE_LOGIT = {"module": zoo.OneLogit, "kind": skorch.NeuralNetBinaryClassifier, "criterion": nn.BCEWithLogitsLoss}
CODES = {
    "fractions": (y + 0.5, {}, "numbers of the net's outputs, 0 and up, got [0-2].5"),
    "negative": (y - 1, {}, "numbers of the net's outputs, 0 and up, got -1"),
    "with gaps": (y * 5, {}, "below the number of the net's outputs, got 10"),
    "of one output": (np.where(y, 1, -1), ONE_LOGIT, "labels 0 and 1 for a net with one output, got -1"),
}


@pytest.mark.parametrize("case", CODES)
def test_numbers_that_are_no_outputs_are_refused_and_serve_as_names(case):
    """torch's own words, or a loss that means nothing, give way to which label it is; the remedy named works."""
    labels, options, words = CODES[case]
    net = zoo.net(**(options or {"classes": None}))
    replay = SimulatedActiveLearning(net, Margin(), n_initial=9, batch_size=1, n_rounds=1)
    for attempt in (lambda y: ActiveLearner(net, Margin(), X[:12], y[:12]), lambda y: replay.fit(X, y)):
        with pytest.raises(InvalidInputError, match=rf"{words}.*y\.astype\(str\)"):
            attempt(labels)
        attempt(labels.astype(str))


def test_more_names_than_outputs_are_said():
    """The message counts both, in words, whatever the names are; a net with as many outputs trains."""
    for names in (NAMES, y.astype(object) > 0, y.astype(str)):
        few = zoo.net(module=nn.Linear(6, len(np.unique(names)) - 1), classes=None)
        with pytest.raises(InvalidInputError, match=rf"no more labels than outputs .*, got {len(np.unique(names))}"):
            ActiveLearner(few, Margin(), X[:12], names[:12])
        ActiveLearner(zoo.net(module=nn.Linear(6, 3), classes=None), Margin(), X[:12], names[:12])


@pytest.mark.parametrize("stratified", [False, True])
def test_too_few_labels_for_a_validation_split_are_said(stratified):
    """skorch's default splits off a fifth: with three labels the message says so, and its remedy trains."""
    split = skorch.dataset.ValidSplit(5, stratified=stratified)
    with pytest.raises(InvalidInputError, match=r"validation split, got 3. Make the net with train_split=None"):
        ActiveLearner(zoo.net(train_split=split), Margin(), X[:3], NAMES[:3])
    ActiveLearner(zoo.net(train_split=None), Margin(), X[:3], NAMES[:3])


def test_a_net_that_numbers_labels_itself_takes_any_numbers():
    """A class with a `fit` and a `predict` of its own is taught by numbers with gaps, and answers by them."""
    X, y = situations.blobs()
    net = situations.skorch_net(kind=situations.EncodingNet)
    learner = ActiveLearner(estimator=net, X_training=X[:20], y_training=y[:20] * 7 - 3)
    learner.teach(X[20:30], y[20:30] * 7 - 3)
    assert set(learner.predict(X).tolist()) <= {-3, 4, 11}


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint8", "float32"])
@pytest.mark.parametrize(("options", "own"), [({"classes": None}, "int64"), (ONE_LOGIT, "float32")], ids=["K", "one"])
def test_numbers_of_any_type_reach_the_loss_in_its_own(options, own, dtype):
    """Whole numbers are classes whatever holds them: the net is that of the labels in the loss's own type."""
    found = []
    for kind in (own, dtype):
        torch.manual_seed(0)
        learner = ActiveLearner(zoo.net(**options), Margin(), X[:12], (y > 0).astype(kind)[:12])
        found.append(learner.predict_proba(X))
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("options", [{"warm_start": True}, {"module": zoo.MLP()}], ids=["warm_start", "an instance"])
def test_labels_keep_their_outputs_where_a_net_goes_on(options):
    """A label that is new between two others does not move these to other outputs; a net made anew is numbered anew."""
    for kept in (options, {}):
        learner = ActiveLearner(zoo.net(classes=None, **kept), Margin(), X[:12], np.where(y, "cow", "ant")[:12])
        assert learner.classes_.tolist() == ["ant", "cow"]
        learner.teach(X[12:], NAMES[12:])
        assert learner.classes_.tolist() == (["ant", "cow", "bee"] if kept else ["ant", "bee", "cow"])
        outputs = learner.estimator.predict_proba(X).argmax(axis=1)
        np.testing.assert_array_equal(learner.predict(X), learner.classes_[outputs])
        learner.fit(X, y)
        assert set(learner.predict(X)) <= {0, 1, 2}


def test_one_logit_takes_two_names():
    """A binary net is taught by two names, and refuses a third in words."""
    kind = {"kind": skorch.NeuralNetBinaryClassifier, "criterion": nn.BCEWithLogitsLoss}
    learner = ActiveLearner(zoo.net(zoo.OneLogit, **kind), Margin(random_state=0), X[:12], np.where(y, "b", "a")[:12])
    assert set(learner.predict(X)) <= {"a", "b"}
    assert len(learner.query(X[12:], n_instances=3)[0]) == 3
    with pytest.raises(InvalidInputError, match="two classes for a net with one output"):
        ActiveLearner(zoo.net(zoo.OneLogit, **kind), Margin(), X[:12], NAMES[:12])


def test_simulation_and_session_take_names(tmp_path):
    """Both replay and session teach a net by names, score by them and answer by them."""
    options = {"n_initial": 9, "batch_size": 3, "n_rounds": 1, "random_state": 0, "keep_estimators": True}
    curves = [
        SimulatedActiveLearning(zoo.net(classes=None), Margin(), **options).fit(X, labels)
        for labels in (np.unique(NAMES, return_inverse=True)[1], NAMES)
    ]
    scores = [[(entry.score, entry.indices.tolist()) for entry in replay.curve_] for replay in curves]
    assert scores[0] == scores[1]
    assert set(curves[1].predict(X)) <= set(NAMES)
    assert 0 <= area_score(curves[1], X, NAMES) <= 1
    session = LabelingSession(tmp_path / "log.sqlite", X, zoo.net(classes=None), Margin())
    for row in range(9):
        session.tell(row, str(NAMES[row]))
    assert len(session.ask(3)) == 3
    assert set(session.fit().predict(X)) <= set(NAMES)


class TestAbsentClasses:
    """A plain net whose labels name some of its outputs so far."""

    rows = np.flatnonzero(y > 0)[:12]

    strategies = [LookAhead(variant="initial"), ALBL(), DynamicAL(), ProbCover(), Margin()]

    @pytest.mark.parametrize("strategy", strategies, ids=repr)
    def test_are_no_matter(self, strategy):
        """Every strategy goes through two rounds, labels being numbers of outputs."""
        seeded = clone(strategy).set_params(random_state=0)
        learner = ActiveLearner(zoo.net(classes=None), seeded, X[self.rows], y[self.rows])
        pool = np.setdiff1d(np.arange(len(X)), self.rows)
        for _ in range(2):
            indices, rows = learner.query(X[pool], n_instances=3)
            learner.teach(rows, y[pool[indices]])
            pool = np.delete(pool, indices)
        assert len(learner.y_training) == 18

    def test_labels_of_columns(self):
        """Columns are the classes' where all are named, else the labels themselves."""
        view = NetView(zoo.net(classes=None).fit(X[self.rows], y[self.rows]))
        assert view.labels_at(np.array([0, 2, 1]), 3).tolist() == [0, 2, 1]
        assert NetView(zoo.net(classes=[5, 6, 7]).initialize()).labels_at(np.array([2, 0]), 3).tolist() == [7, 5]

    def test_labels_do_not_depend_on_which_columns_are_asked(self):
        """Taught labels 1 and 2 of three outputs, column 1 is label 1, whatever the largest column of a batch is."""
        seen = np.isin(y, [1, 2])
        view = NetView(zoo.net(classes=None).fit(X[seen], y[seen]))
        assert view.classes.tolist() == [1, 2]
        assert view.labels_at(np.array([1, 1]), 3).tolist() == [1, 1]
        assert view.labels_at(np.array([1, 2]), 3).tolist() == [1, 2]
