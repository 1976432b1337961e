"""DDAL end to end: the whole against a dense float64 replay, and every source its graph may have."""

import pickle

import numpy as np
import oracles_diffusion as oracle
import pytest
import scipy.sparse as sp
import torch
import zoo
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import kneighbors_graph

from modal_ntk import DDAL
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.selection.ahead.diffused import CRITERIA

X, y = zoo.blobs()
LABELED = {"X_labeled": X[:12], "y_labeled": y[:12]}
POOL = X[12:]


def scores_of(M, n_steps, name, n_classes=3):
    mode = "one_vs_all" if name in ("min", "norm") else "multivariate"
    values = oracle.dense_diffusion(M, np.arange(12), y[:12], n_classes, n_steps, mode)
    return np.array([oracle.criterion(row, name) for row in values[12:].tolist()])


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("source", ["embedding", "input", "hidden", "callable", "affinity"])
def test_picks_are_those_of_the_dense_float64_replay(name, source):
    """From a net's embedding, samples, a layer, a function or an affinity, a round takes the smallest of equation 6."""
    net = zoo.net().fit(X[:12], y[:12])
    rows = X
    options = {"features": source}
    if source in ("embedding", "hidden"):
        module = net.module_.eval()
        with torch.no_grad():
            hidden = module.hidden(torch.from_numpy(X))
            rows = (hidden if source == "hidden" else torch.relu(module.norm(hidden))).numpy()
        module.train()
    elif source == "callable":
        rows = X**2
        options = {"features": lambda samples: samples**2}
    M = oracle.dense_transition(rows, 5, symmetrise="max")
    if source == "affinity":
        M = oracle.dense_transition(rows, 5)  # taken as it is, symmetric or not
        options = {"affinity": sp.csr_matrix(3 * M)}
    options |= {"n_neighbors": 5, "n_steps": 2, "criterion": name, "per_round": None}
    selected = DDAL(random_state=0, **options).select(net, POOL, 8, **LABELED)
    expected = scores_of(M, 2, name)
    np.testing.assert_allclose(selected.scores, expected[selected.indices], atol=1e-5)
    np.testing.assert_allclose(np.sort(selected.scores), np.sort(expected)[:8], atol=1e-5)
    assert selected.info["features"] == source


def test_two_classes_one_vs_all_is_the_multivariate_margin():
    """For C=2 the criterion of the paper and the margin of its multivariate variant make one choice."""
    labels = y[:12] % 2
    picks = [
        DDAL(n_steps=2, n_neighbors=4, criterion=name, random_state=0).select(
            None, POOL.astype(np.float64), 20, X_labeled=X[:12].astype(np.float64), y_labeled=labels
        )
        for name in ("min", "margin")
    ]
    np.testing.assert_allclose(picks[0].scores, picks[1].scores, atol=1e-12)
    zero = picks[0].scores == 0
    np.testing.assert_array_equal(np.sort(picks[0].indices[zero]), np.sort(picks[1].indices[zero]))


def test_a_whole_run_explores_then_refines():
    """Queries begin exploring, reach more rows each time, and refine once every row is reached."""
    samples, labels = zoo.blobs(n=300, d=2, n_classes=4, seed=3)
    strategy = DDAL(n_neighbors=8, random_state=0)
    known, stages = np.arange(4), []
    for _ in range(12):
        pool = np.setdiff1d(np.arange(300), known)
        selected = strategy.select(None, samples[pool], 5, X_labeled=samples[known], y_labeled=labels[known])
        stages.append((selected.info["stage"], selected.info["n_unreached"]))
        known = np.concatenate([known, pool[selected.indices]])
    unreached = [n for _, n in stages]
    assert unreached == sorted(unreached, reverse=True)
    assert stages[-1] == ("refining", 0)
    assert [stage for stage, _ in stages] == ["exploring" if n else "refining" for n in unreached]


