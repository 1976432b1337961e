"""Cells and queries on a real local Ray: the rows and picks of one process, whatever is killed in between."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import joblib
import numpy as np
import psutil
import pytest
import zoo
from elsewhere import Fragile
from sklearn.linear_model import LogisticRegression

from modal_ntk import Entropy
from modal_ntk.bench import Dataset, Protocol, Workers, run_protocol
from modal_ntk.bench.running import clusters
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.errors import IncompleteRunError, InvalidInputError
from modal_ntk.strategies.wrappers import sharding

pytestmark = [
    pytest.mark.slow,  # a Ray is a dozen processes, each of which imports torch
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
    # Sockets of processes that were killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
KILLS = int(os.environ.get("MODAL_NTK_KILLS", 2))
X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))
# Without a token of Ray's own in the user's home, and without its own `print`, as a fitted net holds Python's; workers
# import what tests import.
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
    "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *{os.path.dirname(zoo.__file__)}]),
}


@pytest.fixture(scope="module", autouse=True)
def settings():
    """Ray's settings, for the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        yield pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(settings):
    """A Ray of two workers that runs already, which runs use and leave."""
    handler = signal.getsignal(signal.SIGTERM)
    settings.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield settings
    settings.shutdown()
    signal.signal(signal.SIGTERM, handler)


def run(out, strategies=("margin", "random_sampling"), workers=None, estimator=None, **changes):
    settings = {"seeds": 2, "n_initial": 6, "batch_size": 4, "n_rounds": 2, **changes}
    protocol = Protocol(dataset="blobs", strategies=list(strategies), **settings)
    estimator = LogisticRegression() if estimator is None else estimator
    return run_protocol(protocol, out=out, dataset=DATA, estimator=estimator, workers=workers)


def results(store):
    return [row.result for row in store.rows()]


def on_ray(jobs=2):
    return Workers(jobs=jobs, backend="ray")


