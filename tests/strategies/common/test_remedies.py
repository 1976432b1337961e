"""The remedy of an unmet need works: the code it names is run until the strategy chooses."""

import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from torch import nn

import modal_ntk
from modal_ntk import ALBL, DDAL, NTKCPL, WAAL, CandidateSubset, CoreSet, LookAhead, QueryStrategy, Switch
from modal_ntk.errors import UnmetNeedError
from modal_ntk.nets import WAALClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(18, 4)).astype(np.float32)
y = np.arange(18) % 3
X_pool = rng.normal(size=(30, 4)).astype(np.float32)


def module(*, dropout=False):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *([nn.Dropout()] if dropout else []), nn.Linear(8, 3))


def net(*, dropout=False):
    return NeuralNetClassifier(
        module(dropout=dropout), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=1
    )


def waal_net():
    return WAALClassifier(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), classes=range(3), max_epochs=1, verbose=0)


def with_dropout(learner, layer):
    """The learner's net with a layer before its last one."""
    before = learner.estimator.module
    learner.estimator = learner.estimator.set_params(module=nn.Sequential(*before[:-1], layer, before[-1]))
    learner.teach(X, y)


# What users come with: an estimator, and whether it has been taught.
SITUATIONS = {
    "unfitted net": (net, False),
    "fitted net": (net, True),
    "unfitted WAAL": (waal_net, False),
    "WAAL without a pool": (waal_net, True),
    "logistic regression": (LogisticRegression, True),
    "pipeline": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), True),
    "no probabilities": (LinearSVC, True),
    "regressor": (Ridge, True),
}
STRATEGIES = [modal_ntk.get_strategy(found.spec.name) for found in modal_ntk.list_strategies()] + [
    NTKCPL(variant="al"),
    DDAL(features="embedding"),
    CandidateSubset(modal_ntk.BALD(), 10),
    Switch([(modal_ntk.BADGE(), 30), (modal_ntk.BALD(), None)]),
    ALBL([("bald", modal_ntk.BALD())]),
]
OF_A_LAYER = [NTKCPL(features="0"), LookAhead(variant="initial", features="0"), CoreSet(features="0")]
CASES = [(strategy, name) for strategy in STRATEGIES for name in SITUATIONS]
CASES += [(strategy, name) for strategy in OF_A_LAYER for name in SITUATIONS if "WAAL" not in name]


def follow(learner, code):
    """Do what a remedy says, as a user would who has these things at hand."""
    namespace = {name: getattr(modal_ntk, name) for name in modal_ntk.__all__} | {
        "learner": learner, "estimator": learner.estimator, "X": X, "y": y, "X_pool": X_pool, "nn": nn,
        "module": module(dropout=True), "classes": range(3), "extractor": nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
        "function": lambda pool: np.asarray(pool)[:, 0], "NeuralNetClassifier": NeuralNetClassifier,
        "LogisticRegression": LogisticRegression, "CalibratedClassifierCV": CalibratedClassifierCV,
        "WAALClassifier": WAALClassifier,
    }  # fmt: skip
    value = eval(code, namespace)
    if isinstance(value, QueryStrategy):
        learner.query_strategy = value
    elif isinstance(value, nn.Module):
        with_dropout(learner, value)
    elif hasattr(value, "fit") and value is not learner:
        learner.estimator = value
        learner.teach(X, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("strategy", "situation"), CASES, ids=lambda case: " ".join(str(case).split())[:40])
def test_following_the_remedies_leads_to_a_choice(strategy, situation):
    """Each error names something new to do, and after at most three of them the query answers."""
    make, taught = SITUATIONS[situation]
    torch.manual_seed(0)
    learner = modal_ntk.ActiveLearner(make(), strategy)
    if taught:
        learner.teach(X, y)
    seen = []
    for _ in range(4):
        try:
            chosen = learner.query(X_pool, n_instances=2)[0]
        except UnmetNeedError as error:
            told = str(error)
        else:
            assert len(np.unique(chosen)) == 2
            return
        code = re.findall(r"`([^`]+)`", told)
        assert code, f"no code to run in: {told}"
        assert code[0] not in seen, f"the same again: {told}"
        seen.append(code[0])
        follow(learner, code[0])
    pytest.fail(f"no choice after {seen}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_code_of_a_remedy_runs(situation):
    """Not the first alone: whatever stands between backquotes is code that runs."""
    make, taught = SITUATIONS[situation]
    for strategy in (modal_ntk.BALD(), WAAL(), modal_ntk.LpNTK(), modal_ntk.DynamicAL(), modal_ntk.Margin()):
        learner = modal_ntk.ActiveLearner(make(), strategy)
        if taught:
            learner.teach(X, y)
        try:
            learner.query(X_pool, n_instances=2)
        except UnmetNeedError as error:
            for code in re.findall(r"`([^`]+)`", str(error)):
                if not code.startswith("learner.teach(X, y, X_unlabeled") or isinstance(make(), WAALClassifier):
                    with warnings.catch_warnings():
                        follow(learner, code)


@pytest.mark.parametrize("strategy", [modal_ntk.UHerding(), NTKCPL(), modal_ntk.Margin()])
def test_nobody_is_no_learner_to_be_taught(strategy):
    """Without a learner there is nobody to teach: the classifier that is named takes its place."""
    given = {"X_labeled": X, "y_labeled": y}
    with pytest.raises(UnmetNeedError, match=r"; got None\. Query with a classifier that is fitted") as caught:
        strategy.select(None, X_pool, 2, **given)
    (code,) = re.findall(r"`([^`]+)`", str(caught.value))
    assert len(strategy.select(eval(code), X_pool, 2, **given).indices) == 2


@pytest.mark.filterwarnings("ignore")
def test_labels_are_asked_for_where_these_are_missing():
    """A learner that keeps no labels is told to hand them over, not to start without."""
    learner = modal_ntk.ActiveLearner(net().fit(X, y), modal_ntk.DynamicAL())
    with pytest.raises(UnmetNeedError, match=r"`learner.query\(X_pool, X_labeled=X, y_labeled=y\)`"):
        learner.query(X_pool)
    learner.query(X_pool, X_labeled=X, y_labeled=y)


def test_only_what_starts_cold_is_told_of_where_that_helps():
    """Strategies that start without labels are no remedy for a net without dropout."""
    learner = net().fit(X, y)
    with pytest.raises(UnmetNeedError) as caught:
        modal_ntk.BALD().select(learner, X_pool, X_labeled=X, y_labeled=y)
    assert "start without" not in str(caught.value)
    assert "nn.Dropout()" in str(caught.value)


def test_a_critic_of_the_users_own_needs_no_net():
    """The function that the remedy speaks of is taken."""
    model = LogisticRegression().fit(X, y)
    assert len(WAAL(critic=lambda pool: pool[:, 0]).select(model, X_pool, 3).indices) == 3
