"""Where cells run changes nothing: processes, Dask, several runs on one store, kills at any moment, verification."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from elsewhere import OnDevice
from sklearn.linear_model import LogisticRegression
from slow_study import write_study

from modal_ntk.bench import Dataset, Protocol, Workers, run_protocol, verify
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.running import clusters
from modal_ntk.bench.running.workers import limited_threads
from modal_ntk.bench.storage.manifest import manifest
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, MissingExtraError

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))
KILLS = int(os.environ.get("MODAL_NTK_KILLS", 1))
SEEDS = 4 + 4 * KILLS  # enough that the last kill too comes before the end

FACTORY = """
import os
import time
from pathlib import Path
from sklearn.linear_model import LogisticRegression

class Slow(LogisticRegression):
    def fit(self, X, y):
        with open(Path(__file__).with_name("fits"), "a") as file:
            file.write(f"{os.getpid()} {len(y)}\\n")
        time.sleep(0.03)
        return super().fit(X, y)
"""


def written(folder):
    """A protocol file beside its data and estimator."""
    write_study(folder, FACTORY, SEEDS, X, y)
    return folder


@pytest.fixture
def study(tmp_path):
    return written(tmp_path)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What the same study gives when nothing disturbs it, in this process."""
    folder = written(tmp_path_factory.mktemp("calm"))
    finished(folder)
    return results(folder / "out")


def command(*arguments):
    start = "import sys; from modal_ntk.cli import main; sys.exit(main())"
    return [sys.executable, "-c", start, "bench", "study.toml", "--quiet", *map(str, arguments)]


def environment(study):
    # Workers of a cluster started apart import the factory too.
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(study), os.environ.get("PYTHONPATH", "")])}