def test_the_graph_is_reused_while_features_stay_and_only_then():
    """Rows that move from pool to training set keep the graph; a changed net, or one row less, makes a new one."""
    strategy = DDAL(random_state=0, features="input")
    first = strategy.select(None, POOL, 4, **LABELED)
    known = np.concatenate([np.arange(12), 12 + first.indices])
    rest = np.setdiff1d(np.arange(60), known)
    moved = {"X_labeled": X[known], "y_labeled": y[known]}
    second = strategy.select(None, X[rest], 4, **moved)
    fresh = clone(strategy).select(None, X[rest], 4, **moved)
    assert (first.info["graph_reused"], second.info["graph_reused"]) == (False, True)
    np.testing.assert_array_equal(second.indices, fresh.indices)
    np.testing.assert_array_equal(second.scores, fresh.scores)
    assert second.info["hops"] == fresh.info["hops"]
    assert not strategy.select(None, X[rest][1:], 4, **moved).info["graph_reused"]
    assert not strategy.set_params(n_neighbors=7).select(None, X[rest][1:], 4, **moved).info["graph_reused"]
    assert not strategy.set_params(reuse_graph=False).select(None, X[rest][1:], 4, **moved).info["graph_reused"]
    net = zoo.net().fit(X[:12], y[:12])
    trained = DDAL(random_state=0)
    assert [trained.select(net, POOL, 2, **LABELED).info["graph_reused"] for _ in range(2)] == [False, True]
    net.partial_fit(X[:12], y[:12])
    assert not trained.select(net, POOL, 2, **LABELED).info["graph_reused"]


def test_a_pickle_leaves_the_graph_behind():
    """What was remembered is not written, and picks after loading are the same."""
    strategy = DDAL(random_state=0)
    before = len(pickle.dumps(strategy))
    picks = strategy.select(None, POOL, 4, **LABELED).indices
    strategy.__dict__.pop("last_selection_", None)
    assert len(pickle.dumps(strategy)) == before
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(strategy)).select(None, POOL, 4, **LABELED).indices, picks)


@pytest.mark.parametrize("estimator", [None, KMeans(2), zoo.net()], ids=["none", "no classifier", "unfitted net"])
def test_features_alone_suffice(estimator):
    """Without a fitted net the samples are the graph's rows, whatever the estimator."""
    selected = DDAL(random_state=0).select(estimator, POOL, 5, **LABELED)
    assert selected.info["features"] == "input"
    assert len(set(selected.indices.tolist())) == 5


def test_without_labels_the_choice_is_random():
    """No label reaches anything: the first score is zero, all are unreached, every row comes first by some seed."""
    picks = [DDAL(random_state=s).select(None, X[:15], 3) for s in range(80)]
    assert {int(selected.indices[0]) for selected in picks} == set(range(15))
    assert all(selected.scores[0] == 0 for selected in picks)
    assert picks[0].info["n_unreached"] == 15


def test_a_pool_of_one_row_is_chosen():
    """The last sample is handed out, with or without labels beside it."""
    with pytest.warns(ModalNTKWarning, match="n_neighbors lowered from 10 to 0, for 1 rows"):
        assert DDAL().select(None, X[:1]).indices.tolist() == [0]
    with pytest.warns(ModalNTKWarning, match="lowered from 10 to 1"):
        assert DDAL().select(None, X[:1], X_labeled=X[1:2], y_labeled=[0]).indices.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "sizes"), [({}, [1] * 8), ({"per_round": 3}, [3, 3, 2]), ({"per_round": None}, [8])]
)
def test_the_oracle_is_asked_by_pool_index_and_its_answers_are_handed_back(options, sizes):
    """Answers are asked for after every round, the last too, whatever the rounds; labels may be strings."""
    names, asked = np.array(["ant", "bee", "cat"])[y], []

    def oracle_(indices):
        asked.append(indices.tolist())
        return names[12:][indices]

    selected = DDAL(oracle=oracle_, random_state=0, **options).select(
        None, POOL, 8, X_labeled=X[:12], y_labeled=names[:12]
    )
    assert [len(call) for call in asked] == sizes
    assert [i for call in asked for i in call] == selected.indices.tolist()
    assert selected.info["labels"] == names[12:][selected.indices].tolist()
    assert selected.info["n_rounds"] == len(sizes)


def test_the_default_diffuses_anew_after_every_pick():
    """The paper's P is one, and guesses stand for answers: as many rounds as picks, and no labels handed back."""
    selected = DDAL(random_state=0).select(None, POOL, 5, **LABELED)
    assert (DDAL().per_round, selected.info["n_rounds"], "labels" in selected.info) == (1, 5, False)


