"""What a store keeps and refuses, and disks that are full or read-only: our words, the rows kept, nothing left over."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import apart
import numpy as np
import pytest
from elsewhere import agreed
from small_runs import small_run

from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.errors import InvalidInputError, StorageError

CURVE = [Round(6, 0.5, 0.0, 0.1, np.arange(6)), Round(10, 0.75, 0.2, 0.1, np.arange(6, 10), np.ones(4), {"f1": 1.0})]

# On POSIX alone may a file's size be limited, and a process give its rights away.
posix = pytest.mark.skipif(sys.platform == "win32", reason="limits and rights of POSIX")


def made(folder):
    store = Store(folder)
    store.agree({"dataset": "digits", "batch_sizes": [4]})
    store.begin({"protocol": {}, "how": {}, "versions": {}})
    store.add("margin", 0, CURVE)
    return store


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def read(store):
    return store.rows(), store.protocol(), store.manifests(), store.under_way(), store.stored("margin", 0)


class TestRows:
    def test_rows_come_back_as_they_went_in(self, tmp_path):
        """Scores, metrics, seeds and memory survive to the bit; what an initial round lacks is None."""
        store = Store(tmp_path)
        assert store.add("a", 3, CURVE)
        first, second = store.rows()
        assert (first.scores, second.scores, second.metrics) == (None, (1.0,) * 4, {"f1": 1.0})
        assert second.indices == (6, 7, 8, 9)

    def test_the_first_to_finish_a_cell_wins(self, tmp_path):
        """A cell that is there is not written again."""
        store = Store(tmp_path)
        other = [Round(6, 0.9, 0.0, 0.1, np.arange(6))]
        assert store.add("a", 0, CURVE)
        assert not Store(tmp_path).add("a", 0, other)
        assert [row.score for row in store.rows()] == [0.5, 0.75]

    def test_initial_labels_are_shared_or_refused(self, tmp_path):
        """A cell that starts from other labels than its seed's cells is an error and not stored; unpaired it may."""
        store = Store(tmp_path)
        store.add("a", 0, CURVE, paired=True)
        odd = [Round(6, 0.5, 0.0, 0.1, np.arange(1, 7))]
        with pytest.raises(InvalidInputError, match="the initial labels of seed 0 to be those of every strategy"):
            store.add("b", 0, odd, paired=True)
        assert store.finished() == {("a", 0)}
        assert store.add("b", 1, odd, paired=True)
        assert store.add("b", 0, odd)

    def test_stores_of_early_versions_go_on(self, tmp_path):
        """A store without details and manifests is read, resumed and reported; its rows stay as they are."""
        done = small_run(tmp_path, seeds=1)
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute("DROP TABLE details")
            connection.execute("DROP TABLE runs")
        connection.close()
        old = Store.open(tmp_path).rows()
        assert [row.fit_seed for row in old] == [None] * 6
        more = small_run(tmp_path, seeds=2).rows()
        assert [row for row in more if row.seed == 0] == old
        assert {row.fit_seed is None for row in more if row.seed == 1} == {False}
        assert len(done.manifests()) == 1

    def test_many_processes_make_one_store(self, tmp_path):
        """Stores made and agreed on at the same moment by several processes are one."""
        made = [apart.process(agreed, tmp_path / "out") for _ in range(3)]
        for process in made:
            process.join(timeout=100)
        assert [process.exitcode for process in made] == [0] * 3
        assert Store(tmp_path / "out").protocol() == {"a": 1, "b": 2}


class TestReading:
    def test_changes_no_byte_and_leaves_no_file(self, tmp_path):
        """A store that is opened to be read answers as its writer does, and refuses to write in words."""
        want = read(made(tmp_path))
        before = contents(tmp_path)
        store = Store.open(tmp_path)
        assert str(read(store)) == str(want)
        with pytest.raises(StorageError, match="could not be written"):
            store.add("margin", 1, CURVE)
        assert contents(tmp_path) == before

    def test_an_early_version_stays_as_it_is(self, tmp_path):
        """Tables that there were not yet are empty for the reader, and are not made."""
        made(tmp_path)
        connection = sqlite3.connect(tmp_path / FILE_NAME)
        for table in ("details", "unfinished", "runs"):
            connection.execute(f"DROP TABLE {table}")
        connection.commit()
        connection.close()
        before = contents(tmp_path)
        store = Store.open(tmp_path)
        assert [row.fit_seed for row in store.rows()] == [None, None]
        assert (store.manifests(), store.under_way(), store.noted("margin", 0)) == ([], {}, [])
        assert contents(tmp_path) == before

    def test_rows_of_a_run_under_way_are_seen(self, tmp_path):
        """What another process has put into the log is read, and its log stays its own."""
        store = made(tmp_path)
        with store._connected() as writer:
            writer.execute("UPDATE rounds SET score = 0.25")
            writer.commit()
            assert {row.score for row in Store.open(tmp_path).rows()} == {0.25}


