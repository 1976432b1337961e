"""A pool on the disk: read in blocks, what the net says of it computed once, and every pick that of an array."""

import numpy as np
import pytest
import torch
import zoo
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import TensorDataset

from modal_ntk import BADGE, DDAL, NTKCPL, CandidateSubset, CoreSet, Entropy, GreeDi, Margin, MaxHerding, TypiClust
from modal_ntk.errors import InvalidInputError
from modal_ntk.nets import ArrowRows, CachedPool, NetView, cached_pool
from modal_ntk.nets.reading.passes import stacked
from modal_ntk.strategies.wrappers import sharding

X, y = zoo.blobs(n=120)
LABELED = {"X_labeled": X[:20], "y_labeled": y[:20]}
POOL = X[20:]
STRATEGIES = [
    Margin(random_state=0),
    Entropy(random_state=0),
    BADGE(random_state=0),
    CoreSet(random_state=0),
    MaxHerding(random_state=0),
    DDAL(random_state=0),
    TypiClust(random_state=0),
    NTKCPL(max_clusters=10, random_state=0),
    CandidateSubset(MaxHerding(), 30, random_state=0),
    GreeDi(BADGE(), 3, random_state=0),
    GreeDi(CandidateSubset(MaxHerding(), 20), 3, random_state=0),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 32 samples, four to a pool, and shards of 16."""
    monkeypatch.setattr(cached_pool, "BLOCK", 32)
    monkeypatch.setattr(sharding, "ROWS", 16)


class Counting:
    """Samples that count which were read, as an array in a file might be."""

    def __init__(self, values):
        self.values, self.rows = values, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, i):
        found = self.values[i]
        self.rows += len(found) if isinstance(i, slice) else 1
        return found


def on_disk(kind, folder):
    if kind == "map":
        np.save(folder / "pool.npy", POOL)
        return np.load(folder / "pool.npy", mmap_mode="r")
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        stored = zarr.create_array(str(folder / "pool.zarr"), shape=POOL.shape, chunks=(16, POOL.shape[1]), dtype="f4")
        stored[:] = POOL
        return zarr.open_array(str(folder / "pool.zarr"), mode="r")
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").table({f"x{i}": column for i, column in enumerate(POOL.T)})
        parquet.write_table(table, folder / "pool.parquet", row_group_size=16)
        return ArrowRows(folder / "pool.parquet")
    return TensorDataset(torch.from_numpy(POOL), torch.zeros(len(POOL), dtype=torch.int64))


@pytest.mark.parametrize("kind", ["map", "zarr", "parquet", "dataset"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_picks_are_those_of_an_array(tmp_path, strategy, kind):
    """Every strategy picks from the cache what it picks from the samples in memory, the first time and later."""
    learner = zoo.net().fit(X[:20], y[:20])
    alone = strategy.select(learner, POOL, 7, **LABELED)
    pool = CachedPool(on_disk(kind, tmp_path), tmp_path / "cache")
    for _ in range(2):
        cached = strategy.select(learner, pool, 7, **LABELED)
        np.testing.assert_array_equal(cached.indices, alone.indices)
        np.testing.assert_allclose(cached.scores, alone.scores, rtol=1e-5, atol=1e-6)


def test_the_net_is_asked_once(tmp_path):
    """The second strategy reads the files, and but the samples that tell a pool and a net apart."""
    learner, samples = zoo.net().fit(X[:20], y[:20]), Counting(POOL)
    pool = CachedPool(samples, tmp_path)
    for strategy in (Margin(random_state=0), BADGE(random_state=0)):
        strategy.select(learner, pool, 3)
    read = samples.rows
    assert 2 * len(POOL) <= read
    for strategy in (Margin(random_state=1), Entropy(), BADGE(random_state=1), CoreSet()):
        strategy.select(learner, pool, 3, **LABELED)
    assert samples.rows - read < len(POOL) // 2
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["embedding", "probabilities"]


def change(learner):
    with torch.no_grad():
        next(learner.module_.parameters()).mul_(1.5)


def teach(learner):
    learner.partial_fit(X[:20], y[:20])


def halved(outputs):
    return torch.softmax(outputs / 2, dim=1)


def set_up(learner):
    learner.set_params(predict_nonlinearity=halved)


@pytest.mark.parametrize("change", [change, teach, set_up])
def test_another_state_of_the_net_has_a_file_of_its_own(tmp_path, change):
    """Whatever changes the net's answers changes what the cache gives, also for a view that is kept."""
    learner = zoo.net().fit(X[:20], y[:20])
    pool, view = CachedPool(POOL, tmp_path), NetView(learner)
    for _ in range(2):
        for ask in (view.probabilities, view.logits, view.embeddings):
            np.testing.assert_array_equal(ask(pool).numpy(), ask(POOL).numpy())
        change(learner)


def test_classifiers_and_pipelines(tmp_path):
    """Classifiers without a net are cached too; each fit, and each fit of an earlier step, has files of its own."""
    pool = CachedPool(POOL, tmp_path)
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), zoo.net())):
        for some in (slice(0, 20), slice(20, 60)):
            model.fit(X[some], y[some])
            np.testing.assert_array_equal(NetView(model).probabilities(pool), NetView(model).probabilities(POOL))
    assert len(list(tmp_path.iterdir())) == 4


def test_another_pool_in_the_folder_is_told_apart(tmp_path):
    """By its length and its first sample."""
    view = NetView(zoo.net().fit(X[:20], y[:20]))
    for some in (POOL, POOL[1:], POOL[:50]):
        np.testing.assert_array_equal(view.probabilities(CachedPool(some, tmp_path)), view.probabilities(some))


def test_a_pool_half_computed_leaves_nothing(tmp_path):
    """An error in between leaves no file, and the next query begins anew; what is handed out may be written to."""

    class Breaks(Counting):
        def __getitem__(self, i):
            if isinstance(i, slice) and i.start >= 64 and self.rows >= 0:
                raise RuntimeError("the disk is gone")
            return super().__getitem__(i)

    view, samples = NetView(zoo.net().fit(X[:20], y[:20])), Breaks(POOL)
    pool = CachedPool(samples, tmp_path)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        view.probabilities(pool)
    assert list(tmp_path.iterdir()) == []
    samples.rows = -1000
    found = view.probabilities(pool)
    expected = view.probabilities(POOL)
    np.testing.assert_array_equal(found, expected)
    found.zero_()
    np.testing.assert_array_equal(view.probabilities(pool), expected)


@pytest.mark.parametrize("samples", [[], 3, {1, 2}])
def test_what_has_no_rows_is_refused(tmp_path, samples):
    """A pool has a length and rows by number."""
    with pytest.raises(InvalidInputError, match="samples with a length"):
        CachedPool(samples, tmp_path)


def test_batches_are_stacked_without_a_second_copy():
    """As torch.cat does, whatever their number, types and shapes, and however many were announced."""
    for parts in ([3, 3, 2], [8], [3, 5], [0, 8]):
        batches = [torch.rand(n, 2) for n in parts]
        for announced in (8, 2, 20):
            assert torch.equal(stacked(iter(batches), announced), torch.cat(batches))
    mixed = [torch.ones(2, 2), torch.full((1, 2), 1 / 3, dtype=torch.float64), torch.ones(1, 2)]
    found = stacked(iter(mixed), 4)
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.cat(mixed))
    with pytest.raises(RuntimeError):
        stacked(iter([torch.ones(2, 2), torch.ones(2, 3)]), 4)
