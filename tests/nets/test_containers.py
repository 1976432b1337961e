"""Whatever holds samples: a learner queries and teaches it as it does the array, and says what it cannot read."""

import importlib.util
import sys

import fuzz_calls
import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from modal_ntk import NTKCPL, ActiveLearner, CoreSet, DeepFool, DynamicAL, Entropy, Margin, TypiClust
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError
from modal_ntk.labeling import LabelingSession
from modal_ntk.nets import NetView, pool_fitted, samples_of, stack_rows

X, y = zoo.blobs()


class Endless(Dataset):
    """A data set that answers for any number, as torch allows: only __len__ says where it ends. Targets mislead."""

    def __init__(self, rows, n_targets=3):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i % len(self.rows)], 1000 * (i % 7)


class Bare(Endless):
    """Samples without targets."""

    def __getitem__(self, i):
        return self.rows[i]


class Stream(IterableDataset):
    """Samples that only come one after another."""

    def __len__(self):
        return len(X)

    def __iter__(self):
        return iter(X)


DATASETS = {
    "endless": Endless,
    "bare": Bare,
    "TensorDataset with targets": lambda rows: TensorDataset(torch.from_numpy(rows), torch.arange(len(rows)) * 99),
    "TensorDataset without": lambda rows: TensorDataset(torch.from_numpy(rows)),
    "Subset": lambda rows: Subset(Endless(np.concatenate([rows, rows])), range(len(rows))),
    "SliceDataset": lambda rows: SliceDataset(Endless(rows)),
    "Subset of a SliceDataset": lambda rows: Subset(SliceDataset(Endless(rows)), range(len(rows))),
}
HELD = {
    **DATASETS,
    "tensor": torch.from_numpy,
    "frame": lambda rows: pd.DataFrame(rows, columns=list("abcdef"), index=np.arange(len(rows))[::-1]),
    "list": lambda rows: list(rows),
    "float64": lambda rows: rows.astype(np.float64),
    "long double": lambda rows: rows.astype(np.longdouble),
    "numpy.matrix": lambda rows: rows.view(np.matrix),
    "objects": lambda rows: rows.astype(object),
    "big-endian": lambda rows: rows.astype(">f4"),
    "masked, nothing missing": np.ma.masked_array,
}


def net(**options):
    return zoo.net(**options)


@pytest.mark.parametrize("strategy", [CoreSet(features="input"), Margin(), NTKCPL(max_clusters=8)], ids=repr)
@pytest.mark.parametrize("held", HELD)
def test_picks_are_those_of_the_array(held, strategy):
    """Pool and labelled set in any container give the picks of the arrays, targets of a Dataset playing no part."""
    strategy.set_params(random_state=0)
    estimator, hold = net().fit(X[:12], y[:12]), HELD[held]
    want = strategy.select(estimator, X[12:], 4, X_labeled=X[:12], y_labeled=y[:12])
    got = strategy.select(estimator, hold(X[12:]), 4, X_labeled=hold(X[:12]), y_labeled=y[:12])
    assert got.indices.tolist() == want.indices.tolist()


@pytest.mark.parametrize("estimator", [LogisticRegression(), make_pipeline(StandardScaler(), zoo.net())], ids=["", "p"])
def test_scikit_learn_reads_datasets_as_arrays(estimator):
    """A classifier and a Pipeline are given the samples of a Dataset in one array."""
    estimator.fit(X[:12], y[:12])
    want = Entropy(random_state=0).select(estimator, X[12:], 4)
    assert Entropy(random_state=0).select(estimator, Endless(X[12:]), 4).indices.tolist() == want.indices.tolist()
    assert CoreSet(random_state=0).select(None, Endless(X), 3).indices.tolist() == (
        CoreSet(random_state=0).select(None, X, 3).indices.tolist()
    )


@pytest.mark.parametrize("held", HELD)
def test_a_learner_goes_on_in_any_container(held):
    """Query, teach, predict and score give what the arrays give, labels being those told, not a Dataset's own."""
    results = []
    for hold in (np.asarray, HELD[held]):
        torch.manual_seed(0)
        learner = ActiveLearner(net(), Margin(random_state=0), hold(X[:12]), y[:12])
        pool = hold(X[12:])
        indices, rows = learner.query(pool, n_instances=3)
        learner.teach(rows, y[12:][indices])
        again, _ = learner.query(pool, n_instances=3)
        results.append([*indices, *again, *learner.predict(pool), learner.score(hold(X), y)])
    assert results[0] == results[1]


