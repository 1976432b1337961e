"""Labels of a learner, wherever it keeps them; labels of any kind for a net; labels that cannot be used."""

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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import modal_ntk
from modal_ntk import ALBL, BADGE, NTKCPL, ActiveLearner, CoreSet, DynamicAL, Entropy, LookAhead, Margin, ProbCover
from modal_ntk.bench import SimulatedActiveLearning, area_score
from modal_ntk.checks import check_labels
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.labeling import LabelingSession
from modal_ntk.nets import LabelEncoded, NetView, labeled_set_of
from modal_ntk.testing import situations

X, y = zoo.blobs()
NAMES = np.array(["cow", "ant", "bee"])[y]
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


class TestFailedTeach:
    """After a teach that fails, the learner is as before, so that the retry doubles nothing."""

    @pytest.mark.parametrize("given", ["class", "instance", "pipeline", "forest"])
    def test_nothing_is_kept_of_it(self, given):
        """Training set, weights and answers are those of before the failure; the retry adds its samples once."""
        net = zoo.net(module=zoo.MLP() if given == "instance" else zoo.MLP)
        estimator = {"pipeline": make_pipeline(StandardScaler(), net), "forest": LogisticRegression()}.get(given, net)
        learner = ActiveLearner(estimator, Margin(), X[:12], y[:12])
        before = learner.predict_proba(X)
        with pytest.raises((ValueError, IndexError, TypeError)):
            learner.teach(X[12:15], y[12:15] + 7, nonsense=3)
        assert len(learner.X_training) == len(learner.y_training) == 12
        np.testing.assert_array_equal(learner.predict_proba(X), before)
        learner.teach(X[12:15], y[12:15])
        assert len(learner.X_training) == 15

    def test_lazy_layers_have_nothing_to_put_back(self):
        """A module whose weights are made by the first pass is taught, and a failure before leaves it unmade."""
        net = zoo.net(module=nn.LazyLinear(3))
        learner = ActiveLearner(net, Margin())
        with pytest.raises((TypeError, ValueError, IndexError)):
            learner.teach(X[:12], y[:12], nonsense=3)
        assert learner.X_training is None
        learner.teach(X[:12], y[:12])
        assert net.module_.in_features == 6

    def test_halfway_through_training(self):
        """Weights of a module that is trained in place come back, too."""
        module = zoo.MLP()
        learner = ActiveLearner(zoo.net(module=module), Margin(), X[:12], y[:12])
        before = {name: value.clone() for name, value in module.state_dict().items()}

        class Breaks(skorch.callbacks.Callback):
            def on_epoch_end(self, net, **kwargs):
                assert not torch.equal(module.head.weight, before["head.weight"])
                raise RuntimeError("the loader broke")

        learner.estimator.set_params(callbacks=[("breaks", Breaks())])
        with pytest.raises(RuntimeError, match="the loader broke"):
            learner.teach(X[12:15], y[12:15])
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        assert len(learner.X_training) == 12

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    def test_training_that_goes_on_is_put_back(self, optimizer):
        """A net with warm_start keeps module and optimiser; after a failure it learns on as if there had been none."""

        class Breaks(skorch.callbacks.Callback):
            breaks = False

            def on_epoch_end(self, net, **kwargs):
                if Breaks.breaks:
                    raise RuntimeError("the loader broke")

        def taught(breaks):
            torch.manual_seed(0)
            net = zoo.net(warm_start=True, optimizer=optimizer, lr=0.01, max_epochs=3, callbacks=[Breaks])
            learner = ActiveLearner(net, Margin(), X[:12], y[:12])
            module = net.module_
            if breaks:
                Breaks.breaks = True
                with pytest.raises(RuntimeError, match="the loader broke"):
                    learner.teach(X[12:15], y[12:15])
                Breaks.breaks = False
                assert (len(learner.X_training), len(net.history)) == (12, 3)
                assert net.module_ is module
            learner.teach(X[12:15], y[12:15])
            assert len(net.history) == 6
            return net

        calm, broken = taught(False), taught(True)
        for name, value in calm.module_.state_dict().items():
            assert torch.equal(value, broken.module_.state_dict()[name])

    def test_classifiers_that_learn_on_are_put_back(self):
        """Coefficients that scikit-learn changes in place come back."""
        from sklearn.linear_model import SGDClassifier

        class Breaks(SGDClassifier):
            def fit(self, X, y, nonsense=0):
                super().fit(X, y)
                if nonsense:
                    raise RuntimeError("the loader broke")
                return self

        learner = ActiveLearner(Breaks(loss="log_loss", warm_start=True, random_state=0), Margin(), X[:12], y[:12])
        before = learner.predict_proba(X)
        with pytest.raises(RuntimeError, match="the loader broke"):
            learner.teach(X[12:], y[12:], nonsense=1)
        np.testing.assert_array_equal(learner.predict_proba(X), before)
