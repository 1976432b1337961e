"""A strategy over a part of the pool: which part, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from modal_ntk import NTKCPL, CandidateSubset, Entropy, Margin, RandomSampling
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.nets import take_rows
from modal_ntk.strategies.wrappers.candidate_subset import _balanced
from modal_ntk.testing import parametrize_with_checks

X, y = zoo.blobs()
MODEL = LogisticRegression().fit(X[:12], y[:12])
HOWS = ("random", "uncertain", "class_balanced")


@parametrize_with_checks([CandidateSubset(RandomSampling(), 20), CandidateSubset(Entropy(), 20, how="class_balanced")])
def test_contract(strategy, check):
    """The wrapper keeps the contract, whatever it wraps."""
    check(strategy)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("inner", [Entropy(random_state=1), NTKCPL(max_clusters=10, random_state=1)], ids=repr)
def test_a_part_as_large_as_the_pool_changes_nothing(inner, how):
    """With all of the pool as candidates a seeded strategy picks what it picks alone."""
    known = {"X_labeled": X[:12], "y_labeled": y[:12]}
    learner = zoo.net().fit(X[:12], y[:12])
    alone = inner.select(learner, X[12:], 6, **known)
    for n_candidates in (48, 1000):
        wrapped = CandidateSubset(inner, n_candidates, how=how, random_state=7).select(learner, X[12:], 6, **known)
        np.testing.assert_array_equal(wrapped.indices, alone.indices)
        np.testing.assert_array_equal(wrapped.scores, alone.scores)


@pytest.mark.parametrize("how", HOWS)
@given(seed=st.integers(0, 100), n_candidates=st.integers(1, 60), n_instances=st.integers(1, 48))
def test_picks_are_those_of_the_strategy_on_the_part(how, seed, n_candidates, n_instances):
    """Picks are rows of the pool, distinct, and the best that the part holds; the part is as large as asked."""
    wrapped = CandidateSubset(Entropy(random_state=0), n_candidates, how=how, random_state=seed)
    selected = wrapped.select(MODEL, X[12:], n_instances)
    assert len(set(selected.indices.tolist())) == n_instances
    assert selected.info["n_subset"] == min(48, max(n_candidates, n_instances))
    alone = Entropy(random_state=0).select(MODEL, X[12:][selected.indices], n_instances)
    np.testing.assert_allclose(np.sort(selected.scores), np.sort(alone.scores), rtol=1e-5)
    assert (np.diff(selected.scores) <= 0).all()


def test_the_random_part_is_uniform():
    """Every sample is drawn equally often, and another seed draws another part."""
    parts = [set(CandidateSubset(RandomSampling(), 10, random_state=s).select(None, X, 10).indices) for s in range(300)]
    counts = np.bincount([row for part in parts for row in part], minlength=60)
    assert np.ptp(counts) < 45  # 300 * 10 / 60 = 50 each, standard deviation 6.5
    assert counts.min() > 0


def test_the_uncertain_part_is_the_top_by_margin():
    """The part holds the samples that margin sampling would take."""
    wrapped = CandidateSubset(RandomSampling(), 9, how="uncertain", random_state=0).select(MODEL, X[12:], 9)
    margin = Margin(random_state=0).select(MODEL, X[12:], 9)
    assert set(wrapped.indices) == set(margin.indices)


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), data=st.data())
def test_the_balanced_part_gives_equal_shares(counts, data):
    """No class has two samples fewer than another, unless all of its samples are in."""
    classes = np.repeat(np.arange(len(counts)), counts)
    size = data.draw(st.integers(1, len(classes)))
    rows = _balanced(classes, size, np.random.default_rng(data.draw(st.integers(0, 9))))
    assert len(set(rows.tolist())) == size
    taken = np.bincount(classes[rows], minlength=len(counts))
    open_classes = taken < np.array(counts)
    assert not open_classes.any() or taken[open_classes].min() >= taken.max() - 1


def test_needs_are_the_inner_ones_and_those_of_the_part():
    """A part by probabilities needs them; a random one lets a cold strategy stay cold."""
    assert CandidateSubset(NTKCPL()).needs == NTKCPL.needs
    assert CandidateSubset(RandomSampling(), how="uncertain").needs == {"probabilities"}
    assert CandidateSubset(NTKCPL(), how="class_balanced").needs == {"features", "predictions"}
    assert len(CandidateSubset(NTKCPL(max_clusters=5), 20, random_state=0).select(None, X, 4).indices) == 4
    with pytest.raises(UnmetNeedError, match="probabilities"):
        CandidateSubset(RandomSampling(), how="uncertain").select(None, X)
    with pytest.raises(UnmetNeedError, match="embedding"):  # what NTKCPL needs only once there are labels
        CandidateSubset(NTKCPL(variant="al")).select(MODEL, X[12:], 2, X_labeled=X[:12], y_labeled=y[:12])


def test_inner_parameters_can_be_searched():
    """clone keeps and set_params reaches what is inside, also by a grid search."""
    wrapped = CandidateSubset(NTKCPL(variant="self"), 30, random_state=0)
    assert clone(wrapped).set_params(strategy__max_clusters=7).strategy.max_clusters == 7
    assert wrapped.strategy.max_clusters is None
    simulation = SimulatedActiveLearning(
        LogisticRegression(), wrapped, n_initial=6, batch_size=3, n_rounds=1, random_state=0
    )
    search = GridSearchCV(simulation, {"query_strategy__strategy__max_clusters": [4, 8]}, cv=2).fit(X, y)
    assert search.best_params_["query_strategy__strategy__max_clusters"] in (4, 8)


def test_a_seed_outside_is_enough():
    """A strategy without a seed repeats itself inside a seeded wrapper, and is not seeded by it for good."""
    inner = RandomSampling()
    wrapped = CandidateSubset(inner, 20, random_state=4)
    first, second = (wrapped.select(None, X, 5).indices for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert inner.random_state is None
    assert wrapped.strategy is inner


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strategy": "margin"}, "strategy to be a strategy.*get_strategy"),
        ({"strategy": Margin}, "strategy to be a strategy"),
        ({"strategy": NTKCPL(max_clusters=0)}, "max_clusters"),
        ({"n_candidates": 0}, "n_candidates"),
        ({"how": "diverse"}, "how to be one of"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params, message):
    """Its own parameters and the inner strategy's are checked before anything is drawn."""
    with pytest.raises(InvalidInputError, match=message):
        CandidateSubset(**{"strategy": Entropy(), **params}).select(MODEL, X[12:])


def test_rows_of_every_container():
    """The rows taken are those named, in their order, in a container of the same kind."""
    pandas = pytest.importorskip("pandas")
    rows = np.array([5, 0, 7])
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X))
    for pool in (X, torch.from_numpy(X), pandas.DataFrame(X), sparse.csr_matrix(X), X.tolist(), {"a": X}, dataset):
        taken = take_rows(pool, rows)
        if isinstance(pool, dict):
            taken, pool = taken["a"], pool["a"]
        if pool is dataset:
            taken = [sample[0].tolist() for sample in taken]
        else:
            assert type(taken) is type(pool)
        taken = taken.toarray() if sparse.issparse(taken) else np.asarray(taken)
        np.testing.assert_array_equal(taken.astype(np.float32), X[rows])