def test_frames_keep_their_columns_and_are_taken_by_position():
    """Mixed columns reach a ColumnTransformer with names and types; a shuffled index misleads nobody."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": X[:, 0], "kind": rng.choice(["a", "b"], len(X)), "seen": X[:, 1] > 0})
    frame.index = rng.permutation(len(X)) + 5
    steps = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    estimator = make_pipeline(steps, LogisticRegression())
    learner = ActiveLearner(estimator, Margin(random_state=0), frame[:12], pd.Series(y[:12]))
    indices, rows = learner.query(frame[12:], n_instances=4)
    pd.testing.assert_frame_equal(rows, frame[12:].iloc[indices])
    learner.teach(rows, pd.Series(y[12:][indices]))
    assert learner.X_training.dtypes.equals(frame.dtypes)
    assert learner.X_training.index.tolist() == [*frame.index[:12], *rows.index]


@pytest.mark.parametrize("flags", [{}, {"bootstrap": True}, {"only_new": True}, {"bootstrap": True, "only_new": True}])
@pytest.mark.parametrize("hold", [sparse.csr_matrix, sparse.coo_matrix, torch.from_numpy, Endless, pd.DataFrame])
def test_every_flag_of_teach_works_for_every_container(hold, flags):
    """bootstrap and only_new take rows of sparse matrices, tensors, Datasets and frames as of arrays."""
    np.random.seed(0)
    learner = ActiveLearner(LogisticRegression(), Margin(), hold(X[:12]), y[:12])
    learner.teach(hold(X[12:24]), y[12:24], **flags)
    assert len(learner.y_training) == 24
    assert learner.score(hold(X), y) > 0.6


def test_named_inputs_are_taught():
    """A dict of arrays is queried, returned by rows, and appended key by key."""
    rows = {"a": X[:, :3], "b": X[:, 3:]}
    cut = lambda part: {name: values[part] for name, values in rows.items()}  # noqa: E731
    learner = ActiveLearner(net(module=zoo.DictNet), Margin(random_state=0), cut(slice(12)), y[:12])
    indices, picked = learner.query(cut(slice(12, None)), n_instances=3)
    np.testing.assert_array_equal(picked["b"], X[12:][indices][:, 3:])
    learner.teach(picked, y[12:][indices])
    assert learner.X_training["a"].shape == (15, 3)


@pytest.mark.parametrize("held", [*DATASETS, "float64", "frame"])
def test_labelling_is_replayed_on_datasets(held):
    """The simulation gives the curve of the arrays, the labels being those passed."""
    curves = []
    for rows in (X, HELD[held](X)):
        replay = SimulatedActiveLearning(net(), Margin(), n_initial=9, batch_size=3, n_rounds=2, random_state=0)
        replay.fit(rows, y)
        curves.append([(entry.score, entry.indices.tolist()) for entry in replay.curve_])
    assert curves[0] == curves[1]


@pytest.mark.parametrize("held", ["endless", "tensor"])
def test_a_session_labels_datasets(held, tmp_path):
    """A pool behind a Dataset is known again by its values, and asked about as the array is."""
    asked = []
    for rows in (X, HELD[held](X)):
        session = LabelingSession(tmp_path / "log.sqlite", rows, net(), Margin(), random_state=3)
        if not len(session.labels):
            for row in range(9):
                session.tell(row, int(y[row]))
        else:
            session.undo()
            session.tell(8, int(y[8]))
        asked.append(LabelingSession(tmp_path / f"{len(asked)}.sqlite", rows).ask(3).tolist())
        with torch.random.fork_rng():
            asked.append(session.fit().predict_proba(X).tolist())
    assert asked[0] == asked[2]
    assert asked[1] == asked[3]


@pytest.mark.parametrize("piped", [True, False])
def test_unfitted_steps_see_pool_and_labels_together(piped):
    """An unfitted Pipeline is fitted once: labelled samples stay where they are among those of the pool."""
    near = np.random.default_rng(0).normal(size=(3, 2)) * 0.01 + 100
    pool = np.vstack([np.random.default_rng(1).normal(size=(50, 2)), [[100, 100]]])
    estimator = make_pipeline(StandardScaler(), LogisticRegression()) if piped else None
    picks = CoreSet(random_state=0).select(estimator, pool, 1, X_labeled=near, y_labeled=[0, 1, 1])
    assert picks.indices[0] != 50


def test_text_before_the_first_fit():
    """Raw text is queried and taught through a Pipeline, labelled texts with other words included."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["red cat", "some dog", "big bird", "red bird"]
    learner = ActiveLearner(make_pipeline(TfidfVectorizer(), LogisticRegression()), CoreSet(random_state=0))
    indices, rows = learner.query(texts, n_instances=1, X_labeled=["aa bb", "xx"], y_labeled=[0, 1])
    assert rows == [texts[indices[0]]]
    learner.teach(texts[:3], ["cat", "dog", "bird"])
    learner.teach(["a red bird"], ["bird"])
    assert learner.predict(["big bird"]).tolist() == ["bird"]


