"""ALBL: the bandit against its formulas, rewards against a slow account, and what is remembered."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from modal_ntk import ALBL, NTKCPL, ActiveLearner, CandidateSubset, Entropy, Margin, RandomSampling
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.nets import row_digests
from modal_ntk.strategies.baselines.bandit import Turn, arm_probabilities, grown, grown_of_one
from modal_ntk.testing import parametrize_with_checks

X, y = zoo.blobs()
KNOWN = slice(0, 60, 10)
POOL = np.setdiff1d(np.arange(60), np.arange(0, 60, 10))
ARMS = [("margin", Margin()), ("entropy", Entropy())]


def turn(arm, probabilities, chances, advice, reward):
    n = len(chances)
    return Turn(arm, np.array(probabilities), [b""] * n, [0] * n, np.array(chances), np.array(advice), 0, reward)


@parametrize_with_checks([ALBL([("margin", Margin()), ("own", CandidateSubset(Entropy(), 20))], variant="deep")])
def test_contract(strategy, check):
    """With arms of its own, a wrapper among them, it keeps the contract."""
    check(strategy)


def test_the_worked_example():
    """Two arms, T = 10: p_min .186165; reward .5 on an item of arm 0 alone, chance .5: w = (1.179549, 1.074709)."""
    p_min = ALBL([("margin", Margin())], n_rounds=10)._least_probability(2)
    assert p_min == pytest.approx(0.186165, abs=5e-7)
    after = grown(np.zeros(2), turn(0, [0.5, 0.5], [0.5], [[1.0], [0.0]], 0.5), p_min=p_min, delta=0.1, n_rounds=10)
    np.testing.assert_allclose(np.exp(after), [1.179549, 1.074709], atol=5e-7)


def test_the_deep_version_changes_one_weight():
    """p_min is 1 / (10 K), and only the arm that chose grows, without T in the bonus."""
    assert ALBL(variant="deep")._least_probability(3) == pytest.approx(1 / 30)
    after = np.exp(
        grown_of_one(np.zeros(3), turn(1, [0.2, 0.5, 0.3], [0.5], [[0], [1], [0]], 0.8), p_min=1 / 30, delta=0.1)
    )
    expected = np.exp(1 / 60 * (0.8 + 1 / 0.5 * np.sqrt(np.log(3 / 0.1) / 3)))
    np.testing.assert_allclose(after, [1, expected, 1])


@given(weights=st.lists(st.floats(-600, 600), min_size=1, max_size=6), share=st.floats(0, 1))
def test_probabilities_are_probabilities(weights, share):
    """They sum to one, none is below p_min, and they keep the order of the weights, also of huge ones."""
    p_min = share / len(weights)
    p = arm_probabilities(np.array(weights), p_min)
    assert p.sum() == pytest.approx(1)
    assert (p >= p_min - 1e-12).all()
    order = np.argsort(weights)
    assert (np.diff(p[order]) >= -1e-12).all()


@given(reward=st.floats(0, 1), better=st.floats(0.01, 1))
def test_a_larger_reward_makes_the_arm_likelier(reward, better):
    """The more an arm earns, the likelier it is next time."""
    p = []
    for r in (reward, reward + better):
        earned = turn(0, [0.5, 0.5], [0.5, 0.5], [[1.0, 1.0], [0.0, 0.0]], r)
        p.append(arm_probabilities(grown(np.zeros(2), earned, p_min=0.1, delta=0.1, n_rounds=10), 0.1)[0])
    assert p[1] > p[0] > 0.5 - 1e-12


def rounds(strategy, n=4, batch=3, model=None):
    """Query and teach by turns; what the labelled set, the model and the picks were at each query."""
    learner = ActiveLearner(model or LogisticRegression(), strategy, X[KNOWN], y[KNOWN])
    left, log = POOL, []
    for _ in range(n):
        before = (learner.X_training, learner.y_training, copy.deepcopy(learner.estimator))
        indices, rows = learner.query(X[left], n_instances=batch)
        log.append((*before, left, left[indices], strategy.last_selection_.info))
        learner.teach(rows, y[left[indices]])
        left = np.delete(left, indices)
    return log


@pytest.mark.parametrize("variant", ["paper", "deep"])
def test_rewards_and_probabilities_are_those_of_a_slow_account(variant):
    """An account kept beside, by sample numbers, in plain loops, gives the same rewards and probabilities."""
    strategy = ALBL(ARMS, variant=variant, n_rounds=8, random_state=3)
    log = rounds(strategy, n=5)
    arms = [Margin(), Entropy()]
    n_arms = 3 if variant == "paper" else 2
    p_min = np.sqrt(np.log(3) / 24) if variant == "paper" else 1 / 20
    w, asked, last = np.ones(n_arms), {}, None
    for known, labels, model, left, picked, info in log:
        if last is not None:
            p, chosen, q, advice = last
            if variant == "paper":
                reward = sum(float(model.predict(X[[i]])[0] == y[i]) / asked[i] for i in asked) / (60 * 8)
                for k in range(3):
                    r = np.mean([reward * advice[k][i] / q[i] for i in q])
                    w[k] *= np.exp(p_min / 2 * (r + np.sqrt(np.log(3 / 0.1) / (3 * 8)) / p[k]))
            else:
                weights = np.array([1.0] * 6 + [1 / asked[i] for i in asked])
                reward = float(np.mean(weights * (model.predict(known) == labels)))
                w[chosen] *= np.exp(p_min / 2 * (reward + np.sqrt(np.log(2 / 0.1) / 2) / p[chosen]))
            assert info["reward"] == pytest.approx(reward)
        p = (1 - n_arms * p_min) * w / w.sum() + p_min
        np.testing.assert_allclose(info["probabilities"], p)
        np.testing.assert_allclose(info["weights"], w / w.max())
        chosen = info["arms"].index(info["arm"])
        batches = [left[arm.select(model, X[left], 3).indices] for arm in arms]
        if info["arm"] != "uniform":
            assert set(batches[chosen]) == set(picked)
        advice = [{i: float(i in batch) for i in picked} for batch in batches]
        advice.append({i: 3 / len(left) for i in picked})
        q = {i: sum(p[k] * advice[k][i] for k in range(n_arms)) if variant == "paper" else p[chosen] for i in picked}
        asked.update(q)
        last = p, chosen, q, advice
    assert log[-1][5]["n_rewards"] == 4


def test_a_query_that_was_not_taught_is_forgotten():
    """The same query again gives the same picks and remembers one turn, not two."""
    strategy = ALBL(ARMS, random_state=0)
    log = rounds(strategy, n=3)
    known, labels, model, left, picked, _ = log[-1]
    for _ in range(2):
        again = strategy.select(model, X[left], 3, X_labeled=known, y_labeled=labels)
        np.testing.assert_array_equal(left[again.indices], picked)
        assert len(strategy.history_) == 3


def test_part_of_a_batch_may_be_taught():
    """Where a person labels some of the batch, the reward is made of these."""
    strategy = ALBL([("margin", Margin())], n_rounds=10, uniform_arm=False, random_state=0)
    model = LogisticRegression().fit(X[KNOWN], y[KNOWN])
    first = strategy.select(model, X[POOL], 4, X_labeled=X[KNOWN], y_labeled=y[KNOWN])
    taught = POOL[first.indices[:2]]
    known = np.concatenate([np.arange(60)[KNOWN], taught])
    second = strategy.select(model, X[POOL], 4, X_labeled=X[known], y_labeled=y[known])
    expected = (model.predict(X[taught]) == y[taught]).sum() / ((8 + 54) * 10)  # one arm: every chance is one
    assert second.info["reward"] == pytest.approx(expected)


def test_pickle_goes_on_and_clone_begins_anew():
    """A copy by pickle has learned the same and chooses the same; a clone has learned nothing."""
    strategy = ALBL(ARMS, random_state=0)
    learner = ActiveLearner(LogisticRegression(), strategy, X[KNOWN], y[KNOWN])
    for start in (0, 10):
        indices, rows = learner.query(X[POOL[start:]], n_instances=2)
        learner.teach(rows, y[POOL[start:]][indices])
    restored = pickle.loads(pickle.dumps(learner))
    rest = X[POOL[20:]]
    np.testing.assert_array_equal(restored.query(rest, n_instances=3)[0], learner.query(rest, n_instances=3)[0])
    assert restored.query_strategy.last_selection_.info["n_rewards"] == 2
    fresh = clone(strategy).select(learner, rest, 3)
    assert fresh.info["n_rewards"] == 0
    assert fresh.info["reward"] is None


def test_another_data_set_begins_anew_and_lost_samples_are_told():
    """Fewer labels than before begin anew in silence; more labels without the samples chosen warn."""
    strategy = ALBL(ARMS, random_state=0)
    rounds(strategy, n=3)
    model = LogisticRegression().fit(X[KNOWN], y[KNOWN])
    other = strategy.select(model, X[POOL], 3, X_labeled=X[KNOWN], y_labeled=y[KNOWN])
    assert other.info["n_rewards"] == 0
    with pytest.warns(ModalNTKWarning, match="None of the samples"):
        strategy.select(model, X[POOL], 3, X_labeled=X[:20] + 5, y_labeled=y[:20])


def test_a_sample_labelled_before_is_not_taken_for_its_copy():
    """A copy in the pool of a labelled sample counts as taught only once it is there twice."""
    strategy = ALBL([("margin", Margin())], uniform_arm=False, random_state=0)
    model = LogisticRegression().fit(X[KNOWN], y[KNOWN])
    pool = np.repeat(X[:1], 5, axis=0)
    for n_copies, n_rewards in ((0, 0), (0, 0), (1, 1)):
        known = np.concatenate([X[KNOWN], pool[:n_copies]])
        labels = np.concatenate([y[KNOWN], y[:1].repeat(n_copies)])
        selected = strategy.select(model, pool, 2, X_labeled=known, y_labeled=labels)
        assert selected.info["n_rewards"] == n_rewards


def test_arms_are_nested_parameters_and_stay_as_they_are():
    """Arms are reached by name, searched and replaced; asking leaves them without seeds or state."""
    strategy = ALBL([("margin", Margin()), ("ntkcpl", NTKCPL(variant="self", max_clusters=5))], random_state=0)
    assert strategy.get_params()["ntkcpl__max_clusters"] == 5
    assert clone(strategy).set_params(ntkcpl__max_clusters=7).strategies[1][1].max_clusters == 7
    assert clone(strategy).set_params(margin=Entropy()).needs == Entropy.needs | NTKCPL.needs | {"predictions"}
    before = repr(strategy.get_params())
    model = LogisticRegression().fit(X[KNOWN], y[KNOWN])
    strategy.select(model, X[POOL], 3, X_labeled=X[KNOWN], y_labeled=y[KNOWN])
    assert repr(strategy.get_params()) == before


def test_simulation_and_string_labels():
    """In a replayed run with labels that are words every query but the last is rewarded."""
    words = np.array(["ant", "bee", "cat"])[y]
    simulation = SimulatedActiveLearning(
        LogisticRegression(), ALBL(ARMS), n_initial=6, batch_size=4, n_rounds=4, random_state=0
    ).fit(X, words)
    assert simulation.curve_[-1].n_labels == 22
    strategy = ALBL(ARMS, random_state=0)
    learner = ActiveLearner(LogisticRegression(), strategy, X[KNOWN], words[KNOWN])
    for start in (0, 10, 20):
        indices, rows = learner.query(X[POOL[start:]])
        learner.teach(rows, words[POOL[start:]][indices])
    assert [turn.reward is not None for turn in strategy.history_] == [True, True, False]
    assert strategy.history_[1].reward > 0


def test_over_many_queries_the_better_arm_is_asked_more():
    """Of an arm whose samples the model gets right and one whose it gets wrong, the first becomes likelier."""
    good, bad = (turn(k, [0.5, 0.5], [0.5], [[1.0 - k], [k]], r) for k, r in ((0, 0.9), (1, 0.1)))
    log_weights = np.zeros(2)
    for _ in range(30):
        for earned in (good, bad):
            log_weights = grown(log_weights, earned, p_min=0.1, delta=0.1, n_rounds=30)
    assert arm_probabilities(log_weights, 0.1)[0] > 0.8


def test_it_begins_without_labels_if_a_model_is_there():
    """Nothing labelled is no reward yet; no model is an unmet need."""
    model = LogisticRegression().fit(X[KNOWN], y[KNOWN])
    assert ALBL(ARMS, random_state=0).select(model, X[POOL], 2).info["n_rewards"] == 0
    with pytest.raises(UnmetNeedError, match="probabilities"):
        ALBL(ARMS).select(LogisticRegression(), X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strategies": []}, "list of pairs"),
        ({"strategies": ["margin"]}, "list of pairs"),
        ({"strategies": [("margin", "margin")]}, "margin to be a strategy"),
        ({"strategies": [("a", Margin()), ("a", Entropy())]}, "distinct identifiers"),
        ({"strategies": [("delta", Margin())]}, "distinct identifiers"),
        ({"strategies": [("uniform", RandomSampling())]}, "distinct identifiers"),
        ({"strategies": [("a", NTKCPL(n_hidden=0))]}, "n_hidden"),
        ({"variant": "exp3"}, "variant"),
        ({"n_rounds": 0}, "n_rounds"),
        ({"delta": 2.0}, "delta"),
        ({"p_min": 0.6}, "p_min"),
        ({"uniform_arm": 1}, "uniform_arm"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params, message):
    """What cannot be used is an error that says what was expected, before an arm is asked."""
    with pytest.raises(InvalidInputError, match=message):
        ALBL(**params).select(LogisticRegression().fit(X[KNOWN], y[KNOWN]), X[POOL])


@given(rows=st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(-3, 3)), min_size=1, max_size=6))
def test_digests_are_equal_where_rows_are(rows):
    """Digests tell rows apart by value, in arrays of any type of number, tensors, frames, lists and dicts."""
    pandas = pytest.importorskip("pandas")
    array = np.array(rows, dtype=np.float32)
    digests = row_digests(array)
    for i in range(len(rows)):
        for j in range(len(rows)):
            assert (digests[i] == digests[j]) == (array[i] == array[j]).all()
    assert digests == row_digests(array.astype(np.float64)) == row_digests(pandas.DataFrame(array))
    assert digests == row_digests(array.tolist())
    by_name = row_digests({"b": array[:, 1:], "a": array[:, :1]})
    assert by_name == row_digests({"a": array[:, :1].astype(np.float64), "b": array[:, 1:]})
