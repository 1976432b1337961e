"""DynamicAL against training dynamics written out gradient by gradient."""

import copy
import warnings

import numpy as np
import oracles_dynamical as oracle
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_kernels import nets
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import DynamicAL
from modal_ntk.errors import ModalNTKWarning

X, y = zoo.blobs(n=48)
LABELED = {"X_labeled": X[:8], "y_labeled": y[:8]}
BATCHES = ["top", "greedy", "de_influence"]


class Held(nn.Module):
    # Skorch builds modules from classes; this one holds a finished one.
    def __init__(self, module):
        super().__init__()
        self.inner = copy.deepcopy(module)

    def forward(self, x):
        return self.inner(x)


def learner_of(module, n_classes=3, **options):
    return zoo.net(Held, module__module=module, n_classes=n_classes, **options).initialize()


def given_problem(name, seed=0):
    torch.manual_seed(seed)
    module, x = nets()[name]
    module = module.double()
    if x.is_floating_point():
        x = torch.randn(3 * len(x), *x.shape[1:], dtype=torch.float64)
    else:
        x = torch.randint(int(x.max()) + 1, (3 * len(x), *x.shape[1:]))
    labels = torch.arange(5) % 3
    return module, x[:5], labels, x[5:]


@pytest.fixture
def net():
    return zoo.net().fit(X[:8], y[:8])


def problem_of(net, loss="cross_entropy", names=None):
    module = net.module_.double()
    pool, labels = oracle.gradients(module, torch.from_numpy(X[8:]), loss=loss, names=names)
    labeled, _ = oracle.gradients(module, torch.from_numpy(X[:8]), y[:8], loss=loss, names=names)
    return pool, labeled, labels