def started(study, *arguments):
    return subprocess.Popen(
        command(*arguments),
        cwd=study,
        env=environment(study),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finished(study):
    with pytest.MonkeyPatch.context() as here:
        here.setattr(sys, "path", [str(study), *sys.path])
        here.delitem(sys.modules, "slow_estimator", raising=False)
        here.chdir(study)
        assert main(["bench", "study.toml", "--quiet", "--out", "out"]) == 0


def results(out):
    return [row.result for row in Store(out).rows()]


def protocol(**changes):
    return Protocol(**{"strategies": ["margin", "random_sampling"], "seeds": 2, "n_initial": 6, "batch_size": 4,
                       "n_rounds": 2, **changes})  # fmt: skip


def small_run(out, workers=None, estimator=None, **changes):
    estimator = LogisticRegression() if estimator is None else estimator
    return run_protocol(protocol(**changes), out=out, dataset=DATA, estimator=estimator, workers=workers)


@pytest.mark.timeout(60 + 60 * KILLS)
@pytest.mark.parametrize("backend", ["loky", pytest.param("dask", marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_loses_and_repeats_nothing(study, calm, backend):
    """After kill -9 at random moments the store is whole, what was finished stays, and the end is a calm run's.

    MODAL_NTK_KILLS says how many kills; by default one.
    """
    if backend == "dask":
        pytest.importorskip("distributed")
    moments, out = random.Random(0), study / "out"
    options = ("--out", out, "--backend", backend, "--jobs", 2)
    kept = {}
    for kills in range(KILLS):
        process = started(study, *options)
        # Every fifth kill comes as the run begins, the others after it has stored more than there was.
        before, early = len(kept) // 3, kills % 5 == 4
        while process.poll() is None:
            if (out / FILE_NAME).exists() and (early or len(Store(out).finished()) > before):
                break
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 2.0 if early else 0.4))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _end_group(process)
        with sqlite3.connect(out / FILE_NAME) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'rounds'").fetchall()
        connection.close()
        rows = Store(out).rows() if tables else []
        assert set(Counter((r.strategy, r.seed) for r in rows).values()) <= {3}
        now = {(r.strategy, r.seed, r.round): r for r in rows}
        assert kept.items() <= now.items()
        kept = now
        print(f"killed with {len(now) // 3} of {2 * SEEDS} cells stored")
    finished(study)
    final = {(r.strategy, r.seed, r.round): r for r in Store(out).rows()}
    assert kept.items() <= final.items()
    assert results(out) == calm
    assert len(final) == 2 * SEEDS * 3


def _end_group(process):
    # Workers that outlive their parent for a moment; the group is this test's own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def last_fits(study):
    """Process numbers, one for each fit of a last round."""
    fits = [line.split() for line in (study / "fits").read_text().splitlines()]
    return [pid for pid, n_labels in fits if n_labels == "14"]


def test_two_runs_share_a_store(study, calm):
    """Two processes on one store at once share its cells, run each once, and leave the rows of one and no claim."""
    out = study / "out"
    both = [started(study, "--out", out) for _ in range(2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    fits = last_fits(study)
    assert len(fits) == 2 * SEEDS
    assert set(fits) == {str(process.pid) for process in both}
    assert claims(out) == []
    assert results(out) == calm
    assert len(Store(out).manifests()) == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="elsewhere the other waits for the lease's end")
def test_a_killed_runs_cells_are_taken_up(study, calm):
    """Of two processes one is killed: the other runs what it was at, no more than that twice, and loses nothing."""
    out = study / "out"
    one, other = (started(study, "--out", out) for _ in range(2))
    while not any(str(one.pid) == pid for pid in (last_fits(study) if (study / "fits").exists() else ())):
        time.sleep(0.01)
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    assert other.wait(timeout=200) == 0
    assert len(last_fits(study)) <= 2 * SEEDS + 1
    assert claims(out) == []
    assert results(out) == calm


def claims(out):
    with sqlite3.connect(out / FILE_NAME) as connection:
        found = connection.execute("SELECT * FROM claims").fetchall()
    connection.close()
    return found


def test_dask_gives_the_rows_of_one_process(tmp_path):
    """On a scheduler that runs already, by its address, the rows are those of this process."""
    distributed = pytest.importorskip("distributed")
    alone = small_run(tmp_path / "alone")
    # Its one worker is a thread here, which spares a start; the next test has processes.
    alike = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
    with distributed.LocalCluster(**alike, dashboard_address=":0") as cluster:
        workers = Workers(jobs=2, backend="dask", address=cluster.scheduler_address)
        shared = small_run(tmp_path / "dask", workers)
    assert [row.result for row in shared.rows()] == [row.result for row in alone.rows()]
    assert shared.manifests()[0]["how"]["backend"] == "dask"


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_give_the_rows_of_one(tmp_path, jobs):
    """A net's rows too, whatever the number of jobs and of threads around: each cell has its own number of threads."""
    settings = {"strategies": ["entropy", "dynamical"], "estimator": zoo.net(), "seeds": 1}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = small_run(tmp_path / "alone", **settings)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    several = small_run(tmp_path / "several", Workers(jobs=jobs), **settings)
    assert [row.result for row in several.rows()] == [row.result for row in alone.rows()]


def test_threads_are_bounded_and_put_back():
    """Inside there is the number asked for, one by default; outside what was before."""
    before = torch.get_num_threads()
    for asked, got in ((None, 1), (2, 2)):
        with limited_threads(asked):
            assert torch.get_num_threads() == got
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_every_worker_keeps_to_its_device(tmp_path, backend):
    """With as many devices as workers, each worker's fits are all on one device, and no two workers share one."""
    if backend == "dask":
        pytest.importorskip("distributed")
    (tmp_path / "seen").mkdir()
    workers = Workers(jobs=2, backend=backend, devices=("cuda:0", "cuda:1"))
    small_run(tmp_path / "out", workers, OnDevice(folder=str(tmp_path / "seen")), seeds=4)
    seen = {path.name: set(path.read_text().split()) for path in (tmp_path / "seen").iterdir()}
    assert all(len(devices) == 1 for devices in seen.values())
    for name, (device,) in seen.items():
        assert device == f"cuda:{int(name.split('-')[1]) % 2}"


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        (Workers(jobs=0), "jobs to be an integer of at least 1"),
        (Workers(backend="spark"), "backend to be one of 'loky', 'dask', 'ray'"),
        (Workers(address="tcp://1.2.3.4:5"), "an address only with a cluster"),
        (Workers(threads=0), "threads to be an integer"),
    ],
)
def test_workers_that_cannot_be_had(tmp_path, workers, message):
    """Bad numbers and backends are errors before any work."""
    with pytest.raises(InvalidInputError, match=message):
        small_run(tmp_path / "out", workers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_backends_that_are_not_installed(tmp_path, monkeypatch, backend, module):
    """A missing backend is an error that says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f'backend="{backend}" needs {module}.*pip install'):
        small_run(tmp_path / "out", Workers(backend=backend))


class Dies(LogisticRegression):
    """Raises at the fit that would be number `lives`; counts fits in a file."""

    def __init__(self, folder=None, lives=None):
        super().__init__()
        self.folder = folder
        self.lives = lives

    def __repr__(self):
        return "Dies()"  # how long it lives is no part of the protocol

    def fit(self, X, y):
        with open(os.path.join(self.folder, "fits"), "a+") as file:
            file.write(".")
            file.seek(0)
            fits = len(file.read())
        if self.lives is not None and fits > self.lives:
            raise KeyboardInterrupt
        return super().fit(X, y)


class TestUnfinishedCells:
    @pytest.mark.parametrize("strategy", ["margin", "random_sampling", "ntkcpl:variant=self", "ddal"])
    @pytest.mark.parametrize("initial", ["random", "query"])
    @pytest.mark.parametrize("lives", [1, 3])
    def test_rounds_are_not_run_again(self, tmp_path, strategy, initial, lives):
        """A cell broken off goes on after its last whole round, with one fit repeated; its rows are a calm cell's."""
        if (strategy, initial) == ("margin", "query"):
            pytest.skip("margin does not start without labels")
        settings = {"strategies": [strategy], "seeds": 1, "n_rounds": 4, "initial": initial}
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path / "out", estimator=Dies(str(tmp_path), lives), **settings)
        assert len(Store(tmp_path / "out").noted(strategy, 0)) == lives
        assert Store(tmp_path / "out").rows() == []
        before = len((tmp_path / "fits").read_text())
        resumed = small_run(tmp_path / "out", estimator=Dies(str(tmp_path)), **settings)
        assert len((tmp_path / "fits").read_text()) - before == 5 - lives + 1
        assert resumed.noted(strategy, 0) == []
        calm = small_run(tmp_path / "calm", estimator=Dies(str(tmp_path)), **settings)
        assert [row.result for row in resumed.rows()] == [row.result for row in calm.rows()]

    @pytest.mark.parametrize(
        ("strategy", "reinitialise"), [("albl", True), ("random_sampling", False)], ids=["bandit", "continued"]
    )
    def test_what_no_round_tells_is_run_from_the_start(self, tmp_path, strategy, reinitialise):
        """A strategy with a state of its own, and training that goes on, begin anew and end as a calm cell does."""
        from sklearn.linear_model import SGDClassifier

        class Breaks(SGDClassifier):
            left = 3

            def __repr__(self):
                return "Breaks()"

            def fit(self, X, y):
                Breaks.left -= 1
                return super().fit(X, y)

            def score(self, X, y):
                if Breaks.left == 0:
                    Breaks.left = 10**6
                    raise KeyboardInterrupt
                if not reinitialise:
                    Breaks.left -= 1
                return super().score(X, y)

        settings = {"strategies": [strategy], "seeds": 1, "n_rounds": 4, "reinitialise": reinitialise}
        model = Breaks(loss="log_loss", max_iter=5, tol=None)
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path / "out", estimator=model, **settings)
        resumed = small_run(tmp_path / "out", estimator=model, **settings)
        calm = small_run(tmp_path / "calm", estimator=model, **settings)
        assert [row.result for row in resumed.rows()] == [row.result for row in calm.rows()]

    def test_rounds_of_another_replay_are_left_unread(self, tmp_path):
        """Rounds that do not fit seed, schedule or pool change nothing."""
        settings = {"strategies": ["margin"], "seeds": 1}
        calm = small_run(tmp_path / "calm", **settings)
        right = [Round(r.n_labels, r.score, 0.0, 0.0, np.array(r.indices), fit_seed=r.fit_seed) for r in calm.rows()]
        wrong = [
            dataclasses.replace(right[0], fit_seed=1),
            dataclasses.replace(right[0], indices=right[0].indices + 1000),
            dataclasses.replace(right[0], indices=right[0].indices[:3]),
            dataclasses.replace(right[0], indices=right[0].indices[::-1]),
        ]
        for i, entry in enumerate(wrong):
            store = Store(tmp_path / str(i))
            store.note("margin", 0, 0, entry)
            again = small_run(tmp_path / str(i), **settings)
            assert [row.result for row in again.rows()] == [row.result for row in calm.rows()]


