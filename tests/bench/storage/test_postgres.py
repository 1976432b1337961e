"""A store in a real PostgreSQL server, started here where its binaries are: the rows, claims and errors of SQLite's."""

import glob
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression

from modal_ntk.bench import Dataset, Protocol, Workers, run_protocol, verify
from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.storage import claims as claims_module
from modal_ntk.bench.storage.claims import Claims
from modal_ntk.bench.storage.postgres import PostgresStore
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, MissingExtraError, StorageError

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))
CURVE = [
    Round(6, 0.1 + 0.2, 0.0, 0.1, np.arange(6)),
    Round(10, 1 / 3, 0.2, 0.1, np.arange(6, 10), np.array([1e-300, -0.0, 2**0.5, 1.0]), {"f1": 1.0}, 7),
]


def binaries():
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += [Path(place) for place in sorted(glob.glob("/usr/lib/postgresql/*/bin"))[::-1]]
    return next((place for place in places if (place / "postgres").exists()), None)


@pytest.fixture(scope="module")
def server():
    """The URL of a server of its own, without a network, gone afterwards."""
    pytest.importorskip("psycopg")
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL server here")
    rights = {}
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user postgres here to run the server as")
        rights = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if rights:
        os.chown(folder, rights["user"], rights["group"])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **rights}
    initdb = [place / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tester", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet)
    options = ["-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen([place / "postgres", "-D", folder / "data", *options], **quiet)
    url = f"postgresql:///postgres?host={folder}&user=tester"
    try:
        _wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder)


def _wait_for(url):
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture
def store(server, tmp_path):
    """A store of its own."""
    return PostgresStore(server, tmp_path / "out")


def held(store):
    with store.writing() as connection:
        return connection.execute("SELECT strategy, seed FROM claims").fetchall()


def test_it_is_the_store_that_sqlite_is(store, tmp_path):
    """Everything written comes back as from SQLite's store: to the bit, in its order, resumed and lengthened alike."""
    both = [store, Store(tmp_path / "lite")]
    for each in both:
        each.agree({"dataset": "blobs", "batch_sizes": [4]})
        each.begin({"protocol": {}, "versions": {}})
        for label in ("b", "Z", "a", "ä", "_"):
            assert each.add(label, 2**40, CURVE, paired=True)
        assert not each.add("a", 2**40, CURVE)
        each.note("a", 1, 0, CURVE[0])
        each.note("a", 1, 0, CURVE[0])
        each.note("a", 2**40, 0, CURVE[0])
        with pytest.raises(InvalidInputError, match="holds another comparison"):
            each.agree({"dataset": "other", "batch_sizes": [4]})
        with pytest.raises(InvalidInputError, match="to be those of every strategy"):
            each.add("c", 2**40, [Round(6, 0.5, 0.0, 0.1, np.arange(1, 7))], paired=True)
        each.agree({"dataset": "blobs", "batch_sizes": [4, 4]})
    assert store.finished() == both[1].finished()
    for read in ("rows", "protocol", "manifests", "under_way"):
        assert str(getattr(store, read)()) == str(getattr(both[1], read)()), read
    assert str(store.noted("a", 1)) == str(both[1].noted("a", 1))
    assert str(store.stored("a", 2**40)) == str(both[1].stored("a", 2**40))


def test_a_cell_is_claimed_once(store, monkeypatch):
    """Claims hold, end with their cell or holder, and expire, as in SQLite."""
    now = [0.0]
    monkeypatch.setattr(claims_module, "monotonic", lambda: now[0])
    first, second = Claims(store, 2), Claims(store, 2)
    with first, second:
        assert (first.take(("a", 0)), second.take(("a", 0))) == ("ours", "taken")
        store.add("a", 0, CURVE)
        assert held(store) == []
        assert second.take(("a", 0)) == "done"
        with store.writing() as connection:
            connection.execute("INSERT INTO claims VALUES ('a', 1, 'there 1 2 x', 0)")
        assert second.take(("a", 1)) == "taken"
        now[0] = claims_module.LEASE + 1
        assert second.take(("a", 1)) == "ours"
    assert held(store) == []


def test_comparisons_do_not_meet(server, tmp_path):
    """Folders of other names have rows of their own, also where their names differ in what a schema cannot hold."""
    names = ["a/b", "a_b", "x" * 80 + "1/results", "x" * 80 + "2/results"]
    stores = [PostgresStore(server, name) for name in names]
    for i, each in enumerate(stores):
        each.agree({"number": i})
    assert [PostgresStore(server, name).protocol() for name in names] == [{"number": i} for i in range(4)]


STUDY = """
dataset = "blobs.npz"
strategies = ["margin", "random_sampling"]
seeds = 6
n_initial = 6
batch_size = 4
n_rounds = 2
[estimator]
path = "counting:Counting"
"""

COUNTING = """
import os, time
from pathlib import Path
from sklearn.linear_model import LogisticRegression

class Counting(LogisticRegression):
    def fit(self, X, y):
        with open(Path(__file__).with_name("fits"), "a") as file:
            file.write(f"{os.getpid()} {len(y)}\\n")
        time.sleep(0.05)
        return super().fit(X, y)
"""


@pytest.mark.slow
def test_two_machines_share_the_cells(server, tmp_path):
    """Two processes in folders of their own, one database: each cell once, no claim left, both folders complete."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "blobs.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
        (tmp_path / name / "counting.py").write_text(COUNTING)
        (tmp_path / name / "study.toml").write_text(STUDY)
    start = "import sys; from modal_ntk.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "bench", "study.toml", "--quiet", "--out", "out", "--store", server]
    quiet = {"stdout": subprocess.DEVNULL}
    both = [subprocess.Popen(command, cwd=tmp_path / name, **quiet) for name in ("one", "two")]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    fits = [(tmp_path / name / "fits").read_text().splitlines() for name in ("one", "two")]
    last = [sum(line.endswith(" 14") for line in lines) for lines in fits]
    assert sum(last) == 12
    assert min(last) > 0
    rows = [[row.result for row in Store.open(tmp_path / name / "out").rows()] for name in ("one", "two")]
    assert rows[0] == rows[1]
    assert Counter(row[:2] for row in rows[0]).most_common()[-1][1] == 3
    assert held(PostgresStore(server, "out")) == []


def test_workers_note_their_rounds_there(server, tmp_path):
    """Two of joblib's processes write rounds and go on from them; the rows are those of a folder alone."""
    protocol = Protocol(strategies=["margin"], seeds=2, n_initial=6, batch_size=4, n_rounds=2)
    given = {"dataset": DATA, "estimator": LogisticRegression()}
    calm = run_protocol(protocol, out=tmp_path / "calm", **given)
    stored = PostgresStore(server, tmp_path / "out")
    first = calm.stored("margin", 0)[0]
    stored.note("margin", 0, 0, Round(**{**vars(first), "fit_seconds": 123.0}))
    met = run_protocol(protocol, out=tmp_path / "out", store=server, workers=Workers(jobs=2), **given)
    assert [row.result for row in met.rows()] == [row.result for row in calm.rows()]
    assert met.rows()[0].fit_seconds == 123.0
    assert stored.under_way() == {}
    assert verify(tmp_path / "out", **given).differences == []
    assert len(run_protocol(protocol, out=tmp_path / "out", store=server, **given).manifests()) == 2


class TestWhatCannotBeHad:
    @pytest.mark.parametrize("url", ["mysql://host/db", "results", "postgresql://host/db?nonsense=1"])
    def test_other_urls(self, tmp_path, url, capsys):
        """They are errors before anything is run, and show no more than the scheme."""
        pytest.importorskip("psycopg")
        options = ["--dataset", "digits", "--strategy", "margin", "--out", str(tmp_path / "out"), "--store", url]
        assert main(["bench", *options]) == 2
        error = capsys.readouterr().err
        assert "Expected the URL of a PostgreSQL database" in error
        assert "nonsense" not in error

    def test_a_server_that_is_not_there(self, tmp_path):
        """Named without the password, with what to do."""
        pytest.importorskip("psycopg")
        with pytest.raises(StorageError, match=r"database d at /none could not be reached.*Check the URL") as told:
            PostgresStore("postgresql://u:secret@/d?host=/none", tmp_path)
        assert "secret" not in str(told.value)

    def test_a_missing_driver(self, tmp_path, monkeypatch):
        """The extra is named."""
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(MissingExtraError, match=r"PostgreSQL needs psycopg.*postgres"):
            PostgresStore("postgresql:///d", tmp_path)

    def test_a_change_that_fails_leaves_nothing(self, store):
        """What the server refuses is an error in our words, and nothing of the change is there."""
        store.agree({"dataset": "blobs"})

        def twice():
            with store.writing() as connection:
                for value in ("1", "2"):
                    connection.execute("INSERT INTO protocol VALUES (?, ?)", ("a", value))

        with pytest.raises(StorageError, match=r"could not be written.*What it held is kept"):
            twice()
        assert store.protocol() == {"dataset": "blobs"}
