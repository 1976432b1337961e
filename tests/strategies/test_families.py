"""Every strategy on every kind of net: it chooses, or says in words why it cannot."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier
from torch import nn

import modal_ntk
from modal_ntk.errors import ModalNTKError
from modal_ntk.testing.situations import skorch_net, taught

N = 24

# What cannot be embedded without a name: a linear layer is never called, or not for all samples at once.
NO_EMBEDDING = {
    ("dense", "bilinear"): "a linear layer",
    ("bare parameters", "matrix"): "a linear layer",
    ("bare parameters", "matrix of tokens"): "a linear layer",
    ("bare parameters", "transposed conv1d of gpt"): "a linear layer",
    ("bare parameters", "einsum"): "a linear layer",
    ("bare parameters", "low rank"): "a linear layer",
    ("tables", "tied"): "calls its linear layers",
    ("control flow", "sample by sample"): "one row of the embedding for each",
}
EMBED = {"albl", "badge", "coreset", "ddal", "kmedian", "maxherding", "probcover", "tcm", "typiclust"}
DIFFERENTIATE = {"dynamical", "lookahead", "lpntk"}
# A quick choice: of each family those that differ most from an ordinary net.
QUICK = [
    ("dense", "one logit"), ("dense", "two inputs"), ("convolutions", "transposed"),
    ("normalisations", "spectral norm"), ("attention", "encoder with padding"), ("tables", "sparse"),
    ("tables", "tied"), ("recurrent", "packed"), ("bare parameters", "complex"), ("control flow", "experts"),
    ("control flow", "sample by sample"), ("control flow", "checkpoint, reentrant"),
    ("control flow", "attributes set"),
]  # fmt: skip


def drawn(make):
    """A module, and as many samples as four draws make."""
    parts = []
    for seed in range(4):
        torch.manual_seed(seed)
        module, x = make()
        parts.append(x)
    if isinstance(x, dict):
        return module, {name: torch.cat([part[name] for part in parts]) for name in x}
    return module, torch.cat(parts)


def situation(make):
    """A net taught for an epoch, with as many classes as it has outputs."""
    module, X = drawn(make)
    with torch.no_grad():
        out = module.eval()(**{k: v[:2] for k, v in X.items()}) if isinstance(X, dict) else module.eval()(X[:2].clone())
    n_classes = out[0].numel()
    y = np.arange(N) % max(2, n_classes)
    if n_classes > 1:
        return taught(skorch_net(module, n_classes=n_classes, max_epochs=1, lr=0.01), X, y)
    binary = {"kind": NeuralNetBinaryClassifier, "criterion": nn.BCEWithLogitsLoss, "max_epochs": 1}
    return taught(skorch_net(module, **binary), X, y.astype(np.float32))


def refusals(family, name, module, X):
    """Which strategies refuse a net, by name, and a part of the words."""
    parts = X if isinstance(X, dict) else {"x": X}
    found = {"waal": "critic"}
    if not any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p for part in module.modules()):
        found["bald"] = "dropout"
    if isinstance(X, dict):
        found.update(dict.fromkeys(("ntkcpl", "variance_design"), "one matrix"))
    if not any(part.is_floating_point() for part in parts.values()):
        found["deepfool"] = "a float type"
    if (family, name) in NO_EMBEDDING:
        # UHerding reads rows of numbers as they are.
        embed = EMBED | {"uherding"} if any(p.ndim > 2 or not p.is_floating_point() for p in parts.values()) else EMBED
        found.update(dict.fromkeys(embed, NO_EMBEDDING[family, name]))
    if (family, name) == ("control flow", "attributes set"):
        found["uherding"] = "scikit-learn can clone"
    if (family, name) == ("tables", "by frequency"):
        found.update(dict.fromkeys(DIFFERENTIATE, "a batch"))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "name"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in families.CASES if case not in QUICK)],
)
def test_strategies_choose_or_refuse_in_words(family, name):
    """Two samples of the pool, each once; or our own error, and only where the net lacks what the strategy needs."""
    given = situation(families.FAMILIES[family][name])
    refuse = refusals(family, name, given.learner.module_, given.X_pool)
    for registered in modal_ntk.list_strategies():
        chosen, words = asked(given, registered.spec.factory())
        wanted = refuse.get(registered.spec.name, "")
        assert wanted in words, registered.spec.name
        assert bool(wanted) == bool(words), f"{registered.spec.name}: {words}"
        if not words:
            assert len(chosen) == 2
            assert chosen <= set(range(N - 12))


def asked(given, strategy):
    """What a strategy chose, or the words of its refusal; any other error is raised."""
    try:
        return {*given.select(strategy, 2).indices.tolist()}, ""
    except ModalNTKError as error:
        return set(), str(error)


@pytest.mark.filterwarnings("ignore")
def test_the_remedy_for_a_net_that_cannot_be_copied_works():
    """A module whose forward keeps tensors of its graph is asked without being calibrated."""
    given = situation(families.FAMILIES["control flow"]["attributes set"])
    assert len(given.select(modal_ntk.UHerding(temperature=1.0), 2).indices) == 2


@pytest.mark.filterwarnings("ignore")
def test_the_remedy_for_layers_called_sample_by_sample_works():
    """The embedding may be named, or made by a callable."""
    given = situation(families.FAMILIES["control flow"]["sample by sample"])
    strategy = modal_ntk.CoreSet(features=lambda X: torch.as_tensor(X))
    assert len(given.select(strategy, 2).indices) == 2
