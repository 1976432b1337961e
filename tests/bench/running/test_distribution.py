"""Where cells run changes nothing: processes, Dask, several runs on one store, kills at any moment."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import apart
import pytest
import torch
import zoo
from elsewhere import OnDevice
from slow_study import write_study
from small_runs import X, small_run, y

from modal_ntk.bench import Workers
from modal_ntk.bench.running import clusters
from modal_ntk.bench.running.workers import limited_threads
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, MissingExtraError

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


def started(study, *arguments):
    return apart.command(study, "bench", "study.toml", "--quiet", *arguments)


def finished(study):
    with pytest.MonkeyPatch.context() as here:
        here.setattr(sys, "path", [str(study), *sys.path])
        here.delitem(sys.modules, "slow_estimator", raising=False)
        here.chdir(study)
        assert main(["bench", "study.toml", "--quiet", "--out", "out"]) == 0


def results(out):
    return [row.result for row in Store(out).rows()]


def last_fits(study):
    """Process numbers, one for each fit of a last round."""
    fits = [line.split() for line in (study / "fits").read_text().splitlines()]
    return [pid for pid, n_labels in fits if n_labels == "14"]


@pytest.mark.slow
def test_two_runs_share_a_store(study, calm):
    """Two processes on one store at once share its cells, run each once, and leave the rows of one and no claim."""
    out = study / "out"
    both = [started(study, "--out", out) for _ in range(2)]
    for process in both:
        process.join(timeout=200)
    assert [process.exitcode for process in both] == [0, 0]
    fits = last_fits(study)
    assert len(fits) == 2 * SEEDS
    assert set(fits) == {str(process.pid) for process in both}
    assert claims(out) == []
    assert results(out) == calm
    assert len(Store(out).manifests()) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="elsewhere the other waits for the lease's end")
def test_a_killed_runs_cells_are_taken_up(study, calm):
    """Of two processes one is killed: the other runs what it was at, no more than that twice, and loses nothing."""
    out = study / "out"
    one, other = (started(study, "--out", out) for _ in range(2))
    while not any(str(one.pid) == pid for pid in (last_fits(study) if (study / "fits").exists() else ())):
        time.sleep(0.01)
    os.kill(one.pid, signal.SIGKILL)
    other.join(timeout=200)
    assert other.exitcode == 0
    assert len(last_fits(study)) <= 2 * SEEDS + 1
    assert claims(out) == []
    assert results(out) == calm


def claims(out):
    with sqlite3.connect(out / FILE_NAME) as connection:
        found = connection.execute("SELECT * FROM claims").fetchall()
    connection.close()
    return found


def with_workers(study, *options):
    """The command as a user starts it, whose workers are of its group."""
    # Workers of a cluster started apart import the factory too.
    path = {"PYTHONPATH": os.pathsep.join([str(study), os.environ.get("PYTHONPATH", "")])}
    start = "import sys; from modal_ntk.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", start, "bench", "study.toml", "--quiet", *map(str, options)],
        cwd=study,
        env={**os.environ, **path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * KILLS)
@pytest.mark.parametrize("backend", ["loky", "dask"])
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
        process = with_workers(study, *options)
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


@pytest.mark.parametrize("backend", ["loky", pytest.param("dask", marks=pytest.mark.slow)])
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
