"""The protocol: one object, one file, one name for each strategy; splits; what a store refuses."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from modal_ntk.bench import Dataset, Protocol, load_dataset, run_protocol
from modal_ntk.bench.experiment.naming import parse_strategy, strategy_text
from modal_ntk.bench.experiment.splits import carve
from modal_ntk.bench.running.plan import Plan
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, ModalNTKError, UnknownNameError

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))

FILE = """
dataset = "{data}"
strategies = ["random_sampling", {{ name = "ntkcpl", max_clusters = 8, variant = "self" }}]
seeds = [0, 3]
n_initial = 6
batch_size = [4, 2]
validation = 9
metrics = ["balanced_accuracy"]

[estimator]
path = "sklearn.linear_model:LogisticRegression"
params = {{ C = 0.5 }}
"""


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "blobs.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    path = tmp_path / "study.toml"
    path.write_text(FILE.format(data=(tmp_path / "blobs.npz").as_posix()))
    return path


class TestProtocol:
    def test_a_file_is_the_protocol(self, file):
        """Keys are the parameters; what the file leaves out is at its default; dict and back is the same protocol."""
        protocol = Protocol.from_toml(file)
        assert protocol.strategies == ("random_sampling", "ntkcpl:max_clusters=8,variant=self")
        assert protocol.seeds == (0, 3)
        assert protocol.batch_size == (4, 2)
        assert protocol.estimator_params == {"C": 0.5}
        assert protocol.initial == Protocol(strategies=["margin"]).initial
        again = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
        assert again.digest == protocol.digest

    @given(
        field=st.sampled_from(["n_initial", "n_rounds", "batch_size", "split_seed", "validation", "pool_size"]),
        value=st.integers(1, 1000),
    )
    def test_every_change_changes_the_hash(self, field, value):
        """Two protocols have one hash exactly if they are equal."""
        one = Protocol(strategies=["margin"])
        other = dataclasses.replace(one, **{field: value})
        assert (one.digest == other.digest) == (one == other)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("strategies = ['margin']\nrouns = 3", "Unknown key of a protocol 'rouns'. Did you mean"),
            ("strategies = ['margin'", "to be a TOML file"),
            ("strategies = 'margin'", "a list with at least one strategy, got 'margin'"),
            ("strategies = [3]", "a strategy by name, got 3"),
            ("strategies = ['margin']\nmetrics = ['acuracy']", "Unknown metric 'acuracy'. Did you mean 'accuracy'"),
            ("strategies = ['margin']\ntest_size = 1.5", "test_size to be a share"),
            ("strategies = ['margin']\ndataset = ['digits', 'digits']", "a list of different ones"),
            ("strategies = ['margin']\ndataset = []", "a list of different ones"),
            ("strategies = ['margin']\ndataset = 3", "a name or a list of different ones, got 3"),
            ("strategies = ['margin']\ndataset = ['digits', 'mnist']", "to name one data set, got 2: digits, mnist"),
            ("strategies = ['margin']\n[estimator]\nmodule = 'x'", r"Unknown key of \[estimator\] 'module'"),
        ],
    )
    def test_files_that_will_not_do_say_why(self, tmp_path, text, message):
        """Unknown keys and values are errors that name them."""
        path = tmp_path / "bad.toml"
        path.write_text(text)
        with pytest.raises(ModalNTKError, match=message):
            Protocol.from_toml(path)

    @pytest.mark.parametrize(
        ("estimator", "message"),
        [
            ("LogisticRegression", "estimator to be module:name"),
            ("no_such_module:net", "estimator 'no_such_module:net' to be importable"),
            ("sklearn.linear_model:NoSuch", "to be importable"),
        ],
    )
    def test_estimators_that_cannot_be_had(self, tmp_path, estimator, message):
        """A path that leads nowhere is an error before any folder is made."""
        protocol = Protocol(strategies=["margin"], estimator=estimator)
        with pytest.raises(InvalidInputError, match=message):
            run_protocol(protocol, out=tmp_path / "out", dataset=DATA)
        assert not (tmp_path / "out").exists()

    def test_a_factory_gets_data_and_parameters(self, tmp_path, monkeypatch):
        """A function is called with the data set and the parameters; wrong ones are an error."""
        (tmp_path / "my_factory.py").write_text(
            "from sklearn.linear_model import LogisticRegression\n"
            "def make(data, C=1.0):\n    return LogisticRegression(C=C * len(data.classes))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        protocol = Protocol(strategies=["margin"], estimator="my_factory:make", estimator_params={"C": 2})
        assert protocol.build_estimator(DATA).C == 6
        bad = dataclasses.replace(protocol, estimator_params={"D": 2})
        with pytest.raises(InvalidInputError, match=r"my_factory:make to take \{'D': 2\}"):
            bad.build_estimator(DATA)


class TestNames:
    values = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=8),
        st.lists(st.sampled_from(["margin", "a,b", "[", "'"]), max_size=3),
    )

    @given(value=values)
    def test_tables_and_texts_name_the_same_strategy(self, value):
        """A table's text gives the very value of the table back, whatever commas, quotes and brackets are in it."""
        text = strategy_text({"name": "ntkcpl", "variant": value, "max_clusters": 7})
        strategy = parse_strategy(text)
        assert (strategy.variant, type(strategy.variant), strategy.max_clusters) == (value, type(value), 7)

    def test_plain_values_are_written_as_on_a_command_line(self):
        """A table and the usual text are one name, so a store knows them as one strategy."""
        assert strategy_text({"name": "ntkcpl", "variant": "self", "max_clusters": 5}) == (
            "ntkcpl:variant=self,max_clusters=5"
        )