SCRIPT = """
import os, resource, signal, sys
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import ModalNTKError
import numpy as np
from modal_ntk.bench.loop.rounds import Round
what, folder = sys.argv[1:]
CURVE = [Round(6, 0.5, 0.0, 0.1, np.arange(6)), Round(4000, 0.75, 0.2, 0.1, np.arange(6, 4000), np.ones(3994))]
if what == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
elif os.getuid() == 0:
    os.setuid(65534)
try:
    if what == "full":
        for seed in range(1, 100):
            Store(folder).add("margin", seed, CURVE)
    elif what == "read":
        print(len(Store.open(folder).rows()), "rows")
    else:
        Store(folder)
except ModalNTKError as error:
    print(type(error).__name__, error)
"""


def done(what, folder):
    found = subprocess.run([sys.executable, "-c", SCRIPT, what, folder], capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr
    return found.stdout


@posix
def test_a_full_disk_keeps_what_was_there(tmp_path):
    """Where no more can be written the error says what to do; whole cells are kept, half ones are not; all goes on."""
    made(tmp_path)
    said = done("full", tmp_path)
    assert said.startswith("StorageError")
    assert "What it held is kept. Free space" in said
    store = Store(tmp_path)
    rows = store.rows()
    assert {len([row for row in rows if row.seed == seed]) for _, seed in store.finished()} == {2}
    assert [row.indices for row in rows[:2]] == [tuple(range(6)), tuple(range(6, 10))]
    kept = len(store.finished())
    assert store.add("margin", 100, CURVE)
    assert len(store.finished()) == kept + 1
    assert set(contents(tmp_path)) <= {FILE_NAME}


def test_a_disk_that_fills_at_any_step(tmp_path, monkeypatch):
    """SQLite's "database or disk is full", at whichever statement, is ours, and nothing of the cell is stored."""
    made(tmp_path)
    connect = sqlite3.connect

    class Full(sqlite3.Connection):
        left = 0

        def _spend(self):
            Full.left -= 1
            if Full.left < 0:
                raise sqlite3.OperationalError("database or disk is full")

        def execute(self, *args):
            self._spend()
            return super().execute(*args)

        def executemany(self, *args):
            self._spend()
            return super().executemany(*args)

        def commit(self):
            self._spend()
            return super().commit()

    store = Store(tmp_path)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Full, **kwargs))
    told = []
    for Full.left in range(3, 12):
        try:
            store.add("margin", 1, CURVE)
        except StorageError as error:
            told.append(str(error))
    monkeypatch.undo()
    assert all("database or disk is full. What it held is kept. Free space" in text for text in told)
    assert len(told) >= 5
    assert {len(store.stored("margin", seed)) for seed in (0, 1)} == {2}


@posix
@pytest.mark.parametrize("rights", ["folder", "folder and file"])
def test_a_read_only_folder_is_read(tmp_path_factory, rights):
    """Whoever may not write there reads all rows, leaves nothing, and is told where to go on writing."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        made(folder)
        if rights == "folder and file":
            (folder / FILE_NAME).chmod(0o444)
        folder.chmod(0o555)
        before = contents(folder)
        assert done("read", folder) == "2 rows\n"
        said = done("write", folder)
        assert said.startswith("InvalidInputError Expected an output folder that can be written")
        assert "Choose another folder." in said
        assert contents(folder) == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_file_in_place_of_a_folder(tmp_path):
    """A path that cannot become a folder is said."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match="an output folder that can be written"):
        Store(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path) == ["file"]
