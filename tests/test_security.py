"""Nothing the library reads is run, nothing it writes leaves its folder, and no name is more than a name."""

import ast
import csv
import json
import os
import pickle
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression

import modal_ntk
from modal_ntk.bench import load_dataset, report, run
from modal_ntk.bench.experiment.naming import parse_strategy
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, UnknownNameError
from modal_ntk.writing import write_csv

PACKAGE = Path(modal_ntk.__file__).parent
# The contract suite pickles the strategy it is handed, which is what it tests; it reads nothing from elsewhere.
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "testing" not in path.parents)

NASTY = [
    "'; DROP TABLE rounds; --",
    'a"b\\c`d',
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "$\\frac{1}$ and $x",
    "tab\there\nand there",
    "\x1b[2Jcleared",
    "ünïcödé",
    "%s {0} {name}",
]


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def store_with(folder, names):
    store = Store(folder)
    store.agree({"dataset": names[0]})
    for name in names:
        store.add(name, 0, [Round(5, 0.5, 0.0, 0.0, np.arange(5)), Round(8, 0.75, 0.0, 0.0, np.arange(5, 8))])
    return store


class TestSource:
    """Laws over every module of the package, so that they hold for what is added later."""

    FORBIDDEN_MODULES = frozenset({"pickle", "marshal", "shelve", "dill", "cloudpickle", "cPickle"})
    # Of a composed statement: tables and columns that stand in the code, a schema named by letters and digits, and
    # PostgreSQL's sign for a value, put in place of SQLite's in statements that are looked at where they are written.
    OURS = frozenset(
        {
            "table", "name", "columns", "TABLES[name]", "self.schema", "journal_of(folder)",
            "'ON' if reads_only else 'OFF'", "statement.replace('?', '%s')",
        }
    )  # fmt: skip
    FORBIDDEN_CALLS = frozenset({"eval", "exec", "compile", "__import__", "os.system", "os.popen", "joblib.load"})

    @classmethod
    def offences(cls, source):
        found = []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found += [a.name for a in node.names if a.name.partition(".")[0] in cls.FORBIDDEN_MODULES]
            elif isinstance(node, ast.ImportFrom):
                bad = (node.module or "").partition(".")[0] in cls.FORBIDDEN_MODULES
                found += [node.module] if bad else []
                found += [a.name for a in node.names if f"{node.module}.{a.name}" in cls.FORBIDDEN_CALLS]
            elif isinstance(node, ast.Call):
                found += cls._call(node)
        return found

    @classmethod
    def _call(cls, node):
        name = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        required = {
            "np.load": "allow_pickle=False",
            "numpy.load": "allow_pickle=False",
            "torch.load": "weights_only=True",
        }
        if name in cls.FORBIDDEN_CALLS or keywords.get("shell", "False") != "False":
            return [name]
        if name in required and tuple(required[name].split("=")) not in keywords.items():
            return [name]
        # Statements are constants, named or composed of these and of what is ours: what varies is bound.
        if name.rpartition(".")[2] in ("execute", "executemany", "executescript"):
            return [] if cls._is_ours(node.args[0]) else [name]
        return []

    @classmethod
    def _is_ours(cls, statement):
        if isinstance(statement, ast.JoinedStr):
            return all(cls._is_ours(part) for part in statement.values)
        if isinstance(statement, ast.FormattedValue):
            return cls._is_ours(statement.value)
        if isinstance(statement, ast.BinOp):
            return cls._is_ours(statement.left) and cls._is_ours(statement.right)
        named = isinstance(statement, ast.Name) and statement.id.isupper()
        return isinstance(statement, ast.Constant) or named or ast.unparse(statement) in cls.OURS

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
    def test_no_module_unpickles_evaluates_or_pastes_sql(self, path):
        """No pickle, eval, shell, unsafe load or composed SQL statement."""
        assert self.offences(path.read_text()) == []

    @pytest.mark.parametrize(
        "source",
        [
            "import pickle",
            "from pickle import loads",
            "from joblib import load",
            "joblib.load(p)",
            "eval(x)",
            "np.load(p)",
            "np.load(p, allow_pickle=True)",
            "torch.load(p)",
            "torch.load(p, weights_only=False)",
            "c.execute(f'SELECT {x}')",
            "c.execute('SELECT ' + x)",
            "c.execute(statement)",
            "subprocess.run(x, shell=True)",
        ],
    )
    def test_the_law_catches(self, source):
        """Each offence is seen."""
        assert self.offences(source)

    @pytest.mark.parametrize(
        "source",
        [
            "np.load(p, allow_pickle=False)",
            "torch.load(p, weights_only=True)",
            "c.execute('SELECT ?', (x,))",
            "c.execute(f'SELECT * FROM rounds {_OF_CELL}', cell)",
        ],
    )
    def test_the_law_lets_through(self, source):
        """What is safe is no offence."""
        assert not self.offences(source)


