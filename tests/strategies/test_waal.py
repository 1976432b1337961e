"""WAAL's query against its formula."""

import numpy as np
import oracles_waal as oracle
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier

import modal_ntk
from modal_ntk import WAAL, Entropy
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.nets import NetView, WAALClassifier, seeded
from modal_ntk.testing.traces import watched

X, y = zoo.blobs()
X_known, y_known, X_pool = X[:12], y[:12], X[12:]

P = np.array([[0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
G = np.array([0.50, 0.58, 0.49])
W1 = {
    False: ([-3.828297, -4.417690, -3.860279], [1, 2, 0]),
    True: ([-3.761911, -4.391828, -3.716724], [1, 0, 2]),
}
ROWS = arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(2, 4)), elements=st.floats(0, 1))


class Table(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are the samples themselves."""

    def __init__(self, n_classes=2):
        self.n_classes = n_classes

    def fit(self, X, y):
        self.classes_ = np.arange(self.n_classes)
        return self

    def predict_proba(self, X):
        return np.asarray(X)[:, : self.n_classes]

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


def trained(**options):
    settings = {"classes": [0, 1, 2], "max_epochs": 3, "batch_size": 16, "lr": 0.1, "verbose": 0}
    with seeded(0):
        return WAALClassifier(zoo.MLP(n_classes=8), **{**settings, **options}).fit(X_known, y_known, X_unlabeled=X_pool)


@pytest.mark.parametrize("official_code", [False, True])
def test_the_worked_example(official_code):
    """Three binary predictions with c = 10 give the scores and the order written down, in both forms."""
    scores, order = W1[official_code]
    strategy = WAAL(coefficient=10, critic=lambda rows: rows[:, 2], official_code=official_code, random_state=0)
    selected = strategy.select(Table().fit(None, None), np.column_stack([P, G]), 3)
    assert selected.indices.tolist() == order
    np.testing.assert_allclose(selected.scores, np.array(scores)[order], atol=1.2e-6, rtol=0)  # sums of rounded terms


def test_the_terms_of_the_worked_example():
    """Largest loss, sum and length of the losses of the three predictions are those written down."""
    log_p = torch.from_numpy(P).log()
    for options, expected in (
        ({"mixture": 1.0}, [0.916291, 1.203973, 0.693147]),
        ({"mixture": 0.0}, [1.427116, 1.560648, 1.386294]),
        ({"mixture": 1.0, "official_code": True}, [1.049062, 1.255694, 0.980258]),
    ):
        np.testing.assert_allclose(WAAL(**options)._uncertainty(log_p).numpy(), expected, atol=5e-7)


@settings(deadline=None, max_examples=30)
@given(
    rows=arrays(np.float64, (9, 3), elements=st.floats(0.01, 1)),
    g=arrays(np.float64, 9, elements=st.sampled_from([0.0, 0.2, 0.7, 1.0])),
    coefficient=st.floats(0, 20),
)
def test_standardised_terms_have_one_spread(rows, g, coefficient):
    """Each term is divided by its deviation over the pool, one that is constant stays; a unit changes nothing."""
    p = rows / rows.sum(axis=1, keepdims=True)
    terms = np.array(oracle.score(p, np.zeros(9), 0.0)), g
    per, per_g = (np.std(term) if np.ptp(term) > 0 else 1 for term in terms)
    expected = terms[0] / per - coefficient * g / per_g
    model = Table(3).fit(None, None)
    options = {"standardise": True, "coefficient": coefficient, "random_state": 0}
    selected = WAAL(critic=lambda X: X[:, 3], **options).select(model, np.column_stack([p, g]), 9)
    np.testing.assert_allclose(selected.scores, expected[selected.indices], rtol=1e-6, atol=1e-6)
    assert selected.info["spread"] == pytest.approx({"uncertainty": np.std(terms[0]), "critic": np.std(g)})
    np.testing.assert_allclose(selected.info["critic"], g[selected.indices])


def test_a_constant_critic_orders_nothing():
    """Values of 0.1 for all have a deviation of 1e-17, by which nothing is divided: the order is the uncertainty's."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=7)
    model, pool = Table(3).fit(None, None), np.column_stack([p, np.full(7, 0.1)])
    picks = [
        WAAL(critic=lambda X: X[:, 3], standardise=True, coefficient=c, random_state=0).select(model, pool, 7)
        for c in (0, 10)
    ]
    assert picks[0].indices.tolist() == picks[1].indices.tolist()


@settings(deadline=None)
@given(
    rows=ROWS, mixture=st.floats(0, 1), coefficient=st.floats(0, 20), official=st.booleans(), seed=st.integers(0, 99)
)
def test_scores_follow_the_formula(rows, mixture, coefficient, official, seed):
    """Score and order are those of the formula for any probabilities, zeros included; smallest first."""
    rows = rows + 1e-3 * (np.arange(rows.shape[1]) == 0)
    p = rows / rows.sum(axis=1, keepdims=True)
    g = np.random.default_rng(seed).random(len(p))
    options = {"coefficient": coefficient, "mixture": mixture, "official_code": official}
    strategy = WAAL(critic=lambda X: X[:, -1], random_state=0, **options)
    selected = strategy.select(Table(p.shape[1]).fit(None, None), np.column_stack([p, g]), len(p))
    expected = np.array(oracle.score(p.tolist(), g.tolist(), coefficient, mixture, official))
    np.testing.assert_allclose(selected.scores, expected[selected.indices], rtol=1e-9, atol=1e-9)
    assert (np.diff(selected.scores) >= 0).all()
    parts = selected.info["uncertainty"] - coefficient * selected.info["critic"]
    np.testing.assert_allclose(parts, selected.scores, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(p=arrays(np.float64, 4, elements=st.floats(0.01, 1)))
def test_uncertainty_is_least_for_the_uniform_prediction(p):
    """No prediction over four classes scores below the uniform one, in either form."""
    log_p = torch.from_numpy(np.stack([p / p.sum(), np.full(4, 0.25)])).log()
    for official_code in (False, True):
        got, uniform = WAAL(official_code=official_code)._uncertainty(log_p)
        assert got >= uniform - 1e-12


def test_the_nets_own_critic_is_read():
    """Scores from the net are those of its probabilities and of its critic on its extractor's output."""
    net = trained()
    selected = WAAL(coefficient=3, random_state=0).select(net, X_pool, 48)
    net.module_.eval()
    net.critic_.eval()
    with torch.no_grad():
        g = net.critic_(net.module_.extractor(torch.from_numpy(X_pool))).double().numpy()
    expected = np.array(oracle.score(net.predict_proba(X_pool).tolist(), g.tolist(), 3.0))
    np.testing.assert_allclose(selected.scores, expected[selected.indices], atol=1e-4)
    np.testing.assert_allclose(selected.info["critic"], g[selected.indices], atol=1e-6)


def test_logits_are_used_as_they_are():
    """A certainty beyond what a probability can hold still gives its finite, exact loss."""
    net = trained()
    with torch.no_grad():
        for parameter in net.head_[-1].parameters():
            parameter.mul_(1e4)
    logits = NetView(net).logits(X_pool).double()
    expected = WAAL()._uncertainty(logits.log_softmax(1)).numpy()
    assert expected.max() > 200  # far beyond 3 * -log(1e-12)
    selected = WAAL(random_state=0).select(net, X_pool, 48)
    np.testing.assert_allclose(selected.info["uncertainty"], expected[selected.indices], rtol=1e-5)


def test_a_large_coefficient_follows_the_critic_and_zero_the_uncertainty():
    """The picks are the critic's largest values for c large, and the least losses for c = 0."""
    net = trained()
    ranked = WAAL(coefficient=1e9, random_state=0).select(net, X_pool, 6).info["critic"]
    everything = WAAL(random_state=0).select(net, X_pool, 48).info
    np.testing.assert_allclose(np.sort(ranked), np.sort(everything["critic"])[-6:], atol=1e-6)
    least = WAAL(coefficient=0, random_state=0).select(net, X_pool, 6).info["uncertainty"]
    np.testing.assert_allclose(least, np.sort(everything["uncertainty"])[:6], rtol=1e-5)


def test_binary_worst_label_is_least_confidence():
    """For two classes, mixture 1 and no critic the order is that of least confidence."""
    p = np.random.default_rng(0).dirichlet([1, 1], size=20)
    table = Table().fit(None, None)
    ours = WAAL(mixture=1.0, coefficient=0.0, critic=lambda X: X[:, 0], random_state=0).select(table, p, 20)
    theirs = modal_ntk.LeastConfidence(random_state=0).select(table, p, 20)
    np.testing.assert_array_equal(ours.indices, theirs.indices)


def test_the_pools_order_does_not_matter():
    """A permuted pool gives the same samples."""
    net, order = trained(), np.random.default_rng(0).permutation(48)
    picks = WAAL(random_state=0).select(net, X_pool, 6).indices
    permuted = WAAL(random_state=0).select(net, X_pool[order], 6).indices
    np.testing.assert_array_equal(order[permuted], picks)


def test_ties_are_broken_by_seed():
    """Among equal samples each is taken by some seed."""
    same, table = np.tile([0.4, 0.6], (5, 1)), Table().fit(None, None)
    strategy = WAAL(critic=lambda X: X[:, 0])
    firsts = {int(clone(strategy).set_params(random_state=s).select(table, same, 1).indices[0]) for s in range(40)}
    assert firsts == set(range(5))


def test_one_pass_through_the_net():
    """A query sends the pool through the net as often as entropy's does: once."""
    net = trained()
    passes = []
    for strategy in (WAAL(random_state=0), Entropy(random_state=0)):
        with watched(NetView(net).module) as watch:
            strategy.select(net, X_pool, 4)
        passes.append(watch.n_passes)
    assert passes[0] == passes[1]


def test_nothing_of_the_critic_is_changed():
    """Mode, gradients, flags, hooks and weights of the critic and of the module are as they were."""
    net = trained()
    for training in (True, False):
        net.critic_.train(training)
        before = zoo.state_of(net.critic_), zoo.state_of(net.module_)
        WAAL(random_state=0).select(net, X_pool, 4)
        zoo.assert_same_state(before[0], zoo.state_of(net.critic_))
        zoo.assert_same_state(before[1], zoo.state_of(net.module_))


@pytest.mark.parametrize("returned", ["array", "column", "tensor", "list"])
def test_a_critic_of_ones_own_over_any_classifier(returned):
    """A function that returns values in any form serves over any skorch net or other classifier."""
    forms = {
        "array": lambda v: v,
        "column": lambda v: v[:, None],
        "tensor": torch.from_numpy,
        "list": lambda v: v.tolist(),
    }
    critic = lambda X: forms[returned](np.asarray(X)[:, 0])  # noqa: E731
    picks = [
        WAAL(critic=critic, coefficient=1e6, random_state=0).select(model.fit(X_known, y_known), X_pool, 3).indices
        for model in (zoo.net(), RandomForestClassifier(5, random_state=0))
    ]
    for indices in picks:
        assert set(indices) == set(np.argsort(-X_pool[:, 0])[:3])


def test_a_net_without_a_critic_is_told_how_to_get_one():
    """An ordinary net, and one that never met unlabelled samples, are refused with the call that helps."""
    with pytest.warns(ModalNTKWarning):
        untrained = WAALClassifier(zoo.MLP, classes=[0, 1, 2], max_epochs=1, verbose=0).fit(X_known, y_known)
    for model in (zoo.net().fit(X_known, y_known), untrained):
        with pytest.raises(UnmetNeedError, match=r"teach\(X, y, X_unlabeled=X_pool\)"):
            WAAL().select(model, X_pool, 2)
        with pytest.raises(UnmetNeedError, match="trained critic"):
            NetView(model).logits_and_critic(X_pool)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficient": -1}, "coefficient to be a finite number of at least 0"),
        ({"mixture": 1.5}, "mixture to be a finite number between 0 and 1"),
        ({"mixture": True}, "mixture to be a finite number"),
        ({"critic": 3}, "critic to be callable or None, got 3"),
        ({"critic": lambda X: X[:3, 0]}, "48 finite values from the critic, got an array of shape"),
        ({"critic": lambda X: X[:, 0] * np.nan}, "with NaN or infinity"),
    ],
)
def test_unusable_parameters_are_named(options, message):
    """Each bad parameter is refused with what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        WAAL(**options).select(trained(), X_pool, 2)