class TestSplits:
    def test_nothing_asked_nothing_done(self):
        """Without a wish the very object comes back."""
        assert carve(DATA) is DATA

    @given(n_validation=st.integers(3, 20), pool_size=st.integers(3, 25), test_size=st.sampled_from([None, 0.2, 0.5]))
    def test_parts_are_parts(self, n_validation, pool_size, test_size):
        """Pool, validation and test rows are distinct rows of the data, with their labels, as many as asked for."""
        rows = np.arange(90, dtype=np.float32)[:, None]
        data = Dataset("rows", rows[:60], y[:60], rows[60:], y[60:], np.arange(3))
        cut = carve(data, test_size=test_size, n_validation=n_validation, pool_size=pool_size)
        parts = [(cut.x_train, cut.y_train), (cut.x_validation, cut.y_validation), (cut.x_test, cut.y_test)]
        numbers = np.concatenate([part.ravel() for part, _ in parts]).astype(int)
        assert len(set(numbers.tolist())) == len(numbers)
        np.testing.assert_array_equal(y[numbers], np.concatenate([labels for _, labels in parts]))
        assert (len(cut.y_train), len(cut.y_validation)) == (pool_size, n_validation)
        assert len(cut.y_test) == (30 if test_size is None else round(90 * test_size))

    def test_imbalance_falls_geometrically(self):
        """Of 40, 40 and 20 samples, ratio 4 leaves 20, 10 and 5; shares leave their own part of each class."""
        labels = np.repeat([0, 1, 2], [40, 40, 20])
        data = Dataset("steps", X[:1].repeat(100, 0), labels, X, y, np.arange(3))
        assert np.bincount(carve(data, imbalance=4).y_train).tolist() == [20, 10, 5]
        assert np.bincount(carve(data, imbalance=(1.0, 0.5, 0.1)).y_train).tolist() == [40, 20, 2]
        for wrong in (0.5, (1.0, 1.0), (2.0, 1.0, 1.0)):
            with pytest.raises(InvalidInputError, match="imbalance"):
                carve(data, imbalance=wrong)

    def test_the_seed_decides(self):
        """One split seed, one split, recognised by its fingerprint; another seed, another."""
        prints = [carve(DATA, pool_size=20, seed=seed).fingerprint for seed in (0, 0, 1)]
        assert prints[0] == prints[1] != prints[2]

    def test_more_than_there_is(self):
        """A pool or validation set that cannot be filled is an error."""
        with pytest.raises(InvalidInputError, match="pool_size of at most 60"):
            carve(DATA, pool_size=61)
        with pytest.raises(InvalidInputError, match="to set 60 of 60 samples apart"):
            carve(DATA, n_validation=60)