REFUSED = {
    "masked": (np.ma.masked_array(X, mask=X > 5), "masked ones, first in row"),
    "complex": (X.astype(complex), "complex128"),
    "complex tensor": (torch.from_numpy(X).to(torch.complex64), "complex64"),
    "complex sparse": (sparse.csr_matrix(X.astype(complex)), "complex128"),
    "complex objects": (X.astype(complex).astype(object), "complex128"),
    "None among numbers": (np.where(X > 5, None, X), "NaN or infinity"),
    "a structured array": (np.zeros(60, [("a", "f4"), ("b", "f4")]), "structured array"),
    "ragged objects": (np.array([np.zeros(2), np.zeros(3)], dtype=object), "one shape"),
    "iterable": (Stream(), "rows that can be taken"),
    "triples": (TensorDataset(*[torch.zeros(9, 6)] * 3), "items of a Dataset that are"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_said(case):
    """No mask is dropped, no imaginary part, no item guessed at."""
    samples, words = REFUSED[case]
    for learner in (None, net().initialize()):
        with pytest.raises(InvalidInputError, match=words):
            CoreSet(features="input", random_state=0).select(learner, samples, 2)


def test_text_for_a_net_is_refused_before_torch():
    """A net that is given strings is told to be given an encoder first."""
    with pytest.raises(InvalidInputError, match=r"numbers for the net.*make_pipeline"):
        Margin().select(net().initialize(), np.array([["a"], ["b"]]), 1)


def test_booleans_are_numbers():
    """A boolean matrix is one of zeros and ones, for a net too."""
    flags, estimator = X > 0, net().fit((X[:12] > 0).astype("float32"), y[:12])
    want = Margin(random_state=0).select(estimator, flags[12:].astype("float32"), 3)
    assert Margin(random_state=0).select(estimator, flags[12:], 3).indices.tolist() == want.indices.tolist()


class TestTypes:
    """What type a net computes in is found before the query, not a minute later by `teach`."""

    def test_raw_images_are_refused_before_the_query(self):
        """Integers for a net of floats name the cast; the pool is not read."""
        raw = (X * 10).astype(np.uint8)
        with pytest.raises(InvalidInputError, match=r'samples of float32.*got uint8.*X.astype\("float32"\) / 255'):
            ActiveLearner(net(), TypiClust(random_state=0)).query(raw, n_instances=3)

    def test_token_ids_are_no_images(self):
        """Integers for a net that looks them up are as they should be."""
        module = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 3))
        tokens = np.random.default_rng(0).integers(9, size=(30, 5))
        learner = ActiveLearner(net(module=module), Margin(random_state=0), tokens[:9], y[:9])
        assert len(learner.query(tokens[9:], n_instances=3)[0]) == 3

    def test_float64_rows_reach_the_net_in_its_own_type(self):
        """A float64 teach neither fails nor widens the training set; a float64 net gets float64."""
        learner = ActiveLearner(net(), Margin(random_state=0), X[:9], y[:9])
        learner.teach(X[9:12].astype(np.float64), y[9:12])
        assert learner.X_training.dtype == np.float32
        module = nn.Linear(6, 3).double()
        ActiveLearner(net(module=module), Margin(), X[:9].astype(np.float64), y[:9])
        assert module.weight.dtype == torch.float64

    def test_nothing_of_the_net_is_touched(self):
        """Trying a type leaves weights, mode and generators as they were, and an unmade net unmade."""
        estimator = net()
        state = torch.random.get_rng_state()
        with pytest.raises(InvalidInputError, match="uint8"):
            ActiveLearner(estimator, CoreSet()).query(X.astype(np.uint8), n_instances=3)
        assert not estimator.initialized_
        assert torch.equal(torch.random.get_rng_state(), state)


