"""One query read by several workers: the same picks, the net sent once, memory maps sent as places in a file."""

import os
import pickle
import threading

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from elsewhere import Counted, Whose
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch.utils.data import TensorDataset

from modal_ntk import BALD, WAAL, CandidateSubset, DeepFool, DynamicAL, Entropy, LeastConfidence, Margin
from modal_ntk.errors import InvalidInputError
from modal_ntk.strategies.wrappers import sharding

X, y = zoo.blobs(n=120)
LABELED = {"X_labeled": X[:20], "y_labeled": y[:20]}
POOL = X[20:]

STRATEGIES = [
    Entropy(random_state=0),
    Margin(random_state=0),
    LeastConfidence(random_state=0),
    CandidateSubset(Margin(), 30, how="uncertain", random_state=0),
    BALD(n_draws=3, random_state=0),
    BALD(n_draws=3, acquisition="mean_std", random_state=0),
    DeepFool(max_steps=3, random_state=0),
    DynamicAL(random_state=0),
    DynamicAL(batch="greedy", parameters="2", random_state=0),
    WAAL(critic=lambda inputs: np.asarray(inputs)[:, 0], random_state=0),
]


def net(**options):
    """A net with dropout, in batches of 8."""
    return NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(X.shape[1], 16), torch.nn.Dropout(), torch.nn.Linear(16, 3)),
        criterion=torch.nn.CrossEntropyLoss,
        classes=[0, 1, 2],
        max_epochs=2,
        batch_size=8,
        train_split=None,
        verbose=0,
        **options,
    ).fit(X[:20], y[:20])


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 16 rows, so that a pool of 100 has seven."""
    monkeypatch.setattr(sharding, "ROWS", 16)


def same(one, other):
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_workers_pick_what_one_process_picks(small_shards, strategy):
    """Picks, scores and whatever the strategy tells beside them are those of one process, bit for bit."""
    learner = net()
    alone = strategy.select(learner, POOL, 7, **LABELED)
    with joblib.parallel_config("loky", n_jobs=2):
        shared = strategy.select(learner, POOL, 7, **LABELED)
    same(shared, alone)
    assert shared.info.keys() == alone.info.keys()
    for name in ("routes", "n_not_arrived", "dynamics"):
        assert shared.info.get(name) == alone.info.get(name)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if not isinstance(s, BALD)], ids=lambda s: type(s).__name__)
def test_shards_change_nothing(monkeypatch, strategy):
    """Shards of whole batches give the very scores of the pool in one piece."""
    learner = net()
    whole = strategy.select(learner, POOL, 7, **LABELED)
    monkeypatch.setattr(sharding, "ROWS", 16)
    same(strategy.select(learner, POOL, 7, **LABELED), whole)


def test_shards_are_whole_batches(monkeypatch):
    """Whatever the least number of rows, a shard ends where a batch of the net does, and shards cover the pool once."""
    seen = []
    for rows in (1, 5, 8, 30, 1000):
        monkeypatch.setattr(sharding, "ROWS", rows)
        seen.clear()

        class Recording(Entropy):
            @classmethod
            def _shard_scores(cls, view, X, number, **options):
                seen.append((number, len(X)))
                return super()._shard_scores(view, X, number, **options)

        Recording(random_state=0).select(net(), POOL, 3)
        assert [number for number, _ in seen] == list(range(len(seen)))
        assert sum(size for _, size in seen) == len(POOL)
        assert all(size % 8 == 0 and size >= rows for _, size in seen[:-1])


CONTAINERS = {
    "array": lambda X: X,
    "float64": lambda X: X.astype(np.float64),
    "tensor": torch.from_numpy,
    "frame": pd.DataFrame,
    "dataset": lambda X: TensorDataset(torch.from_numpy(X), torch.zeros(len(X), dtype=torch.int64)),
    "list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_pools_of_every_kind(small_shards, container):
    """Whatever holds the pool, two workers pick what one process picks."""
    pool, learner = CONTAINERS[container](POOL), net()
    alone = Margin(random_state=0).select(learner, pool, 5)
    with joblib.parallel_config("loky", n_jobs=2):
        same(Margin(random_state=0).select(learner, pool, 5), alone)


def test_sparse_pools_and_plain_classifiers(small_shards):
    """A scikit-learn classifier on a sparse pool is read by workers too."""
    learner = LogisticRegression().fit(X[:20], y[:20])
    alone = Entropy(random_state=0).select(learner, csr_matrix(POOL), 5)
    with joblib.parallel_config("loky", n_jobs=2):
        same(Entropy(random_state=0).select(learner, csr_matrix(POOL), 5), alone)


def test_other_processes_do_read(small_shards):
    """With two jobs no sample is read by the calling process; with one, and with no word to joblib, all are."""

    def readers():
        return set(Whose().select(net(), POOL, len(POOL)).scores.tolist())

    assert readers() == {os.getpid()}
    with joblib.parallel_config("loky", n_jobs=1):
        assert readers() == {os.getpid()}
    with joblib.parallel_config("loky", n_jobs=2):
        found = readers()
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2


def test_threads_do_not_share_a_net(small_shards):
    """Under a threading backend the calling thread reads the pool itself."""
    threads = set()

    class Recording(Entropy):
        @classmethod
        def _shard_scores(cls, view, X, number, **options):
            threads.add(threading.get_ident())
            return super()._shard_scores(view, X, number, **options)

    with joblib.parallel_config("threading", n_jobs=2):
        Recording(random_state=0).select(net(), POOL, 3)
    assert len(threads) == 1


def test_an_error_of_a_worker_is_the_users(small_shards):
    """What a worker finds wrong reaches the user as from one process."""
    short = WAAL(critic=lambda inputs: np.zeros(3))
    with (
        joblib.parallel_config("loky", n_jobs=2),
        pytest.raises(InvalidInputError, match="finite values from the critic"),
    ):
        short.select(net(), POOL, 3)


@pytest.mark.parametrize("jobs", [2, 3, 50])
def test_the_net_is_sent_once_to_each_worker(small_shards, jobs, monkeypatch):
    """However many the shards, the learner is sent as often as there are workers, or shards if these are fewer."""
    monkeypatch.setattr(sharding, "_workers_wanted", lambda: True)
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n: jobs)
    learner = Counted().fit(X[:20], y[:20])
    Counted.sent = 0
    with joblib.parallel_config("loky", n_jobs=2):
        Entropy(random_state=0).select(learner, POOL, 3)
    assert Counted.sent == min(jobs, -(-len(POOL) // 16))


@pytest.mark.slow  # two processes that import torch
def test_dask_picks_from_a_mapped_pool_what_one_process_picks(tmp_path):
    """Over several shards of a mapped pool a LocalCluster's picks and scores are those of this process."""
    distributed = pytest.importorskip("distributed")
    pool = np.lib.format.open_memmap(tmp_path / "pool.npy", "w+", np.float32, (20_000, X.shape[1]))
    pool[:] = np.random.default_rng(0).normal(size=pool.shape)
    pool.flush()
    pool, learner = np.load(tmp_path / "pool.npy", mmap_mode="r"), net(iterator_valid__batch_size=2048)
    strategies = [Margin(random_state=0), BALD(n_draws=1, random_state=0)]
    alone = [strategy.select(learner, pool, 100, **LABELED) for strategy in strategies]
    local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with local as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        for strategy, expected in zip(strategies, alone, strict=True):
            same(strategy.select(learner, pool, 100, **LABELED), expected)


