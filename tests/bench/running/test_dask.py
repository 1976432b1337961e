"""Cells on Dask's workers that are processes of their own, with copies of the library of their own, reached by TCP."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression

import modal_ntk
from modal_ntk.bench import Dataset, Protocol, Workers, run_protocol
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import IncompleteRunError

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # every worker imports torch

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))


def run(out, seeds, workers=None):
    protocol = Protocol(dataset="blobs", strategies=["margin", "random_sampling"], seeds=seeds, n_initial=6,
                        batch_size=4, n_rounds=2)  # fmt: skip
    store = run_protocol(protocol, out=out, dataset=DATA, estimator=LogisticRegression(), workers=workers)
    return [row.result for row in store.rows()]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Two folders with the library, each for a worker."""
    folders = [tmp_path_factory.mktemp("copy") for _ in range(2)]
    for folder in folders:
        source = Path(modal_ntk.__file__).parent
        shutil.copytree(source, folder / "modal_ntk", ignore=shutil.ignore_patterns("__pycache__"))
    return folders


@contextlib.contextmanager
def cluster(address, copies):
    """A scheduler and two workers, each started by a command and ended with the context."""
    processes = []

    def start(copy, module, *options):
        # Python looks for modules where it is started.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": copy}
        processes.append(subprocess.Popen([sys.executable, "-m", f"distributed.cli.{module}", *options], **quiet))

    start(copies[0], "dask_scheduler", "--host", address, "--no-dashboard")
    for copy in copies:
        limits = ("--nthreads", "1", "--no-nanny", "--death-timeout", "300", "--no-dashboard")
        start(copy, "dask_worker", address, *limits, "--local-directory", str(copy))
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_scheduler_is_stopped_and_started_between_runs(tmp_path, copies):
    """Rows are those of one process; a run without a scheduler is told so, and the next scheduler's goes on from it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    workers = Workers(backend="dask", address=address)
    for seeds in (1, 3):
        with cluster(address, copies):
            with distributed.Client(address, timeout=300) as client:
                client.wait_for_workers(2, timeout=300)
                places = client.run(lambda: __import__("modal_ntk").__file__)
            assert {Path(place).parent.parent for place in places.values()} == set(copies)
            found = run(tmp_path / "out", seeds, workers)
        assert found == run(tmp_path / f"calm{seeds}", seeds)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(IncompleteRunError, match=r"Dask's scheduler to answer at tcp://.*goes on where this one"),
    ):
        run(tmp_path / "out", 4, workers)


class Watched(LogisticRegression):
    """Says in which thread it is fitted, and when it was often enough."""

    threads, often = [], threading.Event()

    def fit(self, X, y):
        self.threads.append(threading.current_thread())
        if len(self.threads) > 12:
            self.often.set()
            threading.Event().wait(0.2)
        return super().fit(X, y)


def test_a_scheduler_lost_in_a_run_is_said_in_words(tmp_path):
    """The one core of a cluster fits every cell; where the scheduler ends, the run says so and keeps what it stored."""
    out, options = tmp_path / "out", {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    Watched.threads.clear()
    Watched.often.clear()
    protocol = Protocol(dataset="blobs", strategies=["margin"], seeds=20, n_initial=6, batch_size=4, n_rounds=2)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        distributed.LocalCluster(processes=False, protocol="tcp", **options) as cluster,
    ):
        workers = Workers(backend="dask", address=cluster.scheduler_address)

        def lose():
            assert Watched.often.wait(60)
            cluster.close()

        losing = threading.Thread(target=lose)
        losing.start()
        with pytest.raises(IncompleteRunError, match=r"Dask's scheduler to answer at tcp://.*goes on where this one"):
            run_protocol(protocol, out=out, dataset=DATA, estimator=Watched(), workers=workers)
        losing.join()
    assert threading.main_thread() not in Watched.threads
    assert 0 < len(Store(out).finished(3)) < 20
