"""DynamicAL on the nets, labels and learners that it is given: what it serves, what it refuses, and no trace left."""

import pickle

import numpy as np
import oracles_dynamical as oracle
import pytest
import torch
import zoo
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

import modal_ntk
from modal_ntk import DynamicAL, dynamical
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, UnknownNameError, UnmetNeedError

X, y = zoo.blobs(n=48)
LABELED = {"X_labeled": X[:8], "y_labeled": y[:8]}
BATCHES = ["top", "greedy", "de_influence"]


@pytest.fixture
def net():
    return zoo.net().fit(X[:8], y[:8])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("method", ["factored", "explicit"])
def test_a_net_is_left_as_found(net, batch, method):
    """Weights, statistics, modes, flags, gradients, hooks, global generators, samples: all as before."""
    net.module_.train()
    net.module_.head.weight.grad = torch.ones_like(net.module_.head.weight)
    before, pool = zoo.state_of(net.module_), X[8:].copy()
    with zoo.generators_untouched():
        strategy = DynamicAL(batch=batch, method=method, sub_batch=3, parameters="head")
        strategy.select(net, pool, 7, **LABELED)
    zoo.assert_same_state(before, zoo.state_of(net.module_))
    np.testing.assert_array_equal(pool, X[8:])


@pytest.mark.parametrize("output", ["softmax", "log_softmax"])
def test_nets_that_return_probabilities(output):
    """A net that returns probabilities or their logarithms scores as the same net returning logits."""
    plain = zoo.net().fit(X[:8], y[:8])
    other = zoo.net(module__output=output, criterion=nn.NLLLoss).initialize()
    other.module_.load_state_dict(plain.module_.state_dict())
    a, b = (DynamicAL(random_state=0).select(n, X[8:], 40, **LABELED) for n in (plain, other))
    np.testing.assert_allclose(a.scores[np.argsort(a.indices)], b.scores[np.argsort(b.indices)], rtol=1e-3, atol=1e-4)


def test_a_net_with_one_logit():
    """One logit z means two classes with logits (0, z)."""
    labels = (y[:8] > 0).astype(np.float32)
    net = NeuralNetClassifier(
        zoo.OneLogit, criterion=nn.BCEWithLogitsLoss, classes=[0, 1], train_split=None, max_epochs=1, verbose=0
    ).fit(X[:8], labels)

    class Two(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            z = self.inner(x).reshape(-1)
            return torch.stack([torch.zeros_like(z), z], 1)

    selected = DynamicAL().select(net, X[8:], 5, X_labeled=X[:8], y_labeled=labels)
    module = Two(net.module_)
    pool, labeled = (
        oracle.gradients(module, torch.from_numpy(part), known)[0] for part, known in ((X[8:], None), (X[:8], labels))
    )
    np.testing.assert_allclose(selected.scores, np.sort(oracle.scores(pool, labeled))[::-1][:5], rtol=1e-3)


def test_classes_not_seen_yet_keep_their_columns():
    """A skorch net that has seen labels 0 and 2 alone still has class 2 in the third column."""
    rows = np.flatnonzero(y != 1)[:6]
    net = zoo.net(classes=None).fit(X[rows], y[rows])
    pool = np.delete(X, rows, axis=0)
    selected = DynamicAL().select(net, pool, 5, X_labeled=X[rows], y_labeled=y[rows])
    labeled = oracle.gradients(net.module_, torch.from_numpy(X[rows]), y[rows])[0]
    np.testing.assert_allclose(selected.info["dynamics"], oracle.dynamics(labeled), rtol=1e-4)


def test_string_labels_go_by_the_nets_classes(net):
    """Labels that are names count in the order of classes_."""
    names = np.array(["ant", "bee", "cat"])
    plain = DynamicAL(random_state=0).select(net, X[8:], 5, **LABELED)
    net.classes = names.tolist()
    named = DynamicAL(random_state=0).select(net, X[8:], 5, X_labeled=X[:8], y_labeled=names[y[:8]])
    np.testing.assert_array_equal(plain.indices, named.indices)
    with pytest.raises(InvalidInputError, match="belong to the net's 3 outputs"):
        DynamicAL().select(net, X[8:], 5, X_labeled=X[:8], y_labeled=np.array(["dog"] * 8))


@pytest.mark.parametrize("batch", BATCHES)
def test_learners_searches_and_copies(active_learner, batch):
    """Works through both learners; clones, prints and pickles; the same seed gives the same query."""
    strategy = DynamicAL(batch=batch, sub_batch=2, random_state=0)
    learner = active_learner(zoo.net(), strategy, X[:8], y[:8])
    indices, samples = learner.query(X[8:], n_instances=5)
    assert len(set(indices.tolist())) == 5
    np.testing.assert_array_equal(samples, X[8:][indices])
    for other in (clone(strategy), pickle.loads(pickle.dumps(strategy))):
        np.testing.assert_array_equal(other.select(learner, X[8:], 5).indices, indices)
    learner.teach(samples, y[8:][indices])
    assert "DynamicAL(" in repr(strategy)


def test_grid_search_and_continued_training():
    """A search reaches the parameters inside the simulation; rounds continue from the old weights if asked."""
    simulation = SimulatedActiveLearning(
        zoo.net(), DynamicAL(), n_initial=8, batch_size=4, n_rounds=1, reinitialise=False, random_state=0
    )
    search = GridSearchCV(simulation, {"query_strategy__batch": ["top", "greedy"]}, cv=2).fit(X, y)
    assert search.best_params_["query_strategy__batch"] in BATCHES


def test_the_ready_made_instance_is_the_papers():
    """`dynamical` has the paper's defaults and is what the name gives."""
    assert dynamical.get_params() == DynamicAL().get_params()
    assert isinstance(modal_ntk.get_strategy("dynamical"), DynamicAL)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"batch": "best"}, InvalidInputError, "batch"),
        ({"loss": "hinge"}, InvalidInputError, "loss"),
        ({"method": "slow"}, InvalidInputError, "method"),
        ({"sub_batch": 0}, InvalidInputError, "sub_batch"),
        ({"influence": -1.0}, InvalidInputError, "influence"),
        ({"memory_budget": 0}, InvalidInputError, "memory_budget"),
        ({"parameters": "tail"}, UnknownNameError, "trainable parameter"),
    ],
)
def test_bad_parameters_are_named(net, parameters, error, message):
    """A parameter that cannot be used is refused by name."""
    with pytest.raises(error, match=message):
        DynamicAL(**parameters).select(net, X[8:], 3, **LABELED)


