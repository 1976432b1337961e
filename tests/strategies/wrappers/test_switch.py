"""A switch between strategies by the number of labels, and TCM, which is one."""

from __future__ import annotations

import numpy as np
import pytest
import zoo
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from modal_ntk import TCM, CoreSet, DynamicAL, Entropy, Margin, MaxHerding, RandomSampling, Switch, TypiClust
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.testing import parametrize_with_checks

X, y = zoo.blobs()
MODEL = LogisticRegression().fit(X[:12], y[:12])


def known(n):
    return {"X_labeled": X[:n], "y_labeled": y[:n]} if n else {}


@parametrize_with_checks([Switch([(RandomSampling(), 3), (Entropy(), None)])])
def test_contract(strategy, check):
    """The switch keeps the contract, whatever it switches between."""
    check(strategy)


@pytest.mark.parametrize(
    ("n_labeled", "stage"), [(0, 0), (3, 0), (4, 1), (5, 1), (11, 1), (12, 2), (20, 2)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("last", [None, 15])
def test_the_number_of_labels_decides(n_labeled, stage, last):
    """Each stage chooses from its predecessor's number on, the last for ever; picks are those it makes alone."""
    arms = [CoreSet(random_state=0), MaxHerding(), Margin(random_state=0)]
    switch = Switch(list(zip(arms, [4, 12, last], strict=True)))
    selected = switch.select(MODEL, X[20:], 5, **known(n_labeled))
    alone = arms[stage].select(MODEL, X[20:], 5, **known(n_labeled))
    assert selected.indices.tolist() == alone.indices.tolist()
    np.testing.assert_array_equal(selected.scores, alone.scores)
    assert (selected.info["stage"], selected.info["strategy"]) == (stage, type(arms[stage]).__name__)


def test_one_seed_is_enough_and_an_own_one_counts():
    """Strategies without a seed draw from the switch's; one with a seed keeps it."""
    picks = [
        Switch([(RandomSampling(), None)], random_state=seed).select(None, X, 10).indices.tolist() for seed in (0, 0, 1)
    ]
    assert picks[0] == picks[1] != picks[2]
    own = [Switch([(RandomSampling(random_state=5), None)], random_state=s).select(None, X, 9).indices for s in (0, 1)]
    np.testing.assert_array_equal(*own)


def test_only_the_needs_of_the_stage_must_be_met():
    """A later stage may need labels and a net; the error is that of the stage whose turn it is."""
    switch = Switch([(TypiClust(random_state=0), 4), (DynamicAL(), 8), (Margin(), None)])
    assert len(switch.select(None, X, 3).indices) == 3
    with pytest.raises(UnmetNeedError, match=r"DynamicAL expected .*gradients"):
        switch.select(MODEL, X[12:], 3, **known(4))
    assert len(switch.select(MODEL, X[12:], 3, **known(8)).indices) == 3
    assert {"labels", "gradients", "features", "probabilities"} <= switch.needs


def test_parameters_are_reached_by_position():
    """Strategies, numbers and parameters are got, set and cloned; what is unknown is refused."""
    switch = Switch([(TypiClust(), 10), (Margin(), None)], random_state=3)
    params = switch.get_params()
    assert (params["until_0"], params["until_1"], params["strategy_0__n_neighbors"]) == (10, None, 20)
    stages = switch.stages
    switch.set_params(until_0=20, strategy_0__n_neighbors=5, strategy_1=Entropy())
    assert stages[0][1] == 10
    assert repr(switch.stages) == "[(TypiClust(n_neighbors=5), 20), (Entropy(), None)]"
    assert repr(switch.set_params(stages=[(CoreSet(), None)])) == "Switch(random_state=3, stages=[(CoreSet(), None)])"
    copy = clone(Switch([(TypiClust(n_neighbors=7), 10), (Margin(), None)]))
    assert copy.get_params()["strategy_0__n_neighbors"] == 7
    with pytest.raises(ValueError, match="until_5"):
        switch.set_params(until_5=3)


def test_a_search_tries_numbers():
    """A grid over the number of labels replays the labelling for each."""
    switch = Switch([(RandomSampling(), 4), (Margin(), None)], random_state=0)
    simulated = SimulatedActiveLearning(
        LogisticRegression(), switch, n_initial=6, initial="stratified", batch_size=3, n_rounds=3
    )
    search = GridSearchCV(simulated, {"query_strategy__until_0": [7, 10]}, cv=2).fit(X, y)
    assert search.best_params_["query_strategy__until_0"] in (7, 10)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "list of pairs"),
        ([Margin()], "list of pairs"),
        ([(Margin, None)], "strategy_0 to be a strategy"),
        ([(Margin(), None), (Entropy(), None)], "until_0"),
        ([(Margin(), 5), (Entropy(), 5)], "until_1 above the number before it, 5"),
        ([(Margin(), 0), (Entropy(), None)], "until_0"),
        ([(TypiClust(n_neighbors=0), None)], "n_neighbors"),
    ],
)
def test_what_cannot_be_used_is_told(stages, message):
    """Stages are pairs of a strategy and a rising number; strategies' own parameters are checked."""
    with pytest.raises(InvalidInputError, match=message):
        Switch(stages).select(MODEL, X, 2)


@pytest.mark.parametrize(("n_labeled", "name"), [(0, "TypiClust"), (5, "TypiClust"), (6, "Margin"), (12, "Margin")])
def test_tcm_switches_at_a_number_of_labels_a_class(n_labeled, name):
    """With two labels for each of three classes the margin takes over; picks are those of either alone."""
    selected = TCM(n_per_class=2, random_state=0).select(MODEL, X[12:], 4, **known(n_labeled))
    assert (selected.info["strategy"], selected.info["until"]) == (name, 6)
    if name == "Margin":
        assert selected.indices.tolist() == Margin(random_state=0).select(MODEL, X[12:], 4).indices.tolist()


def test_tcm_starts_without_a_model():
    """Without a fitted model TypiClust chooses, with labels or without."""
    for n_labeled in (0, 12):
        selected = TCM(n_per_class=1, random_state=0).select(LogisticRegression(), X[12:], 4, **known(n_labeled))
        assert (selected.info["strategy"], selected.info["until"]) == ("TypiClust", None)
    with pytest.raises(InvalidInputError, match="n_per_class"):
        TCM(n_per_class=0).select(None, X, 2)