def test_rows_are_those_of_one_process_of_loky_and_of_dask(tmp_path, settings, monkeypatch):
    """Whoever runs the cells; a Ray that the run started is its own, ends with it, and SIGTERM is handled as before."""
    pytest.importorskip("distributed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # another's, which nobody asked for
    handler = signal.getsignal(signal.SIGTERM)
    alone, loky = run(tmp_path / "alone"), run(tmp_path / "loky", workers=Workers(jobs=2))
    dask = run(tmp_path / "dask", workers=Workers(jobs=2, backend="dask"))
    shared = run(tmp_path / "ray", workers=on_ray())
    assert results(shared) == results(dask) == results(loky) == results(alone)
    assert not settings.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert shared.manifests()[0]["how"]["backend"] == "ray"


@pytest.mark.parametrize(("deaths", "lost"), [(1, 0), (10, 1)])
def test_a_killed_worker_costs_at_most_its_run(tmp_path, cluster, deaths, lost):
    """Killed once a run is run again; killed each time it is named at the end, and all others are stored."""
    (tmp_path / "fits").mkdir()
    calm = run(tmp_path / "calm", ["margin"], seeds=4)
    deadly = X[:60][calm.rows()[0].indices[0]]  # what the first seed begins with
    fragile = Fragile(str(tmp_path / "fits"), deadly=deadly, deaths=deaths)
    if lost:
        with pytest.raises(IncompleteRunError, match=r"1 runs.*\n.*seed 0: its worker was killed twice"):
            run(tmp_path / "out", ["margin"], seeds=4, workers=on_ray(), estimator=fragile)
    else:
        run(tmp_path / "out", ["margin"], seeds=4, workers=on_ray(), estimator=fragile)
    wanted = [row for row in results(calm) if row[1] or not lost]
    assert results(Store(tmp_path / "out")) == wanted
    assert cluster.is_initialized()


def test_what_is_stored_is_not_run_again(tmp_path, cluster):
    """More seeds on a store that Ray has filled cost their own fits."""
    (tmp_path / "fits").mkdir()
    fragile = Fragile(str(tmp_path / "fits"))
    run(tmp_path / "out", ["margin"], seeds=2, workers=on_ray(), estimator=fragile)
    before = len(os.listdir(tmp_path / "fits"))
    more = run(tmp_path / "out", ["margin"], seeds=4, workers=on_ray(jobs=1), estimator=fragile)
    assert len(os.listdir(tmp_path / "fits")) - before == 2 * 3
    assert results(more) == results(run(tmp_path / "calm", ["margin"], seeds=4))


def test_one_query_is_shared(cluster, monkeypatch):
    """Under joblib's ``ray`` backend shards are read by Ray's workers, and the picks are those of one process."""
    from joblib.pool import PicklingPool
    from ray.util.joblib import register_ray

    monkeypatch.setattr(sharding, "ROWS", 16)
    learner = zoo.net().fit(X[:20], y[:20])
    alone = Entropy(random_state=0).select(learner, X[20:], 7)
    register_ray()
    bases = PicklingPool.__bases__
    try:
        with joblib.parallel_config("ray", n_jobs=2):
            shared = Entropy(random_state=0).select(learner, X[20:], 7)
    finally:
        PicklingPool.__bases__ = bases  # Ray's backend leaves others there
    np.testing.assert_array_equal(shared.indices, alone.indices)
    np.testing.assert_array_equal(shared.scores, alone.scores)


def test_several_devices_are_refused(tmp_path):
    """Ray does not tell a worker its number."""
    with pytest.raises(InvalidInputError, match="at most one device with Ray, got 2"):
        run(tmp_path, workers=Workers(jobs=2, backend="ray", devices=("cuda:0", "cuda:1")))


def started(out, *options):
    script = (
        "import sys; sys.path[:0] = {path!r}; import test_ray; from modal_ntk.bench import Workers\n"
        "test_ray.run({out!r}, workers=Workers({options}), estimator=test_ray.Fragile({fits!r}, waits=0.1), seeds=8)"
    ).format(path=[os.path.dirname(__file__)], out=str(out), options=", ".join(options), fits=str(out.parent / "fits"))
    with open(out.parent / "said", "w") as said:
        return subprocess.Popen([sys.executable, "-c", script], stderr=said, start_new_session=True)


@pytest.fixture
def head():
    """A head in processes of its own, by its address, and what ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    options = ["--head", "--block", "--num-cpus=2", "--include-dashboard=false", f"--port={address.rpartition(':')[2]}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", start, "start", *options], **quiet)

    def end():
        # Ray's processes are in groups of their own.
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()

    yield address, end
    if process.poll() is None:
        end()


def test_a_lost_head_is_said_in_words(tmp_path, head):
    """A run whose Ray is killed ends with what to do; what was stored stays, and the rest is run by whoever is left."""
    address, end = head
    (tmp_path / "fits").mkdir()
    out, options = tmp_path / "out", ["backend='ray'", f"address={address!r}"]
    until = time.monotonic() + 200
    while not clusters.answers(address) and time.monotonic() < until:
        time.sleep(0.2)
    process = started(out, *options)
    stored = until_more(process, out, 0)
    end()
    assert process.wait(timeout=200) == 1
    told = (tmp_path / "said").read_text()
    assert f"Expected Ray's head to answer at {address}, got none. Start it again" in told
    assert stored <= len(Store(out).finished()) < 16
    estimator = Fragile(str(tmp_path / "fits"))
    with pytest.raises(IncompleteRunError, match="Expected Ray's head to answer"):
        run(out, seeds=8, workers=Workers(backend="ray", address=address), estimator=estimator)
    assert results(run(out, seeds=8, estimator=estimator)) == results(run(tmp_path / "calm", seeds=8))


def until_more(process, out, before):
    while process.poll() is None and not ((out / FILE_NAME).exists() and len(Store(out).finished()) > before):
        time.sleep(0.02)
    return len(Store(out).finished()) if (out / FILE_NAME).exists() else 0


def test_killed_runs_lose_nothing(tmp_path):
    """After each kill -9 of the run what was stored stays; in the end the rows are a calm run's, each cell once."""
    (tmp_path / "fits").mkdir()
    out, stored = tmp_path / "out", 0
    for _ in range(KILLS):
        process = started(out, "jobs=2", "backend='ray'")
        until_more(process, out, stored)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = len(Store(out).finished())
        assert now >= stored
        stored = now
    assert started(out, "jobs=2", "backend='ray'").wait(timeout=300) == 0
    assert results(Store(out)) == results(run(tmp_path / "calm", seeds=8))
    assert set(Counter(row.seed for row in Store(out).rows()).values()) == {2 * 3}