def test_a_label_on_an_outlier_informs_its_neighbours():
    """A labelled row that no other row lists reaches rows by edges made symmetric, and none along lists alone."""
    far = np.concatenate([np.random.default_rng(1).normal(size=(50, 2)), [[30.0, 30.0]]])
    given = {"X_labeled": far[50:], "y_labeled": [0]}
    reached = {
        symmetrise: 50 - DDAL(symmetrise=symmetrise, random_state=0).select(None, far[:50], **given).info["n_unreached"]
        for symmetrise in ("max", "mean", None)
    }
    assert reached["max"] == reached["mean"] > 20
    assert reached[None] == 0
    assert DDAL().symmetrise == "max"


def test_an_affinity_may_be_a_function_of_the_samples():
    """Where samples are row numbers, a callable picks its part of a graph over all data."""
    whole = kneighbors_graph(X, 6)
    ids = np.arange(60)[:, None]
    strategy = DDAL(affinity=lambda rows: whole[rows[:, 0]][:, rows[:, 0]], n_steps=2, random_state=0)
    selected = strategy.select(None, ids[12:], 5, X_labeled=ids[:12], y_labeled=y[:12])
    direct = DDAL(affinity=whole, n_steps=2, random_state=0).select(None, POOL, 5, **LABELED)
    np.testing.assert_array_equal(selected.indices, direct.indices)


def test_steps_default_to_the_papers_rule_and_may_run_to_a_tolerance():
    """60 rows and K=10 give two steps; an own graph counts its mean degree; a tolerance has a limit of 1,000."""
    assert DDAL(random_state=0).select(None, POOL, 1, **LABELED).info["n_steps"] == 2
    assert DDAL(affinity=kneighbors_graph(X, 3)).select(None, POOL, 1, **LABELED).info["n_steps"] == 4
    converged = DDAL(affinity=np.ones((60, 60)), tol=1e-6, random_state=0).select(None, POOL, 1, **LABELED)
    assert converged.info["n_steps"] == 1000


def test_it_runs_in_both_learners(active_learner):
    """modAL's learner and ours query and teach with it."""
    learner = active_learner(zoo.net(), DDAL(random_state=0), X[:12], y[:12])
    for _ in range(2):
        indices, samples = learner.query(POOL, n_instances=3)
        learner.teach(samples, y[12:][indices])
    assert learner.X_training.shape == (18, 6)


def test_its_parameters_can_be_searched():
    """A grid over the criterion and K reaches the strategy inside a simulation."""
    simulation = SimulatedActiveLearning(zoo.net(), DDAL(), n_initial=6, batch_size=4, n_rounds=1, random_state=0)
    grid = {"query_strategy__criterion": ["min", "entropy"], "query_strategy__n_neighbors": [4]}
    search = GridSearchCV(simulation, grid, cv=2).fit(X, y)
    assert search.best_params_["query_strategy__n_neighbors"] == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_neighbors": 0}, InvalidInputError, "n_neighbors to be an integer of at least 1"),
        ({"n_steps": 1.5}, InvalidInputError, "n_steps to be an integer of at least 1 or None"),
        ({"tol": 0}, InvalidInputError, "tol to be a finite number above zero"),
        ({"criterion": "least"}, InvalidInputError, "criterion to be one of 'entropy', 'margin'"),
        ({"norm_order": 0.5}, InvalidInputError, "norm_order to be a number of at least 1, got 0.5"),
        ({"per_round": 0}, InvalidInputError, "per_round to be an integer"),
        ({"oracle": 3}, InvalidInputError, "oracle to be callable or None, got 3"),
        ({"tie_break": "first"}, InvalidInputError, "tie_break to be one of"),
        ({"similarity": "rbf"}, InvalidInputError, "similarity to be one of"),
        ({"symmetrise": True}, InvalidInputError, "symmetrise to be one of"),
        ({"search": "tree"}, InvalidInputError, "search to be one of"),
        ({"features": 3}, InvalidInputError, "features to be a string or callable"),
        ({"n_classes": 0}, InvalidInputError, "n_classes to be an integer"),
        ({"affinity": np.eye(5)}, InvalidInputError, r"affinity matrix of shape \(60, 60\), got one of shape \(5, 5\)"),
        ({"features": "embedding"}, UnmetNeedError, "embedding"),
        ({"features": "hidden"}, UnmetNeedError, "embedding"),
    ],
)
def test_bad_parameters_are_explained(options, error, message):
    """Each bad parameter is an error that says what was expected."""
    with pytest.raises(error, match=message):
        DDAL(**options).select(None, POOL, 2, **LABELED)