class TestRuns:
    def test_one_file_one_command(self, file, tmp_path, capsys):
        """The file's cells are run; rows keep scores, metrics, seeds and memory; the manifest says under what."""
        out = tmp_path / "out"
        assert main(["bench", str(file), "--out", str(out), "--quiet"]) == 0
        assert capsys.readouterr().out.splitlines()[0].split()[0] == "labels"
        rows = Store(out).rows()
        assert {(r.strategy, r.seed) for r in rows} == set(Protocol.from_toml(file).cells)
        assert [r.n_labels for r in rows[:3]] == [6, 10, 12]
        queried = next(r for r in rows if r.round == 1 and r.strategy.startswith("ntkcpl"))
        assert len(queried.scores) == len(queried.indices) == 4
        assert set(queried.metrics) == {"balanced_accuracy", "validation_score", "validation_balanced_accuracy"}
        assert queried.peak_memory > 2**20
        (manifest,) = Store(out).manifests()
        assert manifest["protocol_hash"] == Protocol.from_toml(file).digest
        assert manifest["versions"]["torch"]
        assert manifest["how"]["jobs"] == 1

    def test_file_and_options_do_not_mix(self, file, tmp_path, capsys):
        """An option beside a file is an error, not a silent choice between them."""
        assert main(["bench", str(file), "--rounds", "2", "--out", str(tmp_path / "out")]) == 2
        assert "not from both, got" in capsys.readouterr().err

    def test_factories_lie_beside_the_file(self, file, tmp_path, monkeypatch):
        """A module beside the file can be named, as beside a script."""
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "beside_the_file.py").write_text(
            "from sklearn.linear_model import LogisticRegression\ndef make(data):\n    return LogisticRegression()\n"
        )
        text = file.read_text().replace("sklearn.linear_model:LogisticRegression", "beside_the_file:make")
        file.write_text(text.replace("params = { C = 0.5 }", ""))
        assert main(["bench", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 0

    @pytest.mark.parametrize("change", [{"metrics": ["f1_macro"]}, {"validation": 5}, {"pool_size": 50}])
    def test_a_changed_protocol_is_refused_with_the_difference(self, tmp_path, change):
        """Whatever changes the rows is named, with what is there and what is wanted."""
        protocol = Protocol(strategies=["margin"], seeds=1, n_initial=6, batch_size=4, n_rounds=1)
        settings = {"out": tmp_path / "out", "dataset": DATA, "estimator": LogisticRegression()}
        run_protocol(protocol, **settings)
        (name, value), before = next(iter(change.items())), Store(tmp_path / "out").rows()
        wanted = json.dumps(value).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(InvalidInputError, match=f"{name} is absent there and {wanted} here"):
            run_protocol(dataclasses.replace(protocol, **change), **settings)
        assert Store(tmp_path / "out").rows() == before

    def test_the_metrics_are_scikit_learns(self, tmp_path):
        """A row's metric is the scorer's value for an estimator fitted to the labels so far, from the stored seed."""
        protocol = Protocol(
            strategies=["margin"], seeds=1, n_initial=6, batch_size=4, n_rounds=1, metrics=["f1_macro"], validation=10
        )
        rows = run_protocol(protocol, out=tmp_path, dataset=DATA, estimator=LogisticRegression()).rows()
        cut = protocol.carved(DATA)
        labelled = [i for r in rows for i in r.indices]
        model = LogisticRegression().fit(cut.x_train[labelled], cut.y_train[labelled])
        from sklearn.metrics import f1_score

        expected = f1_score(cut.y_validation, model.predict(cut.x_validation), average="macro")
        assert rows[-1].metrics["validation_f1_macro"] == expected
        assert rows[-1].metrics["validation_score"] == model.score(cut.x_validation, cut.y_validation)
        assert rows[-1].score == model.score(cut.x_test, cut.y_test)


def test_the_example_is_a_protocol():
    """The file that the README's reader may start from names strategies, parameters and data that are there."""
    protocol = Protocol.from_toml(Path(__file__).parents[3] / "examples" / "reproduce" / "digits.toml")
    plan = Plan.of(protocol)
    assert len(protocol.cells) == 70
    assert plan.data.x_validation.shape == (100, 64)
    assert plan.batch_sizes == [20] * 5


def test_a_file_for_several_data_sets(file, tmp_path, capsys):
    """One command runs a protocol on each data set of a list, in folders of their names, as it does on each alone."""
    other = tmp_path / "fewer.npz"
    np.savez(other, x_train=X[:40], y_train=y[:40], x_test=X[60:], y_test=y[60:])
    alone = file.read_text()
    line = next(line for line in alone.splitlines() if line.startswith("dataset"))
    data = json.loads(line.split("=")[1])
    file.write_text(alone.replace(line, f'dataset = ["{data}", "{other.as_posix()}"]'))
    assert list(Protocol.all_from_toml(file)) == ["blobs", "fewer"]
    assert main(["bench", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    capsys.readouterr()
    single = file.with_name("single.toml")
    single.write_text(alone)
    assert main(["bench", str(single), "--out", str(tmp_path / "single"), "--quiet"]) == 0
    rows = [[(r.strategy, r.seed, r.indices, r.score) for r in Store.open(out).rows()] for out in
            (tmp_path / "out" / "blobs", tmp_path / "single")]  # fmt: skip
    assert rows[0] == rows[1]
    assert (tmp_path / "out" / "fewer" / "report.html").exists()


def test_parts_of_a_file_differ_in_what_their_tables_say(tmp_path):
    """Each table is the protocol that the common keys and its own make; one data set may be there twice."""
    file = tmp_path / "study.toml"
    common = 'strategies = ["margin"]\nseeds = 2\npool_size = 100\n'
    file.write_text(common + '[parts.even]\ndataset = "digits"\n[parts.odd]\nimbalance = 3\npool_size = 50\n')
    assert Protocol.all_from_toml(file) == {
        "even": Protocol(strategies=["margin"], seeds=2, pool_size=100, dataset="digits"),
        "odd": Protocol(strategies=["margin"], seeds=2, pool_size=50, imbalance=3),
    }


@pytest.mark.parametrize(
    "parts", ["parts = 3", "[parts]", "parts.a = 1", '[parts."../a"]\nseeds = 1', "[parts.a]\nsedes = 1"]
)
def test_parts_that_are_none_are_told_with_the_file(tmp_path, parts):
    """What is no table, has no name for a folder, or holds an unknown key is refused, and the file named."""
    file = tmp_path / "study.toml"
    file.write_text(f'strategies = ["margin"]\n{parts}\n')
    with pytest.raises(ModalNTKError, match=r"study\.toml"):
        Protocol.all_from_toml(file)


def test_a_store_of_a_part_is_verified_by_its_file(tmp_path, capsys):
    """A part's rows come out again by the file it came from, found by the name of its folder."""
    file = tmp_path / "study.toml"
    file.write_text(
        'strategies = ["margin", "coreset"]\nseeds = 1\nn_initial = 12\nbatch_size = [5]\ninitial = "query_or_random"\n'
        'estimator = { path = "sklearn.naive_bayes:GaussianNB" }\n[parts.a]\npool_size = 60\n[parts.b]\nimbalance = 2\n'
    )
    assert main(["bench", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "out" / "b"), "--protocol", str(file), "--cells", "2"]) == 0
    assert "2 of 2 cells reproduced" in capsys.readouterr().out
    assert "on 2 data sets" in (tmp_path / "out" / "across.html").read_text()


def test_a_missing_data_set_is_told_first(file, tmp_path, capsys):
    """A list whose last entry is nowhere stops the command before the first one runs."""
    text = file.read_text()
    line = next(line for line in text.splitlines() if line.startswith("dataset"))
    file.write_text(text.replace(line, 'dataset = ["digits", "nowhere"]'))
    assert main(["bench", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "Unknown data set 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_is_too_small_is_told_first(tmp_path, capsys):
    """So does a pool that the last one cannot fill."""
    few = tmp_path / "few.npz"
    np.savez(few, x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    file = tmp_path / "study.toml"
    file.write_text(f'dataset = ["digits", "{few.as_posix()}"]\nstrategies = ["margin"]\npool_size = 1000\n')
    assert main(["bench", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "pool_size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_strategy_in_a_file(tmp_path):
    """A strategy nobody has is named before any folder is made."""
    with pytest.raises(UnknownNameError, match="Unknown strategy 'margn'"):
        run_protocol(Protocol(strategies=["margn"]), out=tmp_path / "out", dataset=load_dataset("digits"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist_simclr"])
def test_the_committed_study_is_that_of_its_file(dataset, tmp_path):
    """The stores that lie in the repository hold every round of every cell of the protocol that they came from."""
    study = Path(__file__).parents[3] / "examples" / "reproduce"
    protocol = Protocol.all_from_toml(study / "compare.toml")[dataset]
    copied = shutil.copytree(study / "results" / "compare" / dataset, tmp_path / "store")  # reading leaves files, too
    store = Store.open(copied)
    assert store.manifests()[0]["protocol_hash"] == protocol.digest
    rows = store.rows()
    assert {(row.strategy, row.seed) for row in rows} == set(protocol.cells)
    assert len(rows) == len(protocol.cells) * (protocol.n_rounds + 1)
    assert {row.n_labels for row in rows} == set(range(20, 121, 20))


def test_a_store_of_an_earlier_version_is_gone_on_from(tmp_path):
    """The committed one was written when the default net was kept in another module: it is the same comparison."""
    study = Path(__file__).parents[3] / "examples" / "reproduce"
    protocol = Protocol.all_from_toml(study / "compare.toml")["digits"]
    store = Store(shutil.copytree(study / "results" / "compare" / "digits", tmp_path / "store"))
    plan = Plan.of(protocol)
    store.agree(protocol.shared(plan.data, plan.simulation.estimator, plan.batch_sizes))
    with pytest.raises(InvalidInputError, match="another comparison"):
        store.agree(protocol.shared(plan.data, LogisticRegression(), plan.batch_sizes))
