"""BAIT by itself: the contract, and choices against the definition with every matrix formed."""

import numpy as np
import pytest
import torch
from modal_ntk_bait import BAIT
from modal_ntk_bait.fisher import LastLayer
from sklearn.linear_model import LogisticRegression

from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.testing import parametrize_with_checks
from modal_ntk.testing.situations import blobs, skorch_net


@parametrize_with_checks([BAIT(), BAIT(n_components=2, oversampling=1.0)])
def test_contract(strategy, check):
    """Each clause of the contract is a test of its own."""
    check(strategy)


X, y = blobs(d=3)
MODEL = LogisticRegression().fit(X[:12], y[:12])
KNOWN = {"X_labeled": X[:12], "y_labeled": y[:12]}


def probabilities(X):
    """Those of the model, which may hold them in single precision, summing to one in double."""
    p = MODEL.predict_proba(X).astype(float)
    return p / p.sum(axis=1, keepdims=True)


def fisher(h, p):
    """Sum over labels of p_y times the outer product of the gradient of log p_y in the weights of a softmax layer."""
    total = 0
    for c in range(len(p)):
        weights = torch.zeros(len(p), len(h), dtype=torch.float64, requires_grad=True)
        logits = torch.tensor(np.log(p)) + weights @ torch.tensor(h)
        (gradient,) = torch.autograd.grad(logits.log_softmax(0)[c], weights)
        g = gradient.numpy().ravel()
        total = total + p[c] * np.outer(g, g)
    return total


def slow(pool, p_pool, labeled, p_labeled, b, regularisation=1.0, oversampling=2.0):
    """Forward and backward greedy with every matrix formed and inverted."""
    each = [fisher(h, p) for h, p in zip(pool, p_pool, strict=True)]
    wanted = sum(each) / len(each)
    m = regularisation * np.eye(len(wanted)) + sum((fisher(*one) for one in zip(labeled, p_labeled, strict=True)), 0)

    def trace(matrix):
        return np.trace(np.linalg.inv(matrix) @ wanted)

    chosen, first = [], trace(m)
    while len(chosen) < min(round(oversampling * b), len(pool)):
        rest = [i for i in range(len(pool)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: trace(m + each[i])))
        m = m + each[chosen[-1]]
    while len(chosen) > b:
        out = min(chosen, key=lambda i: trace(m - each[i]))
        chosen.remove(out)
        m = m - each[out]
    return chosen, [first, trace(m)]


@pytest.mark.parametrize("options", [{}, {"oversampling": 1.0}, {"regularisation": 0.01}, {"oversampling": 9.0}])
def test_choices_follow_the_definition(options):
    """Picks and objective are those of the slow greedy steps in float64."""
    selected = BAIT(features="input", **options).select(MODEL, X[12:42], 4, **KNOWN)
    p = probabilities(X)
    h = X.astype(float)
    chosen, objective = slow(h[12:42], p[12:42], h[:12], p[:12], 4, **options)
    assert selected.indices.tolist() == chosen
    np.testing.assert_allclose(selected.info["objective"], objective, rtol=1e-6)
    assert (selected.scores > 0).all()


def test_information_in_factors_is_that_of_the_gradients():
    """V V' of each sample, and their sum, are the Fisher information taken by autograd."""
    p = probabilities(X[:5])
    layer = LastLayer(torch.from_numpy(X[:5]).double(), torch.from_numpy(p))
    expected = [fisher(h.astype(float), q) for h, q in zip(X[:5], p, strict=True)]
    for row in range(5):
        factor = layer.factor(layer.roots(), row)
        np.testing.assert_allclose(factor @ factor.T, expected[row], atol=1e-9)
    np.testing.assert_allclose(layer.information(), sum(expected), atol=1e-9)


def test_of_a_net_the_last_layer_is_meant():
    """Features are the input of the net's last linear layer; with that layer's weights they make its logits."""
    net = skorch_net(module__d=3).fit(X[:12], y[:12])
    selected = BAIT().select(net, X[12:42], 4, **KNOWN)
    net.module_.eval()
    with torch.no_grad():
        h = torch.relu(net.module_.norm(net.module_.hidden(torch.from_numpy(X)))).double().numpy()
    p = net.predict_proba(X).astype(float)
    chosen, objective = slow(h[12:42], p[12:42], h[:12], p[:12], 4)
    np.testing.assert_allclose(selected.info["objective"], objective, rtol=1e-3)
    assert selected.indices.tolist() == chosen


def test_components_keep_what_is_largest():
    """A feature that is tiny everywhere is left out without changing the picks."""
    wide = np.hstack([X, 1e-6 * X[:, :1]])
    model = LogisticRegression().fit(wide[:12], y[:12])
    known = {"X_labeled": wide[:12], "y_labeled": y[:12]}
    few = BAIT(features="input", n_components=3).select(model, wide[12:], 4, **known)
    assert few.info["components"] == 3
    assert few.indices.tolist() == BAIT(features="input").select(model, wide[12:], 4, **known).indices.tolist()


def test_what_cannot_be_done_is_told():
    """Bad parameters, a classifier without a net, and matrices beyond the budget; the remedy named works."""
    for wrong in ({"regularisation": 0}, {"oversampling": 0.5}, {"n_components": 0}, {"features": "hidden"}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            BAIT(**wrong).select(MODEL, X[12:], 2)
    with pytest.raises(UnmetNeedError, match="embedding"):
        BAIT().select(MODEL, X[12:], 2)
    with pytest.raises(InvalidInputError, match=r"3 classes and 3 features, 648 bytes.*n_components="):
        BAIT(features="input", memory_budget=600).select(MODEL, X[12:], 2, **KNOWN)
    assert len(BAIT(features="input", memory_budget=600, n_components=2).select(MODEL, X[12:], 2, **KNOWN).indices) == 2
