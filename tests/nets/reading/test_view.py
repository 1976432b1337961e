"""NetView: what a strategy reads is what the estimator means, and reading leaves no trace."""

import numpy as np
import pandas as pd
import pytest
import torch
import zoo
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from modal_ntk.errors import InvalidInputError, UnknownNameError, UnmetNeedError
from modal_ntk.nets import NetView

X, y = zoo.blobs()


def by_hand(module, x):
    module = module.eval()
    with torch.no_grad():
        return module(torch.from_numpy(x)).double().numpy()


@pytest.mark.parametrize("output", ["logits", "softmax", "log_softmax"])
def test_probabilities_are_the_same_however_the_module_states_them(output):
    """Logits under cross-entropy, probabilities under NLLLoss and log-probabilities give one simplex."""
    criterion = {"logits": nn.CrossEntropyLoss, "softmax": nn.NLLLoss, "log_softmax": nn.CrossEntropyLoss}[output]
    net = zoo.net(module__output=output, criterion=criterion).fit(X, y)
    raw = by_hand(net.module_, X)
    expected = raw if output == "softmax" else softmax(raw, axis=1)
    view = NetView(net)
    np.testing.assert_allclose(view.probabilities(X).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(softmax(view.logits(X).numpy(), axis=1), expected, atol=1e-5)


def test_log_probabilities_under_a_plain_nonlinearity_are_undone():
    """Rows whose exponentials sum to one are logarithms of probabilities."""
    net = zoo.net(module__output="log_softmax", predict_nonlinearity=None).fit(X, y)
    np.testing.assert_allclose(NetView(net).probabilities(X).numpy(), np.exp(by_hand(net.module_, X)), atol=1e-6)


def test_outputs_that_are_no_probabilities_are_refused():
    """Raw logits handed out as probabilities are an error, not a ranking."""
    net = zoo.net(predict_nonlinearity=None).fit(X, y)
    with pytest.raises(UnmetNeedError, match=r"rows that sum to one.*predict_nonlinearity"):
        NetView(net).probabilities(X)


def test_one_logit_becomes_two_classes():
    """A binary net with one logit z has the probabilities of the logits (0, z)."""
    binary = (y > 0).astype(np.float32)
    net = zoo.net(zoo.OneLogit, n_classes=2, criterion=nn.BCEWithLogitsLoss).fit(X, binary)
    view, z = NetView(net), by_hand(net.module_, X)
    np.testing.assert_allclose(view.probabilities(X).numpy()[:, 1], 1 / (1 + np.exp(-z)), atol=1e-6)
    np.testing.assert_allclose(view.logits(X).numpy(), np.stack([0 * z, z], axis=1), atol=1e-6)


def test_embedding_is_the_input_of_the_head():
    """The default embedding, sent through the head by hand, gives the logits."""
    net = zoo.net().fit(X, y)
    view = NetView(net)
    with torch.no_grad():
        logits = net.module_.head(view.embeddings(X))
    torch.testing.assert_close(logits, view.logits(X))


@pytest.mark.parametrize("module", [zoo.MLP, zoo.FrozenBackbone])
def test_named_layer_gives_its_output(module):
    """A layer's name gives what that layer puts out."""
    net = zoo.net(module).fit(X, y)
    name = "hidden" if module is zoo.MLP else "backbone"
    with torch.no_grad():
        expected = dict(net.module_.named_modules())[name](torch.from_numpy(X))
    torch.testing.assert_close(NetView(net).embeddings(X, name), expected)


def test_unknown_layer_names_the_near_one():
    """A misspelt layer is an error that suggests the right one."""
    net = zoo.net().fit(X, y)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'hidden'"):
        NetView(net).embeddings(X, "hiden")


def test_a_net_without_linear_layer_asks_for_a_name():
    """Where no layer is the obvious one the user is asked."""

    class NoLinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6, 3))

        def forward(self, x):
            return x @ self.weight

    net = zoo.net(NoLinear).fit(X, y)
    with pytest.raises(UnmetNeedError, match="linear layer, got NoLinear"):
        NetView(net).embeddings(X)


class Uneven(nn.Module):
    """A head that is called for each sample, or not called but read, after a layer with several outputs."""

    def __init__(self, way="rows"):
        super().__init__()
        self.way, self.cell, self.head = way, nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        z = self.cell(x[:, None])[0][:, 0]
        return (
            torch.stack([self.head(row) for row in z])
            if self.way == "rows"
            else nn.functional.linear(z, self.head.weight)
        )


@pytest.mark.parametrize(
    ("way", "layer", "error", "words"),
    [
        ("rows", None, InvalidInputError, r"one row of the embedding for each of 16 samples, got shape \(4,\)"),
        ("function", None, UnmetNeedError, "Uneven, which calls none"),
        ("rows", "cell", InvalidInputError, "got a tuple"),
    ],
)
def test_a_layer_that_has_not_one_row_for_each_sample_is_refused(way, layer, error, words):
    """Rows that belong to other samples, or to none, are no embedding; a callable is."""
    net = zoo.net(Uneven, module__way=way).fit(X, y)
    with pytest.raises(error, match=words):
        NetView(net).embeddings(X, layer)
    assert NetView(net).embeddings(X, lambda x: x[:, :2]).shape == (len(X), 2)