def test_needs_labels_and_a_fitted_net(net):
    """Without labels there is no dynamics to add to; without a net there are no gradients."""
    with pytest.raises(UnmetNeedError, match="labels"):
        DynamicAL().select(net, X, 3)
    with pytest.raises(UnmetNeedError, match="gradients"):
        DynamicAL().select(zoo.net(), X[8:], 3, **LABELED)


class Split(nn.Module):
    # A net with inputs a and b, given as one tensor.
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(a=x[:, :3], b=x[:, 3:])


@pytest.mark.parametrize("batch", BATCHES)
def test_samples_of_several_named_inputs(batch):
    """Pools that are dicts of arguments score as the same net given one tensor."""
    named = {"a": X[:, :3], "b": X[:, 3:]}
    net = zoo.net(zoo.DictNet).fit({k: v[:8] for k, v in named.items()}, y[:8])
    pool, labeled = ({k: v[rows] for k, v in named.items()} for rows in (slice(8, None), slice(8)))
    strategy = DynamicAL(batch=batch, sub_batch=2)
    selected = strategy.select(net, pool, 6, X_labeled=labeled, y_labeled=y[:8])
    joined = strategy.select(zoo.net(Split, module__inner=net.module_).initialize(), X[8:], 6, **LABELED)
    np.testing.assert_array_equal(selected.indices, joined.indices)
    np.testing.assert_allclose(selected.scores, joined.scores, rtol=1e-4)


class Halves(NeuralNetClassifier):
    # Reads each sample as a list of two inputs.
    def get_iterator(self, dataset, training=False):
        return [(list(x.split(3, dim=1)), labels) for x, labels in super().get_iterator(dataset, training)]


class Listed(nn.Module):
    # Takes its inputs in a list.
    def __init__(self):
        super().__init__()
        self.inner = zoo.DictNet()

    def forward(self, parts):
        return self.inner(a=parts[0], b=parts[1])


def test_samples_of_several_nameless_inputs_are_refused():
    """Inputs without names are refused, even where the net reads them; by name, as the message says, they pass."""
    net = Halves(Listed, criterion=nn.CrossEntropyLoss, classes=[0, 1, 2], verbose=0).initialize()
    assert net.predict_proba(X[8:]).shape == (40, 3)
    with pytest.raises(InvalidInputError, match=r"several by name, got list.* pass a dict"):
        DynamicAL().select(net, X[8:], 2, **LABELED)
    pool, labeled = ({"a": X[rows, :3], "b": X[rows, 3:]} for rows in (slice(8, None), slice(8)))
    chosen = DynamicAL().select(zoo.net(zoo.DictNet).initialize(), pool, 2, X_labeled=labeled, y_labeled=y[:8])
    assert len(chosen.indices) == 2
