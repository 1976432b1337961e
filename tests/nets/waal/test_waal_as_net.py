"""WAALClassifier as the skorch net it is: lazy layers, a criterion that learns, routed arguments, names as labels."""

import copy

import numpy as np
import pytest
import sklearn
import torch
import zoo
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import WAAL, ActiveLearner
from modal_ntk.errors import InvalidInputError
from modal_ntk.nets import NetView, WAALClassifier, no_trace

X, y = zoo.blobs(n_classes=2)
NAMES = np.array(["no", "yes"])[y]


def waal(extractor=None, **options):
    module = extractor or nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    return WAALClassifier(module, **{"classes": [0, 1], "max_epochs": 2, "verbose": 0, "unlabeled": X[20:], **options})


@pytest.mark.parametrize("options", [{}, {"n_features": 8}], ids=["width found", "width given"])
def test_lazy_layers_are_made(options):
    """An extractor that learns its input's width from the first sample trains as one that was told."""
    extractor = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU())
    net = waal(extractor, **options).fit(X[:20], y[:20])
    assert net.module_.extractor[0].in_features == 6
    assert net.critic_is_trained_
    assert net.predict(X).shape == (60,)


def test_no_trace_survives_the_making_of_lazy_layers():
    """A lazy layer that is made inside is an ordinary one afterwards, and everything else as it was."""
    module = nn.Sequential(nn.LazyLinear(3), nn.Dropout())
    with no_trace(module):
        module.eval()(torch.zeros(2, 4))
    assert type(module[0]) is nn.Linear
    assert module.training
    assert module(torch.zeros(2, 4)).shape == (2, 3)
    assert copy.deepcopy(module)(torch.zeros(2, 4)).shape == (2, 3)


class Tempered(nn.Module):
    """A criterion with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, logits, target):
        """Return the loss."""
        return nn.functional.cross_entropy(logits * self.temperature, target)


@pytest.mark.parametrize("extractor", [None, nn.Flatten()], ids=["", "extractor without parameters"])
def test_a_criterion_learns_too(extractor):
    """Parameters of the criterion are trained with the head's."""
    net = waal(extractor, criterion=Tempered).fit(X[:20], y[:20])
    assert net.criterion_.temperature.item() != 1.0


class Scaled(WAALClassifier):
    """A net that brings a module of its own, by which its loss is multiplied."""

    def initialize_module(self):
        super().initialize_module()
        self.scale_ = nn.Linear(1, 1)
        return self

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Return the loss times what the module makes of one."""
        return super().get_loss(y_pred, y_true, *args, **kwargs) * self.scale_(torch.ones(1)).squeeze()


def test_modules_of_a_subclass_learn_too():
    """Whatever else has parameters is trained with the head, as skorch's own optimiser trains every module."""
    net = Scaled(waal().module, n_features=8, classes=[0, 1], max_epochs=2, verbose=0, unlabeled=X[20:]).initialize()
    before = net.scale_.weight.item()
    net.partial_fit(X[:20], y[:20])
    assert net.scale_.weight.item() != before
    held = [p for group in net.head_optimizer_.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len([*net.head_.parameters(), *net.scale_.parameters()])


class Singles(torch.utils.data.Dataset):
    """Samples without labels."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i]


def test_items_that_are_no_pairs_are_said_as_skorch_says_it():
    """A Dataset of samples alone, without labels beside it, cannot be learnt from."""
    with pytest.raises(ValueError, match="returns 1 value"):
        waal().fit(Singles(), None)


class Twofold(nn.Module):
    """Features, and something else."""

    def forward(self, x):
        """Return both."""
        return x, x.sum()


def test_an_extractor_with_several_outputs_is_refused():
    """Only one tensor can be the features."""
    with pytest.raises(InvalidInputError, match=r"one tensor of features, got a tuple\. Return the features"):
        waal(Twofold()).fit(X[:20], y[:20])


def plain_loss():
    """Return a criterion that is no module."""
    return nn.functional.cross_entropy


@pytest.mark.parametrize(
    "options", [{"criterion": plain_loss}, {"head": nn.Identity, "n_features": 8}], ids=["criterion", "head"]
)
def test_parts_without_parameters_have_no_optimizer(options):
    """A criterion that is a function, and a head that has nothing to learn, train as for any skorch net."""
    net = waal(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), **options).fit(X[:20], y[:20])
    assert net.critic_is_trained_
    assert ("head_optimizer" in net._optimizers) == ("head" not in options)


def routes_any_argument():
    """Whether skorch's own nets let any argument of fit be requested, as its later releases do."""
    with sklearn.config_context(enable_metadata_routing=True):
        try:
            NeuralNetClassifier(nn.Linear).set_fit_request(Z=True)
        except (AttributeError, TypeError):
            return False
        return True


@pytest.mark.skipif(not routes_any_argument(), reason="this skorch routes no argument of its own accord")
def test_arguments_of_fit_are_routed():
    """Any argument can be requested, the unlabelled samples too, as of any skorch net."""
    with sklearn.config_context(enable_metadata_routing=True):
        net = waal().set_fit_request(Z=True, X_unlabeled=True)
        assert net.get_metadata_routing().consumes("fit", ["Z", "X_unlabeled", "other"]) == {"Z", "X_unlabeled"}


def test_an_optimizer_that_wants_a_closure_is_refused():
    """LBFGS calls the loss again and again, where two losses take turns: said before training."""
    with pytest.raises(InvalidInputError, match=r"steps without a closure, got LBFGS.*SGD or Adam"):
        waal(optimizer=torch.optim.LBFGS).fit(X[:20], y[:20])


@pytest.mark.parametrize("train_split", [None, "default"])
def test_names_as_labels(train_split):
    """Taught by names it trains as by numbers, answers by names, and goes on; scores in training are right."""
    from skorch.dataset import ValidSplit

    options = {} if train_split is None else {"train_split": ValidSplit(4)}
    answers = []
    for labels in (y, NAMES):
        torch.manual_seed(0)
        net = waal(copy.deepcopy(waal().module), classes=None, **options)
        for parameter in net.module.parameters():
            nn.init.constant_(parameter, 0.1)
        net.fit(X[:20], labels[:20]).partial_fit(X[:20], labels[:20])
        answers.append((net.predict(X), net.history[:, "train_loss"], net.score(X, labels)))
    np.testing.assert_array_equal(np.array(["no", "yes"])[answers[0][0]], answers[1][0])
    assert answers[0][1:] == answers[1][1:]
    assert net.classes_.tolist() == ["no", "yes"]
    with pytest.raises(InvalidInputError, match="new ones"):
        net.partial_fit(X[:2], ["no", "maybe"])


def test_names_keep_their_outputs_where_training_goes_on():
    """With warm_start `fit` goes on, so a name without an output is refused, and the others stay where they are."""
    net = waal(classes=None, warm_start=True).fit(X[:20], NAMES[:20])
    with pytest.raises(InvalidInputError, match=r"new ones \['maybe'\]"):
        net.fit(X[:3], ["maybe", "no", "yes"])
    assert net.fit(X[:4], ["yes"] * 4).classes_.tolist() == ["no", "yes"]


def test_names_through_a_learner():
    """A learner teaches it by names and queries with its critic."""
    learner = ActiveLearner(waal(classes=None), WAAL(random_state=0), X[:20], NAMES[:20])
    indices, rows = learner.query(X[20:], n_instances=3)
    learner.teach(rows, NAMES[20:][indices])
    assert set(learner.predict(X)) <= {"no", "yes"}
    assert NetView(learner).classes.tolist() == ["no", "yes"]