def test_conv_and_dict_inputs_go_through_the_nets_own_iterator():
    """Images and dicts of arrays are read as skorch reads them."""
    images = np.random.default_rng(0).normal(size=(20, 1, 2, 3)).astype(np.float32)
    conv = NetView(zoo.net(zoo.ConvNet).fit(images, y[:20]))
    assert conv.embeddings(images).shape == (20, 18)
    named = {"a": X[:, :3], "b": X[:, 3:]}
    both = NetView(zoo.net(zoo.DictNet).fit(named, y))
    assert both.embeddings(named).shape == (60, 8)
    assert both.probabilities(named).shape == (60, 3)
    with pytest.raises(InvalidInputError, match=r"a dict with keys \['a', 'b'\]"):
        both.features(named)
    assert both.features(named, lambda X: X["a"]).shape == (60, 3)


@pytest.mark.parametrize("kind", ["float64", "tensor", "frame"])
def test_kinds_of_samples_give_one_answer(kind):
    """What users pass besides float32 arrays is read as the same numbers."""
    net = zoo.net().fit(X, y)
    given = {"float64": X.astype(np.float64), "tensor": torch.from_numpy(X), "frame": pd.DataFrame(X)}
    view = NetView(net)
    torch.testing.assert_close(view.probabilities(given[kind]), view.probabilities(X))


def test_pipeline_is_read_through_its_earlier_steps():
    """Features and probabilities are those of the scaled samples."""
    scaler, net = StandardScaler().fit(X), zoo.net()
    pipeline = make_pipeline(scaler, net).fit(X, y)
    view, plain = NetView(pipeline), NetView(net)
    scaled = scaler.transform(X)
    torch.testing.assert_close(view.probabilities(X), plain.probabilities(scaled))
    torch.testing.assert_close(view.embeddings(X), plain.embeddings(scaled))
    np.testing.assert_allclose(view.features(X).numpy(), scaled)


def test_unfitted_pipeline_fits_clones_of_its_steps():
    """Before the first fit features come from clones fitted to the pool; the user's steps stay unfitted."""
    pipeline = make_pipeline(StandardScaler(), zoo.net())
    features = NetView(pipeline).features(X)
    np.testing.assert_allclose(features.mean(0).numpy(), 0, atol=1e-5)
    assert not hasattr(pipeline.steps[0][1], "mean_")


def test_plain_classifiers_give_probabilities_and_say_what_they_lack():
    """A random forest has probabilities and no embedding; a linear SVM has predictions only."""
    forest = NetView(RandomForestClassifier(5, random_state=0).fit(X, y))
    assert forest.probabilities(X).shape == (60, 3)
    assert not forest.offers("embedding")
    with pytest.raises(UnmetNeedError, match="RandomForestClassifier"):
        forest.embeddings(X)
    svm = NetView(LinearSVC().fit(X, np.array(["a", "b", "c"])[y]))
    assert not svm.offers("probabilities")
    assert svm.predictions(X).shape == (60,)
    with pytest.raises(UnmetNeedError, match="predict_proba, got LinearSVC"):
        svm.probabilities(X)


def test_meta_estimators_are_not_taken_for_learners():
    """An ``estimator`` attribute alone does not make a learner."""
    from sklearn.ensemble import BaggingClassifier

    bagging = BaggingClassifier(LogisticRegression(), 3, random_state=0).fit(X, y)
    assert NetView(bagging).estimator is bagging


@pytest.mark.parametrize("module", [zoo.MLP, zoo.ConvNet, zoo.FrozenBackbone])
def test_reading_leaves_no_trace(module):
    """Parameters, buffers, modes, gradients, flags, hooks and global generators are bit-equal afterwards."""
    data = X.reshape(60, 1, 2, 3) if module is zoo.ConvNet else X
    net = zoo.net(module).fit(data, y)
    net.module_.train()
    next(iter(net.module_.parameters())).grad = torch.ones_like(next(iter(net.module_.parameters())))
    before, view = zoo.state_of(net.module_), NetView(net)
    with zoo.generators_untouched():
        view.probabilities(data)
        view.embeddings(data)
    zoo.assert_same_state(before, zoo.state_of(net.module_))


def test_no_trace_holds_after_an_error():
    """The context restores everything although its body raised."""
    net = zoo.net().fit(X, y)
    net.module_.train()
    before = zoo.state_of(net.module_)

    def meddle():
        with NetView(net).no_trace():
            net.module_.eval().requires_grad_(False)
            net.module_.register_forward_hook(print)
            net.module_.norm.running_mean.add_(1)
            net.module_.head.weight.grad = torch.ones(3, 8)
            raise KeyError("x")

    with pytest.raises(KeyError):
        meddle()
    zoo.assert_same_state(before, zoo.state_of(net.module_))


def test_functional_forward_is_the_module():
    """The pure function at the module's own parameters gives its logits."""
    net = zoo.net().fit(X, y)
    net.module_.eval()
    forward, parameters = NetView(net).functional()
    np.testing.assert_allclose(
        forward(parameters, torch.from_numpy(X)).detach().numpy(), by_hand(net.module_, X), atol=1e-6
    )


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize("layer", [None, "first"])
def test_embeddings_of_a_compiled_net_are_those_of_the_net_inside(layer):
    """Hooks see the layers of a compiled net, which stays compiled."""
    net = zoo.net(compile=True, compile__backend="eager").initialize()
    compiled = net.module_
    name = layer if layer is None else next(name for name, part in compiled._orig_mod.named_modules() if name)
    got = NetView(net).embeddings(X, name)
    assert net.module_ is compiled
    net.module_ = compiled._orig_mod
    torch.testing.assert_close(got, NetView(net).embeddings(X, name))
