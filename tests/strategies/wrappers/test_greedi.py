"""Two-stage selection: what a shard hands on, what the merge keeps, and how much is lost."""

import itertools

import joblib
import numpy as np
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st
from joblib.externals.loky import cloudpickle_wrapper
from oracles_herding import gaussian, herd
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from modal_ntk import BADGE, NTKCPL, CoreSet, Entropy, GreeDi, Margin, MaxHerding, RandomSampling, TypiClust
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.selection.result import Selection
from modal_ntk.strategies.base import QueryStrategy
from modal_ntk.testing import parametrize_with_checks

X, y = zoo.blobs(n=120)
LABELED = {"X_labeled": X[:20], "y_labeled": y[:20]}
POOL = X[20:]
MODEL = LogisticRegression().fit(X[:20], y[:20])


@parametrize_with_checks([GreeDi(RandomSampling(), 3), GreeDi(Entropy(), 2)])
def test_contract(strategy, check):
    """The wrapper keeps the contract, whatever it wraps."""
    check(strategy)


@pytest.mark.parametrize("n_shards", [1, 5])
def test_one_shard_is_the_plain_pick(n_shards):
    """With one shard, asked for or left by a batch of most of the pool, picks and scores are the strategy's own."""
    b = 6 if n_shards == 1 else 60
    for inner in (Entropy(random_state=1), NTKCPL(max_clusters=10, random_state=1), CoreSet(random_state=1)):
        alone = inner.select(MODEL, POOL, b, **LABELED)
        wrapped = GreeDi(inner, n_shards, random_state=7).select(MODEL, POOL, b, **LABELED)
        np.testing.assert_array_equal(wrapped.indices, alone.indices)
        np.testing.assert_array_equal(wrapped.scores, alone.scores)
        assert (wrapped.info["n_shards"], wrapped.info["n_merged"]) == (1, len(POOL))


@given(n_shards=st.integers(1, 30), b=st.integers(1, 100), seed=st.integers(0, 50))
def test_scores_of_single_samples_lose_nothing(n_shards, b, seed):
    """The best by a score of their own are the best of some shard: the same samples, in the same order."""
    alone = Margin(random_state=0).select(MODEL, POOL, b)
    wrapped = GreeDi(Margin(random_state=0), n_shards, random_state=seed).select(MODEL, POOL, b)
    np.testing.assert_array_equal(wrapped.scores, alone.scores)
    assert len(set(wrapped.indices.tolist())) == b


class Herding(QueryStrategy):
    """Greedy coverage of all rows of a stored matrix, chosen from those whose numbers are the samples."""

    def __init__(self, near=None):
        self.near = near

    def _select(self, query):
        rows = np.asarray(query.X_pool)[:, 0].astype(int)
        chosen, cover = [], np.zeros(len(self.near))
        for _ in range(query.n_instances):
            gains = np.array([np.maximum(self.near[:, r] - cover, 0).sum() for r in rows])
            gains[chosen] = -1
            chosen.append(int(gains.argmax()))
            cover = np.maximum(cover, self.near[:, rows[chosen[-1]]])
        return Selection(np.array(chosen), np.zeros(len(chosen)), {})


def coverage(near, chosen):
    return near[:, list(chosen)].max(axis=1).sum()