class TestMemoryMaps:
    @pytest.mark.parametrize("start", [0, 3])
    @pytest.mark.parametrize("how", ["load", "open", "row slice", "plain view"])
    def test_rows_are_sent_as_their_place_in_the_file(self, tmp_path, how, start):
        """What is sent is small, and opened elsewhere it is those very rows; of a view of the map as well."""
        np.save(tmp_path / "pool.npy", POOL)
        pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
        if how == "open":
            POOL.tofile(tmp_path / "pool.raw")
            pool = np.memmap(tmp_path / "pool.raw", dtype=POOL.dtype, mode="r", shape=POOL.shape)
        pool = {"row slice": pool[7:], "plain view": np.asarray(pool)}.get(how, pool)
        sent = sharding._sendable({"x": pool}, slice(start, 60))
        assert len(pickle.dumps(sent)) < 600
        np.testing.assert_array_equal(sharding._opened(sent)["x"], pool[start:60])

    def test_what_is_no_file_is_sent_itself(self, tmp_path):
        """Rows picked from a map, a private copy of one, and columns of one are not in the file as they are."""
        np.save(tmp_path / "pool.npy", POOL)
        pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
        changed = np.load(tmp_path / "pool.npy", mmap_mode="c")
        changed[0] = 7
        for odd in (pool[[3, 5, 7]], changed, pool[:, 1:]):
            sent = sharding._sendable(odd, slice(0, 3))
            assert isinstance(sent, np.ndarray)
            np.testing.assert_array_equal(sent, odd[:3])

    @pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
    def test_a_mapped_pool_is_never_read_whole(self, tmp_path):
        """A query over a map of 400 MiB takes far less memory than that, and picks what is picked in memory."""
        pool = np.memmap(tmp_path / "pool.raw", dtype="float32", mode="w+", shape=(100_000, 1024))
        pool[:, 0] = np.random.default_rng(0).normal(size=100_000)
        pool.flush()
        pool = np.memmap(tmp_path / "pool.raw", dtype="float32", mode="r", shape=(100_000, 1024))
        model = LogisticRegression().fit(np.eye(2, 1024), [0, 1])
        Margin().select(model, np.array(pool[:9]), 1)  # what it imports is not the pool's
        before, most, done = anonymous_memory(), [0], threading.Event()

        def watch():
            while not done.wait(0.005):
                most[0] = max(most[0], anonymous_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        picked = Margin(random_state=0).select(model, pool, 5).indices
        done.set()
        watcher.join()
        assert set(picked) == set(np.argsort(np.abs(model.decision_function(np.array(pool))))[:5])
        assert most[0] - before < 200 * 1024


def anonymous_memory():
    """KiB of this process that no file holds."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
