"""Several labels for one sample: strategies choose by each label's own probability, or refuse in words."""

import copy

import numpy as np
import pytest
import torch
import zoo
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

import modal_ntk
from modal_ntk import ActiveLearner, Entropy, LeastConfidence, Margin
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.checks import check_labels
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.nets import MultiLabelNet, NetView
from modal_ntk.strategies.base import MULTILABEL

X, _ = zoo.blobs()
Y = np.stack([X[:, 0] > 0, X[:, 1] > 1, X[:, 2] > -1, X[:, 0] + X[:, 3] > 0], axis=1).astype(int)
MEASURES = {
    Entropy: lambda p: -(p * np.log(p) + (1 - p) * np.log(1 - p)),
    Margin: lambda p: -np.abs(2 * p - 1),
    LeastConfidence: lambda p: 1 - np.maximum(p, 1 - p),
}


def net(kind=NeuralNet, **options):
    return zoo.net(kind=kind, module__n_classes=4, criterion=nn.BCEWithLogitsLoss, **options)


def fitted(kind=NeuralNet):
    torch.manual_seed(0)
    return ActiveLearner(net(kind), Entropy(random_state=0), X[:20], Y[:20])


@pytest.mark.parametrize("over", ["mean", "max"])
@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", [NeuralNet, NeuralNetClassifier])
def test_uncertainty_is_of_each_label(measure, over, kind):
    """Scores are the measure of every label's two probabilities, averaged over labels or the largest."""
    learner = fitted(kind)
    with torch.no_grad():
        p = learner.estimator.module_.eval()(torch.from_numpy(X[20:])).double().sigmoid().numpy()
    want = getattr(MEASURES[measure](p), over)(axis=1)
    got = measure(over_labels=over, random_state=0).select(learner, X[20:], 5)
    assert got.indices.tolist() == np.argsort(-want)[:5].tolist()
    np.testing.assert_allclose(got.scores, np.sort(want)[::-1][:5], rtol=1e-5)


def test_badge_takes_gradients_under_thresholded_labels():
    """The residual of each label is p - [p > 1/2], times the penultimate activations: the first pick is the longest."""
    learner = fitted()
    view = NetView(learner)
    p, h = view.label_probabilities(X[20:]).numpy(), view.embeddings(X[20:]).double().numpy()
    gradients = ((p - (p > 0.5))[:, :, None] * h[:, None, :]).reshape(len(p), -1)
    assert modal_ntk.BADGE(random_state=0).select(learner, X[20:], 3).indices[0] == (gradients**2).sum(1).argmax()


class TestDynamicAL:
    @staticmethod
    def gradients(learner, rows, labels):
        """The gradient of every sample's summed binary cross-entropy, in double precision, one backward pass each."""
        module = copy.deepcopy(learner.estimator.module_).double().eval()
        out = []
        for x, y in zip(torch.from_numpy(rows).double(), torch.as_tensor(labels).double(), strict=True):
            loss = nn.functional.binary_cross_entropy_with_logits(module(x[None])[0], y, reduction="sum")
            out.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]).numpy())
        return np.stack(out)

    @pytest.mark.parametrize("method", ["factored", "explicit"])
    @pytest.mark.parametrize("batch", ["top", "greedy", "de_influence"])
    def test_takes_gradients_under_thresholded_labels(self, method, batch):
        """Scores are |g|^2 + 2 g.G with g the gradient at the labels more probable than not, and G the labelled sum."""
        learner = fitted()
        p = NetView(learner).label_probabilities(X[20:]).numpy()
        guessed = (p > 0.5).astype(int)
        g, known = self.gradients(learner, X[20:], guessed), self.gradients(learner, X[:20], Y[:20]).sum(0)
        scores, want, values = (g**2).sum(1) + 2 * g @ known, [], []
        size = {"top": 6, "greedy": 1, "de_influence": 2}[batch]
        while len(want) < 6:
            chosen = np.argsort(-scores, kind="stable")[:size]
            want += chosen.tolist()
            values += scores[chosen].tolist()
            scores = scores + (2 * g @ g[chosen].sum(0) if batch == "greedy" else -(g @ g[chosen].mean(0)))
            scores[want] = -np.inf
        strategy = modal_ntk.DynamicAL(batch=batch, sub_batch=2, method=method, random_state=0)
        got = strategy.select(learner, X[20:], 6)
        assert got.indices.tolist() == want
        np.testing.assert_allclose(got.scores, values, rtol=1e-4)
        np.testing.assert_array_equal(got.info["pseudo_labels"], guessed[want])
        assert got.info["dynamics"] == pytest.approx((known**2).sum(), rel=1e-4)
        assert got.info["dynamics_after"] == pytest.approx(((known + g[want].sum(0)) ** 2).sum(), rel=1e-4)

    def test_of_a_net_with_its_own_probabilities(self):
        """A net that ends in sigmoids and is trained by BCELoss has the gradients of its logits' loss."""
        logits = nn.Linear(6, 4)
        known = {"X_labeled": X[:20], "y_labeled": Y[:20]}
        one = zoo.net(module=nn.Sequential(logits, nn.Sigmoid()), kind=NeuralNet, criterion=nn.BCELoss).initialize()
        other = zoo.net(module=logits, kind=NeuralNet, criterion=nn.BCEWithLogitsLoss).initialize()
        found = [modal_ntk.DynamicAL(random_state=0).select(net, X[20:], 5, **known) for net in (one, other)]
        assert found[0].indices.tolist() == found[1].indices.tolist()
        np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-4)

    def test_squared_error_is_refused(self):
        """Half the squared error is defined against one-hot labels alone."""
        with pytest.raises(InvalidInputError, match=r'cross-entropy as loss for several labels.*Pass loss="cross_ent'):
            modal_ntk.DynamicAL(loss="mse").select(fitted(), X[20:], 3)