def test_parts_that_do_not_fit_are_said():
    """Other keys, other columns: refused in words, by kind."""
    for parts in ([{"a": X}, {"b": X}], [sparse.csr_matrix(X), sparse.csr_matrix(X[:, 1:])], [X, X[:, 1:]]):
        with pytest.raises(InvalidInputError, match="samples that fit together"):
            stack_rows(parts)


def test_samples_are_read_once_each():
    """A Dataset is asked for every item once, from zero to its length."""
    asked = []

    class Watched(Endless):
        def __getitem__(self, i):
            asked.append(i)
            return super().__getitem__(i)

    np.testing.assert_array_equal(samples_of(Watched(X)), X)
    assert asked == list(range(len(X)))
    assert NetView(net().initialize()).logits(Watched(X)).shape == (60, 3)


@pytest.mark.parametrize("strategy", [Margin(), CoreSet(), DeepFool(), DynamicAL()], ids=repr)
def test_shapes_that_a_net_cannot_read_are_said(strategy):
    """torch's own error is the cause of one that names type and shape, from whatever part of the library it comes."""
    estimator, cubes = net().fit(X[:12], y[:12]), X.reshape(-1, 2, 3)
    with pytest.raises(InvalidInputError, match=r"samples that the net can read, got float32 of shape") as raised:
        strategy.select(estimator, cubes[12:], 3, X_labeled=cubes[:12], y_labeled=y[:12])
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_what_a_classifier_cannot_read_is_said():
    """So is scikit-learn's."""
    model = LogisticRegression().fit(X, y)
    with pytest.raises(InvalidInputError, match=r"samples that LogisticRegression can read, got float32 of shape \(60"):
        Margin().select(model, X[:, 0], 3)


def test_sixty_calls_of_the_fuzzer_end_well(capsys):
    """Odd learners, containers, types, values and labels: sound picks, or the library's own words."""
    assert fuzz_calls.main(60, 3) == 0, capsys.readouterr().out


def test_an_old_scikit_learn_is_told(monkeypatch):
    """Before 1.6 there is nothing to freeze steps with, and the message says what to install."""
    monkeypatch.setitem(sys.modules, "sklearn.frozen", None)
    with pytest.raises(InvalidInputError, match=r"scikit-learn 1\.6 or later.*pip install"):
        pool_fitted(make_pipeline(StandardScaler(), LogisticRegression()), X)


@pytest.mark.skipif(importlib.util.find_spec("sklearn.frozen") is None, reason="scikit-learn before 1.6")
class TestPoolFitted:
    """Steps before the net know the whole pool."""

    texts = ["red cat", "blue dog", "red bird", "green fish"]

    def test_steps_stay_as_fitted(self):
        """Fitting, cloning and searching leave the frozen steps; the last one is a clone of its own."""
        from sklearn.feature_extraction.text import CountVectorizer

        given = make_pipeline(CountVectorizer(), LogisticRegression())
        model = pool_fitted(given, self.texts)
        for fitted in (model, clone(model)):
            fitted.fit(self.texts[:2], [0, 1])
            assert fitted[:-1].transform(["red fish"]).shape == (1, 7)
        assert not hasattr(given[0], "vocabulary_")
        assert model[-1] is not given[-1]

    def test_a_net_goes_on_over_growing_texts(self):
        """Every teach finds inputs of one width."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.preprocessing import FunctionTransformer

        dense = FunctionTransformer(lambda rows: rows.toarray().astype("float32"), accept_sparse=True)
        estimator = net(module=nn.Linear(7, 2), classes=["a", "b"])
        learner = ActiveLearner(pool_fitted(make_pipeline(CountVectorizer(), dense, estimator), self.texts), CoreSet())
        learner.teach(self.texts[:2], ["a", "b"])
        learner.teach(self.texts[2:], ["b", "a"])
        assert learner.predict(self.texts).shape == (4,)

    def test_what_is_no_pipeline_is_said(self):
        """A bare net has no steps before it."""
        with pytest.raises(InvalidInputError, match="a Pipeline, got LogisticRegression"):
            pool_fitted(LogisticRegression(), self.texts)
        assert len(pool_fitted(make_pipeline(LogisticRegression()), self.texts).steps) == 1