@pytest.mark.parametrize("method", ["factored", "explicit"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", ["mlp", "lenet", "conv_bn", "resnet", "shared", "embedding", "transformer"])
def test_scores_are_the_definition(name, loss, method):
    """|g|^2 + 2 g.G at the predicted class, on nets of every kind, with and without BackPACK."""
    module, x_labeled, labels, x_pool = given_problem(name)
    net = learner_of(module)
    strategy = DynamicAL(loss=loss, method=method, random_state=0)
    selected = strategy.select(net, x_pool, len(x_pool), X_labeled=x_labeled, y_labeled=labels)
    pool, predicted = oracle.gradients(module, x_pool, loss=loss)
    labeled, _ = oracle.gradients(module, x_labeled, labels, loss=loss)
    want = oracle.scores(pool, labeled)
    np.testing.assert_allclose(selected.scores, want[selected.indices], rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(selected.info["pseudo_labels"], predicted[selected.indices])
    np.testing.assert_allclose(selected.info["dynamics"], oracle.dynamics(labeled), rtol=1e-8)
    np.testing.assert_allclose(selected.info["dynamics_after"], oracle.dynamics(labeled, pool), rtol=1e-8)
    if method == "explicit":
        assert "factored" not in selected.info["routes"].values()


def worked_example():
    net = zoo.net(nn.Linear, module__in_features=2, module__out_features=2, module__bias=False, n_classes=2)
    net.initialize()
    nn.init.eye_(net.module_.weight)
    net.module_.double()
    pool = np.array([[0.5, 0.4], [2.0, -1.0], [0.1, 0.1]])
    return net, pool, {"X_labeled": np.eye(2), "y_labeled": np.array([0, 1])}


def test_worked_example():
    """A linear net with identity weights: scores, dynamics and pseudo-labels known by hand, a tie to class 0."""
    net, pool, labeled = worked_example()
    selected = DynamicAL().select(net, pool, 3, **labeled)
    assert selected.indices.tolist() == [0, 1, 2]
    np.testing.assert_allclose(selected.scores, [0.236130, 0.175550, 0.010000], atol=1e-6)
    np.testing.assert_allclose(selected.info["dynamics"], 0.289318, atol=1e-6)
    assert selected.info["pseudo_labels"].tolist() == [0, 0, 0]
    without = DynamicAL(influence=0.0).select(net, pool, 3, **labeled)
    np.testing.assert_allclose(without.scores, [0.185029, 0.022492, 0.010000], atol=1e-6)


def test_worked_example_gain_is_scores_plus_cross_term():
    """G(S u Q) - G(S) is the sum of the scores plus twice the product inside the batch; greedy's scores hold it."""
    net, pool, labeled = worked_example()
    top = DynamicAL().select(net, pool, 2, **labeled)
    gain = top.info["dynamics_after"] - top.info["dynamics"]
    np.testing.assert_allclose(
        [gain, top.scores.sum(), gain - top.scores.sum()], [0.465747, 0.411679, 0.054068], atol=2e-6
    )
    greedy = DynamicAL(batch="greedy").select(net, pool, 2, **labeled)
    np.testing.assert_allclose(greedy.scores.sum(), gain, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), loss=st.sampled_from(["cross_entropy", "mse"]), b=st.integers(1, 12))
def test_gain_is_scores_plus_all_ordered_cross_terms(seed, loss, b):
    """For any net, pool and batch: the gain is the sum of scores plus the products of all ordered pairs in it."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(18, 4, dtype=torch.float64)
    labels = torch.arange(6) % 3
    for batch in ("top", "greedy"):
        strategy = DynamicAL(loss=loss, batch=batch, random_state=0)
        selected = strategy.select(learner_of(module), x[6:], b, X_labeled=x[:6], y_labeled=labels)
        gain = selected.info["dynamics_after"] - selected.info["dynamics"]
        chosen = oracle.gradients(module, x[6:][selected.indices], loss=loss)[0]
        products = chosen @ chosen.T
        cross = products.sum() - np.trace(products) if batch == "top" else 0.0
        np.testing.assert_allclose(selected.scores.sum() + cross, gain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("budget", [2**30, 2000])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_greedy_is_the_exact_greedy_batch(net, loss, budget):
    """Picks and gains are those of recomputing the dynamics for every candidate, by kernel and by passes."""
    pool, labeled, _ = problem_of(net, loss)
    picks, gains = oracle.greedy(pool, labeled, 7)
    selected = DynamicAL(batch="greedy", loss=loss, memory_budget=budget).select(net, X[8:], 7, **LABELED)
    assert selected.indices.tolist() == picks
    np.testing.assert_allclose(selected.scores, gains, rtol=1e-7)
    assert selected.info["products"] == ("kernel" if budget > 2000 else "passes")


@pytest.mark.parametrize("budget", [2**30, 2000])
@pytest.mark.parametrize(("n", "size"), [(9, 3), (7, 3), (4, 10), (5, 1)])
def test_de_influence_is_the_authors_rule(net, n, size, budget):
    """Sub-batches in turn, each score less its product with the mean gradients of the earlier ones."""
    pool, labeled, _ = problem_of(net)
    picks, values = oracle.de_influence(pool, labeled, n, size)
    strategy = DynamicAL(batch="de_influence", sub_batch=size, memory_budget=budget)
    selected = strategy.select(net, X[8:], n, **LABELED)
    assert selected.indices.tolist() == picks
    np.testing.assert_allclose(selected.scores, values, rtol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_no_batch_beats_the_optimum_and_first_picks_agree(seed):
    """On tiny pools enumeration bounds all batches; of one sample all three are the optimum."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(14, 4, dtype=torch.float64)
    labels = torch.arange(4) % 3
    pool, labeled = oracle.gradients(module, x[4:])[0], oracle.gradients(module, x[:4], labels)[0]
    for n in (1, 4):
        best = oracle.dynamics(labeled, pool[list(oracle.optimum(pool, labeled, n))])
        for batch in BATCHES:
            strategy = DynamicAL(batch=batch, sub_batch=2)
            selected = strategy.select(learner_of(module), x[4:], n, X_labeled=x[:4], y_labeled=labels)
            assert selected.info["dynamics_after"] <= best * (1 + 1e-10)
            if n == 1:
                np.testing.assert_allclose(selected.info["dynamics_after"], best)


@pytest.mark.parametrize("names", ["head", ["head.weight", "norm"]])
def test_a_subset_of_parameters(net, names):
    """Only the named parameters' gradients count, by the names of parameters or of their modules."""
    held = {"head": ["head.weight", "head.bias"]}.get(str(names), ["head.weight", "norm.weight", "norm.bias"])
    pool, labeled, _ = problem_of(net, names=held)
    selected = DynamicAL(parameters=names).select(net, X[8:], 5, **LABELED)
    np.testing.assert_allclose(selected.scores, np.sort(oracle.scores(pool, labeled))[::-1][:5], rtol=1e-7)
    assert all(p.requires_grad for p in net.module_.parameters())


@pytest.mark.parametrize("batch", BATCHES)
def test_a_permuted_pool_gives_the_same_samples(net, batch):
    """Which samples are chosen does not depend on the pool's order, nor on the batch that the net reads it in."""
    net.module_.double()
    order = np.random.default_rng(0).permutation(40)
    strategy = DynamicAL(batch=batch, sub_batch=2, random_state=0)
    plain = strategy.select(net, X[8:], 6, **LABELED)
    net.batch_size = 7
    moved = strategy.select(net, X[8:][order], 6, **LABELED)
    np.testing.assert_array_equal(order[moved.indices], plain.indices)
    np.testing.assert_allclose(moved.scores, plain.scores, rtol=1e-9)


def test_copies_score_alike_and_the_seed_orders_them(net):
    """Duplicates of a sample have its score; which of them is taken follows the seed alone."""
    twice = np.concatenate([X[8:9]] * 30)
    chosen = [DynamicAL(random_state=s).select(net, twice, 3, **LABELED).indices.tolist() for s in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    scores = DynamicAL(random_state=0).select(net, twice, 30, **LABELED).scores
    np.testing.assert_allclose(scores, scores[0], rtol=1e-5)


@pytest.mark.parametrize("copies", [2, 5])
def test_a_labelled_set_repeated_weighs_as_much_more(net, copies):
    """The labelled gradient is a sum: k copies of the set multiply the score's second part by k."""
    net.module_.double()
    own, once = (DynamicAL(influence=i).select(net, X[8:], 40, **LABELED) for i in (0.0, 2.0))
    more = DynamicAL().select(net, X[8:], 40, X_labeled=np.tile(X[:8], (copies, 1)), y_labeled=np.tile(y[:8], copies))
    a, b, c = (s.scores[np.argsort(s.indices)] for s in (own, once, more))
    np.testing.assert_allclose(c - a, copies * (b - a), rtol=1e-6, atol=1e-9)


def test_float32_and_float64_agree(net):
    """A float32 net's scores are the float64 oracle's to single precision."""
    selected = DynamicAL().select(net, X[8:], 40, **LABELED)
    pool, labeled, _ = problem_of(net)
    np.testing.assert_allclose(selected.scores, oracle.scores(pool, labeled)[selected.indices], rtol=1e-3, atol=1e-4)


def linear(scale):
    """A net whose logits are `scale` times the samples."""
    net = NeuralNetClassifier(
        torch.nn.Linear(2, 2, bias=False), criterion=torch.nn.CrossEntropyLoss, classes=[0, 1]
    ).initialize()
    with torch.no_grad():
        net.module_.weight.copy_(scale * torch.eye(2))
    return net


def test_a_labelled_gradient_that_ranks_alone_is_told():
    """Where labels are learnt and products alone order the pool it warns; settled, or without influence, not."""
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(40, 2)).astype("float32")
    known = {"X_labeled": np.tile([[1.0, 0.2]], (50, 1)).astype("float32"), "y_labeled": [0] * 50}
    with pytest.warns(ModalNTKWarning, match=r"ranks the pool alone .*influence=0"):
        noisy = DynamicAL().select(linear(1.0), pool, 40, **known)
    own = DynamicAL(influence=0).select(linear(1.0), pool, 40, **known)
    order = np.argsort(own.indices)
    cross = noisy.scores[np.argsort(noisy.indices)] - own.scores[order]  # what the labelled set adds to every score
    expected = np.corrcoef(noisy.scores[np.argsort(noisy.indices)], cross)[0, 1]
    assert noisy.info["influence_correlation"] == pytest.approx(expected, abs=1e-4)
    assert expected > 0.99
    assert own.info["influence_correlation"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settled = DynamicAL().select(linear(20.0), pool, 5, **known)
        DynamicAL(influence=0).select(linear(1.0), pool, 5, **known)
        wrong = DynamicAL().select(linear(1.0), pool, 5, X_labeled=known["X_labeled"], y_labeled=[1] * 50)
    assert settled.info["influence_correlation"] < 0.99
    assert wrong.info["influence_correlation"] > 0.99  # nothing is learnt yet, so the gradient says where to go