class TestStore:
    curve = [
        Round(6, 0.5, 0.0, 0.1, np.arange(6)),
        Round(10, 0.75, 0.2, 0.1, np.arange(6, 10), np.ones(4), {"f1": 1.0}),
    ]

    def test_rows_come_back_as_they_went_in(self, tmp_path):
        """Scores, metrics, seeds and memory survive to the bit; what an initial round lacks is None."""
        store = Store(tmp_path)
        assert store.add("a", 3, self.curve)
        first, second = store.rows()
        assert (first.scores, second.scores, second.metrics) == (None, (1.0,) * 4, {"f1": 1.0})
        assert second.indices == (6, 7, 8, 9)

    def test_the_first_to_finish_a_cell_wins(self, tmp_path):
        """A cell that is there is not written again."""
        store = Store(tmp_path)
        other = [Round(6, 0.9, 0.0, 0.1, np.arange(6))]
        assert store.add("a", 0, self.curve)
        assert not Store(tmp_path).add("a", 0, other)
        assert [row.score for row in store.rows()] == [0.5, 0.75]

    def test_initial_labels_are_shared_or_refused(self, tmp_path):
        """A cell that starts from other labels than its seed's cells is an error and not stored; unpaired it may."""
        store = Store(tmp_path)
        store.add("a", 0, self.curve, paired=True)
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
        code = "import sys; from modal_ntk.bench.storage.store import Store; Store(sys.argv[1]).agree({'a': 1, 'b': 2})"
        made = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")]) for _ in range(3)]
        assert [process.wait(timeout=100) for process in made] == [0] * 3
        assert Store(tmp_path / "out").protocol() == {"a": 1, "b": 2}