@given(seed=st.integers(0, 10**6), n_shards=st.integers(1, 4), b=st.integers(1, 3), sparsity=st.floats(0, 0.95))
def test_the_bound_of_two_stages(seed, n_shards, b, sparsity):
    """Generalised coverage judged on the whole pool is at least (1 - 1/e)^2 / min(m, b) of the best by brute force."""
    rng = np.random.default_rng(seed)
    near = rng.random((14, 14)) ** 4 * (rng.random((14, 14)) > sparsity)
    best = max(coverage(near, some) for some in itertools.combinations(range(14), b))
    rows = np.arange(14.0)[:, None]
    chosen = GreeDi(Herding(near), n_shards, random_state=seed).select(None, rows, b).indices
    assert coverage(near, chosen) >= (1 - np.exp(-1)) ** 2 / min(n_shards, b) * best - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_maxherding_loses_little(seed):
    """On twelve groups of unequal size, five shards lose at most 7 % of the coverage; random picks lose a quarter."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 60, 12)
    pool = np.repeat(rng.normal(size=(12, 3), scale=4), sizes, axis=0) + rng.normal(size=(sizes.sum(), 3), scale=0.7)
    pool = pool[rng.permutation(len(pool))].astype(np.float32)
    near = gaussian(pool.astype(float), pool.astype(float), 1.5)
    plain = coverage(near, herd(near, 12)[0])
    two = GreeDi(MaxHerding(kernel=1.5, normalise=False), 5, random_state=seed).select(None, pool, 12)
    assert coverage(near, two.indices) >= 0.93 * plain
    assert coverage(near, rng.choice(len(pool), 12, replace=False)) < 0.75 * plain


@given(seed=st.integers(0, 10**6), n_shards=st.integers(1, 4), b=st.integers(1, 4), n_labeled=st.integers(0, 2))
def test_the_radius_of_coreset(seed, n_shards, b, n_labeled):
    """Radius of `CoreSet` in two stages: at most four times the least possible one by brute force."""
    pool = np.random.default_rng(seed).normal(size=(12, 2)).round(1)
    labeled = pool[:n_labeled] + 0.5
    known = {"X_labeled": labeled, "y_labeled": np.zeros(n_labeled, int)} if n_labeled else {}
    chosen = GreeDi(CoreSet(random_state=0), n_shards, random_state=seed).select(None, pool, b, **known).indices
    gaps = np.linalg.norm(pool[:, None] - np.concatenate([pool, labeled])[None], axis=2)

    def radius(some):
        return gaps[:, [*some, *range(12, 12 + n_labeled)]].min(axis=1).max()

    least = min(radius(some) for some in itertools.combinations(range(12), b))
    assert radius(chosen) <= 4 * least + 1e-9


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("inner", [BADGE(), TypiClust(), NTKCPL(max_clusters=10)], ids=lambda s: type(s).__name__)
def test_workers_pick_what_one_process_picks(tmp_path, inner, mapped):
    """Picks and scores on two of joblib's processes are those of one, of an array and of a file."""
    np.save(tmp_path / "pool.npy", POOL)
    pool = np.load(tmp_path / "pool.npy", mmap_mode="r") if mapped else POOL
    learner = zoo.net().fit(X[:20], y[:20])
    strategy = GreeDi(inner, 4, random_state=3)
    alone = strategy.select(learner, pool, 5, **LABELED)
    with joblib.parallel_config("loky", n_jobs=2):
        shared = strategy.select(learner, pool, 5, **LABELED)
    np.testing.assert_array_equal(shared.indices, alone.indices)
    np.testing.assert_array_equal(shared.scores, alone.scores)


def test_a_worker_is_sent_its_part_alone(monkeypatch):
    """What a task carries does not grow with the pool: not the pool itself, and not what others are to read."""
    sizes, real = [], joblib.delayed

    def delayed(function):
        def sized(*args):
            sizes.append(len(cloudpickle_wrapper.dumps(args)))
            return real(function)(*args)

        return sized

    monkeypatch.setattr(joblib, "delayed", delayed)
    rows = np.random.default_rng(0).normal(size=(4000, 4))
    with joblib.parallel_config("loky", n_jobs=2):
        GreeDi(RandomSampling(), 2, random_state=0).select(None, rows, 3)
    assert len(sizes) == 2
    assert max(sizes) < rows.nbytes * 0.6


def test_needs_and_parameters_are_the_inner_ones():
    """What the inner strategy needs is asked for, and its parameters are reached and cloned."""
    wrapped = GreeDi(NTKCPL(max_clusters=10), 3, random_state=0)
    assert clone(wrapped).set_params(strategy__max_clusters=7).strategy.max_clusters == 7
    assert wrapped.strategy.max_clusters == 10
    assert GreeDi(Entropy()).needs == {"probabilities"}
    assert len(wrapped.select(None, POOL, 4).indices) == 4
    with pytest.raises(UnmetNeedError, match="probabilities"):
        GreeDi(Entropy()).select(None, POOL)
    for params, message in (({"strategy": "margin"}, "to be a strategy"), ({"n_shards": 0}, "n_shards")):
        with pytest.raises(InvalidInputError, match=message):
            GreeDi(**{"strategy": Entropy(), **params}).select(MODEL, POOL)