class TestArchives:
    @pytest.mark.parametrize("keys", [("x_train",), ("y_test",), ("x_train", "y_train", "x_test", "y_test")])
    def test_object_arrays_are_refused(self, tmp_path, keys):
        """One pickled array among plain ones is an error that says how to write the file, and is never opened."""
        X, y = zoo.blobs(n=12)
        arrays = {"x_train": X, "y_train": y, "x_test": X, "y_test": y}
        arrays.update({key: np.array([Trap(tmp_path / "sprung")] * 12, dtype=object) for key in keys})
        np.savez(tmp_path / "trap.npz", **arrays)
        with pytest.raises(InvalidInputError, match=r"npz of plain arrays, got Object arrays .*savez_compressed"):
            load_dataset(tmp_path / "trap.npz")
        assert not (tmp_path / "sprung").exists()

    def test_a_pickle_with_the_right_ending_is_refused(self, tmp_path):
        """numpy.load would unpickle a bare pickle if it were let."""
        (tmp_path / "trap.npz").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        with pytest.raises(InvalidInputError, match="npz of plain arrays"):
            load_dataset(tmp_path / "trap.npz")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "..", ""])
    def test_names_do_not_leave_the_data_folder(self, tmp_path, monkeypatch, name):
        """A name is looked up among the files of MODAL_NTK_DATA, never joined to its path."""
        X, y = zoo.blobs(n=12)
        (tmp_path / "data").mkdir()
        np.savez(tmp_path / "secret.npz", x_train=X, y_train=y, x_test=X, y_test=y)
        monkeypatch.setenv("MODAL_NTK_DATA", str(tmp_path / "data"))
        with pytest.raises(UnknownNameError):
            load_dataset(name)


class TestStores:
    def test_only_sqlite_is_opened(self, tmp_path):
        """A pickle of the store's name is refused, unread and unchanged."""
        trap = pickle.dumps(Trap(tmp_path / "sprung"))
        (tmp_path / FILE_NAME).write_bytes(trap)
        with pytest.raises(InvalidInputError, match=r"to be a store of results, got file is not a database.*bench"):
            report(tmp_path)
        assert not (tmp_path / "sprung").exists()
        assert (tmp_path / FILE_NAME).read_bytes() == trap

    def test_a_database_of_somebody_else_is_left_as_it_is(self, tmp_path):
        """SQLite with other tables is refused, and no table of ours is put into it."""
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute("CREATE TABLE diary (secret TEXT)")
        connection.close()
        before = (tmp_path / FILE_NAME).read_bytes()
        with pytest.raises(InvalidInputError, match="a database with other tables"):
            Store.open(tmp_path)
        assert (tmp_path / FILE_NAME).read_bytes() == before

    @pytest.mark.parametrize("indices", ["__import__('os').abort()", "[1, 2", '{"a": 1}', "[" * 100_000, 7])
    def test_values_are_json_and_nothing_else(self, tmp_path, indices):
        """Indices that are no list of integers are an error about the file, not a traceback."""
        store = store_with(tmp_path, ["a"])
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute("UPDATE rounds SET indices = ?", (indices,))
        connection.close()
        with pytest.raises(InvalidInputError, match="to be a store of results"):
            store.rows()

    @pytest.mark.parametrize("column", ["score", "n_labels", "seed"])
    def test_columns_hold_numbers(self, tmp_path, column):
        """Text where a number belongs, which SQLite allows, is an error about the file."""
        store = store_with(tmp_path, ["a"])
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute(f"UPDATE rounds SET {column} = 'many' WHERE round = 0")
        connection.close()
        with pytest.raises(InvalidInputError, match="to be a store of results"):
            store.rows()

    def test_names_are_bound(self, tmp_path):
        """Every name comes back as it went in, and the tables are there afterwards."""
        store = store_with(tmp_path, NASTY)
        assert store.protocol() == {"dataset": NASTY[0]}
        assert {row.strategy for row in store.rows()} == set(NASTY)
        assert store.finished() == {(name, 0) for name in NASTY}

    def test_functions_of_a_foreign_schema_are_not_called(self, tmp_path):
        """A store's connection does not trust the schema of the file."""
        with store_with(tmp_path, ["a"])._connected() as connection:
            assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)