class TestVerify:
    def test_what_was_run_is_reproduced(self, study, monkeypatch, capsys):
        """`modal-ntk verify` runs cells again from the manifest once it is told what may be called, with status 0."""
        monkeypatch.setattr(sys, "path", [str(study), *sys.path])
        monkeypatch.chdir(study)
        assert main(["bench", "study.toml", "--out", "out", "--quiet"]) == 0
        capsys.readouterr()
        assert main(["verify", "out", "--cells", "3", "--run-estimator", "slow_estimator:Slow"]) == 0
        assert capsys.readouterr().out == "3 of 3 cells reproduced\n"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("UPDATE rounds SET score = score + 1e-12 WHERE round = 1", "round 1: score"),
            ("UPDATE rounds SET indices = '[1, 2, 3, 4]' WHERE round = 2", "round 2: other samples were labelled"),
            ("UPDATE details SET scores = '[0, 0, 0, 0]' WHERE round = 1", "round 1: the strategy gave other scores"),
            ("UPDATE details SET metrics = '{\"f1\": 1}' WHERE round = 0", "round 0: f1 1.0 stored, nan run"),
            ("UPDATE details SET fit_seed = 1 WHERE round = 0", "round 0: seed 1 stored"),
            ("DELETE FROM rounds WHERE round = 2", "2 rounds stored, 3 run"),
        ],
    )
    def test_every_difference_is_found(self, tmp_path, change, message):
        """Whatever of a row differs is named, with the round."""
        small_run(tmp_path, seeds=1, strategies=["margin"])
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute(change)
        connection.close()
        given = {"dataset": DATA, "estimator": LogisticRegression()}
        (found,) = verify(tmp_path, **given).differences
        assert found.startswith(f"margin, seed 0: {message}")
        if "1e-12" in change:
            assert verify(tmp_path, tolerance=1e-9, **given).differences == []

    def test_what_was_given_as_an_object_is_asked_for(self, tmp_path):
        """A store made from objects needs them again, and refuses others."""
        small_run(tmp_path, seeds=1)
        with pytest.raises(InvalidInputError, match=r"no dataset and no estimator.*dataset=\.\.\., est"):
            verify(tmp_path)
        with pytest.raises(InvalidInputError, match=r"estimator is .* there and .* here"):
            verify(tmp_path, dataset=DATA, estimator=LogisticRegression(C=2))

    def test_chosen_cells(self, tmp_path):
        """Cells may be named, on other workers; one that is not there is an error that lists what is."""
        small_run(tmp_path, seeds=1)
        given = {"dataset": DATA, "estimator": LogisticRegression()}
        found = verify(tmp_path, cells=[("random_sampling", 0)], workers=Workers(jobs=2), **given)
        assert (found.cells, found.differences) == ([("random_sampling", 0)], [])
        with pytest.raises(LookupError, match="Unknown finished cell"):
            verify(tmp_path, cells=[("random_sampling", 9)], **given)


def test_a_manifest_names_everything():
    """Versions, hardware, commits and the protocol's hash are there, and JSON can hold them."""
    made = json.loads(json.dumps(manifest(protocol(), Workers().describe())))
    assert made["protocol_hash"] == protocol().digest
    assert made["hardware"]["cores"] == os.cpu_count()
    assert set(made["commits"]) == {"modal_ntk", "working_directory"}


@pytest.mark.parametrize("address", ["nohost", "foo://here:1"])
def test_an_address_of_dask_that_is_none_is_said(address):
    """Before a client is made, which would try for long: what is wrong with it, and what one looks like."""
    pytest.importorskip("distributed")
    with pytest.raises(InvalidInputError, match=r"an address of Dask's scheduler, got .*such as tcp://host:8786"):
        clusters.dask_backend(address, 1).__enter__()


@pytest.mark.parametrize("address", ["..:80", "localhost:99999", "[::1]:99999", "127.0.0.1:0"])
def test_nobody_answers_where_nobody_can(address):
    """Names that no machine has and ports that there are not, as somebody mistypes them."""
    assert not clusters.answers(address)