@pytest.mark.parametrize("name", [registered.name for registered in modal_ntk.list_strategies()])
def test_every_strategy_chooses_or_refuses_in_words(name):
    """Those that are named for several labels choose distinct samples; all others say what they are not made for."""
    registered = {entry.name: entry for entry in modal_ntk.list_strategies()}[name]
    if registered.distribution != "modal-ntk":
        pytest.skip("not ours")
    strategy = registered.spec.factory(random_state=0)
    if name in MULTILABEL:
        assert len(set(strategy.select(fitted(), X[20:], 6).indices.tolist())) == 6
        return
    with pytest.raises((InvalidInputError, UnmetNeedError), match=r"labels in a matrix|several labels|a learner"):
        strategy.select(fitted(), X[20:], 6)
    # Without labels the outputs alone say so, to those that read them.
    told = None
    try:
        assert len(set(strategy.select(fitted().estimator, X[20:], 6).indices.tolist())) == 6
    except (InvalidInputError, UnmetNeedError) as refused:
        told = str(refused)
    assert told is None or "label" in told or "expected a learner" in told


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(9, random_state=0), OneVsRestClassifier(LogisticRegression()), "piped"],
    ids=["forest", "one against rest", "piped net"],
)
def test_classifiers_of_matrices(estimator):
    """scikit-learn's classifiers for several labels, and a net at the end of a Pipeline, are read the same way."""
    estimator = make_pipeline(StandardScaler(), net()) if estimator == "piped" else estimator
    learner = ActiveLearner(estimator, Margin(random_state=0), X[:20], Y[:20])
    indices, rows = learner.query(X[20:], n_instances=5)
    learner.teach(rows, Y[20:][indices])
    assert learner.y_training.shape == (25, 4)
    assert learner.predict(X).shape == Y.shape
    p = NetView(learner).label_probabilities(X).numpy()
    assert ((p >= 0) & (p <= 1)).all()


def test_labelling_is_replayed_and_scored_by_name():
    """The simulation scores matrices by any metric of scikit-learn's, and predicts them."""
    options = {"n_initial": 15, "batch_size": 5, "n_rounds": 2, "random_state": 0, "evaluation_set": (X, Y)}
    replay = SimulatedActiveLearning(net(max_epochs=30), Entropy(), scoring="f1_macro", **options).fit(X, Y)
    assert replay.curve_[-1].score == f1_score(Y, replay.predict(X), average="macro")
    assert replay.curve_[-1].score > 0.6
    with pytest.raises(InvalidInputError, match='initial="random"'):
        SimulatedActiveLearning(net(), Entropy(), initial="stratified", **options).fit(X, Y)


def test_labels_in_matrices_are_checked():
    """Zeros and ones pass, in any type; other values are no labels, and each loss has labels of its kind."""
    for right in (Y, Y.astype(bool), Y.astype(float), Y.astype(object), Y.tolist()):
        np.testing.assert_array_equal(check_labels(right, len(Y), multilabel=True), Y)
    for wrong in (Y * 2, np.where(Y, np.nan, 0.0), np.where(Y, None, 0)):
        with pytest.raises(InvalidInputError, match=r"zeros and ones, got others, first in row"):
            check_labels(wrong, len(Y), multilabel=True)
    with pytest.raises(InvalidInputError, match="BCEWithLogitsLoss"):
        ActiveLearner(zoo.net(), Entropy(), X[:9], Y[:9])


def test_a_net_with_its_own_probabilities():
    """Outputs of a net trained by BCELoss are probabilities already."""
    module = nn.Sequential(nn.Linear(6, 4), nn.Sigmoid())
    estimator = zoo.net(module=module, kind=NeuralNet, criterion=nn.BCELoss)
    encoded = MultiLabelNet(estimator).fit(X[:20], Y[:20])
    with torch.no_grad():
        np.testing.assert_allclose(encoded.predict_proba(X), module(torch.from_numpy(X)), rtol=1e-6)


def test_a_net_for_one_label_is_not_asked_for_several():
    """A matrix of labels beside a net with one logit, or trained by cross-entropy, is said."""
    from skorch import NeuralNetBinaryClassifier

    binary = zoo.net(zoo.OneLogit, kind=NeuralNetBinaryClassifier, criterion=nn.BCEWithLogitsLoss).initialize()
    for estimator in (binary, zoo.net().initialize()):
        with pytest.raises(InvalidInputError, match="an output for each of several labels"):
            Entropy().select(estimator, X[20:], 2, X_labeled=X[:20], y_labeled=Y[:20])