class TestVerification:
    """A store is compared as data: what it names is neither imported nor called unless the caller says so."""

    @pytest.fixture
    def study(self, tmp_path, monkeypatch):
        X, y = zoo.blobs(n=60)
        np.savez(tmp_path / "blobs.npz", x_train=X[:40], y_train=y[:40], x_test=X[40:], y_test=y[40:])
        (tmp_path / "study.toml").write_text(
            f"dataset = '{(tmp_path / 'blobs.npz').as_posix()}'\nstrategies = ['random_sampling']\nseeds = 1\n"
            "n_initial = 6\nbatch_size = 4\nn_rounds = 1\n[estimator]\npath = 'sklearn.naive_bayes:GaussianNB'\n"
        )
        monkeypatch.setattr("sys.path", list(sys.path))
        assert main(["bench", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
        return tmp_path

    @staticmethod
    def plant(study, **changes):
        connection = sqlite3.connect(study / "out" / FILE_NAME)
        ((text,),) = connection.execute("SELECT manifest FROM runs").fetchall()
        manifest = json.loads(text)
        manifest["protocol"].update(changes)
        connection.execute("UPDATE runs SET manifest = ?", (json.dumps(manifest),))
        connection.commit()
        connection.close()

    @pytest.mark.parametrize("path", ["subprocess:Popen", "springs_when_imported:make"])
    def test_what_a_store_names_is_not_run(self, study, path, capsys, monkeypatch):
        """The error names what would be called and with what, and both ways of saying that it may be."""
        spring = ["touch", str(study / "sprung")]
        (study / "springs_when_imported.py").write_text(f"open({spring[1]!r}, 'w')")
        monkeypatch.chdir(study)
        self.plant(study, estimator=path, estimator_params={"args": spring})
        for arguments in ([], ["--protocol", str(study / "study.toml")], ["--run-estimator", "sklearn.svm:SVC"]):
            assert main(["verify", str(study / "out"), *arguments]) == 2
        said = capsys.readouterr().err
        assert f"a store that names {path!r}, to be called with {{'args': {spring!r}}}" in said
        assert "--protocol FILE.toml" in said
        assert f"--run-estimator {path!r}" in said
        assert f"estimator {path!r} there and 'sklearn.naive_bayes:GaussianNB' here" in said
        assert not (study / "sprung").exists()

    def test_the_callers_own_file_is_enough(self, study, capsys):
        """What the message says works: the study's file, or naming what may be called."""
        assert main(["verify", str(study / "out")]) == 2
        capsys.readouterr()
        for way in (["--protocol", str(study / "study.toml")], ["--run-estimator", "sklearn.naive_bayes:GaussianNB"]):
            assert main(["verify", str(study / "out"), *way]) == 0
            assert "1 of 1 cells reproduced" in capsys.readouterr().out

    def test_another_file_is_refused_with_the_difference(self, study, capsys):
        """Any key but strategies and seeds that differs is told; a file of other data sets, too."""
        other = study / "other.toml"
        text = (study / "study.toml").read_text()
        other.write_text(text.replace("n_initial = 6", "n_initial = 7").replace("seeds = 1", "seeds = 5"))
        assert main(["verify", str(study / "out"), "--protocol", str(other)]) == 2
        assert "got n_initial 6 there and 7 here. Pass the file" in capsys.readouterr().err
        other.write_text(text.replace("blobs.npz", "blots.npz"))
        assert main(["verify", str(study / "out"), "--protocol", str(other)]) == 2
        assert "a protocol of 'blobs' in" in capsys.readouterr().err


class TestReports:
    @pytest.mark.parametrize("name", NASTY)
    def test_names_are_shown_and_not_obeyed(self, tmp_path, name):
        """Whatever a strategy or data set is called, the table has a line a round and no control character."""
        store_with(tmp_path / "out", [name])
        before = {path.name for path in tmp_path.rglob("*")}
        found = report(tmp_path / "out")
        assert len(found.table.splitlines()) == 4
        assert all(line.isprintable() for line in found.table.splitlines())
        written = {path.name for path in found.files}
        assert {path.name for path in tmp_path.rglob("*")} - before == written
        assert {path.parent for path in found.files} == {tmp_path / "out"}
        assert written >= {"report.html", "curves.png", "summary.csv"}
        assert found.curves == tmp_path / "out" / "curves.png"

    def test_links_are_replaced_and_not_followed(self, tmp_path):
        """Links named like files of the report do not lead them out of the folder."""
        store_with(tmp_path / "out", ["a"])
        (tmp_path / "precious").write_text("mine")
        for name in ("curves.png", "report.html", "summary.csv"):
            os.symlink(tmp_path / "precious", tmp_path / "out" / name)
        report(tmp_path / "out")
        assert (tmp_path / "precious").read_text() == "mine"
        assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_a_run_stays_in_its_folder(self, tmp_path):
        """A data set and strategies with paths for names write nothing outside the output folder."""
        X, y = zoo.blobs(n=40)
        data = load_dataset("digits")
        odd = type(data)("../../escape", X[:30], y[:30], X[30:], y[30:], np.arange(3))
        settings = {"seeds": 1, "n_initial": 6, "batch_size": 4, "n_rounds": 1, "estimator": LogisticRegression()}
        run(odd, ["random_sampling:random_state=0"], out=tmp_path / "a" / "out", **settings)
        report(tmp_path / "a" / "out")
        assert {path.name for path in tmp_path.iterdir()} == {"a"}
        assert {path.name for path in (tmp_path / "a").iterdir()} == {"out"}


class TestTables:
    @pytest.mark.parametrize(
        "text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "\xa0=1", "\x00=1", "\ufeff=1", "\uff1d1", "'"]
    )
    def test_no_cell_is_a_formula(self, tmp_path, text):
        """In headers as in rows, with whatever a spreadsheet passes over in front, narrow or wide."""
        write_csv(tmp_path / "t.csv", [text], [[text], [f"a{text}"]])
        with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [[f"'{text}"], [f"'{text}"], [f"a{text}"]]

    def test_differences_of_stores_are_one_line(self, tmp_path):
        """Neither the names nor the values that a store from elsewhere holds reach a terminal as they are."""
        store = Store(tmp_path)
        connection = sqlite3.connect(tmp_path / FILE_NAME)
        connection.execute("INSERT INTO protocol VALUES (?, ?)", ("\x1b[2Jkey", "\x1b]0;title\x07"))
        connection.commit()
        connection.close()
        with pytest.raises(InvalidInputError, match="holds another comparison") as caught:
            store.agree({"dataset": "digits"})
        assert str(caught.value).isprintable()


class TestCommandLine:
    def test_errors_move_no_cursor(self, capsys):
        """Whatever is quoted in an error, a terminal is sent printable characters and line ends alone."""
        assert main(["report", "no\x1b[2J\u202efolder"]) == 2
        said = capsys.readouterr().err
        assert "folder" in said
        assert all(line.isprintable() for line in said.splitlines())

    def test_values_are_literals_and_never_run(self, tmp_path):
        """An expression, or brackets beyond counting, is a string to the strategy."""
        sprung = tmp_path / "sprung"
        for value in (f"open('{sprung}'.join(' '))", "__import__('os').getcwd()", "(" * 50_000, "[" * 500 + "]" * 500):
            strategy = parse_strategy(f"ntkcpl:variant={value}")
            assert isinstance(strategy.variant, (str, list))
        assert not sprung.exists()

    @pytest.mark.parametrize("name", ["os.system", "../entropy", "entropy;ls", "builtins:eval"])
    def test_a_strategy_is_a_registered_name(self, name, capsys):
        """Nothing but a name from the listing is looked up: no module, no path."""
        assert main(["bench", "--strategy", name]) == 2
        assert "Unknown strategy" in capsys.readouterr().err
