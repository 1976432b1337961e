"""BADGE against gradients that are formed."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
import zoo
from sklearn.linear_model import LogisticRegression
from torch import nn

from modal_ntk import BADGE, selection
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.strategies.baselines import badge as module

X, y = zoo.blobs()


def embedding(net):
    inner = net.module_.eval()
    with torch.no_grad():
        return torch.relu(inner.norm(inner.hidden(torch.from_numpy(X)))).numpy()


def gradients(net):
    return oracle.gradient_rows(net.predict_proba(X).astype(np.float64), embedding(net))[12:]


def test_the_example():
    """p = (.7, .2, .1), h = (2, -1): the gradient is (.6, -.3, -.4, .2, -.2, .1), its length .836660."""
    p, h = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64), torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    a = module._residuals(p)
    np.testing.assert_allclose(torch.outer(a[0], h[0]).flatten(), [0.6, -0.3, -0.4, 0.2, -0.2, 0.1], atol=1e-12)
    assert float(selection.OuterRows(a, h).squared_norms()) ** 0.5 == pytest.approx(0.836660, abs=1e-6)


def test_it_is_the_gradient_of_the_loss():
    """The products are, up to sign, the gradient of the loss at the predicted class in the last layer's weights."""
    net = zoo.net().fit(X[:12], y[:12])
    inner = net.module_.eval()
    inner.zero_grad()
    logits = inner(torch.from_numpy(X[20:21]))
    nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
    np.testing.assert_allclose(inner.head.weight.grad.flatten(), -gradients(net)[8], atol=1e-6)


def test_scores_are_those_of_formed_gradients():
    """The first is the longest gradient; every score is the squared distance to the nearest one before."""
    net = zoo.net().fit(X[:12], y[:12])
    G = gradients(net)
    selected = BADGE(random_state=0).select(net, X[12:], 8)
    assert selected.indices[0] == (G**2).sum(1).argmax()
    assert selected.scores[0] == pytest.approx((G**2).sum(1).max(), rel=1e-4)
    for i in range(1, 8):
        expected = oracle.squared_to_nearest(G, selected.indices[:i])[selected.indices[i]]
        assert selected.scores[i] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_it_draws_what_formed_gradients_would():
    """From the same seed the factors draw the samples that k-means++ draws on the formed gradients."""
    net = zoo.net().fit(X[:12], y[:12])
    rng = np.random.default_rng(5)
    child = np.random.default_rng(rng.integers(2**31, size=4))
    formed = selection.DenseRows(torch.from_numpy(gradients(net)))
    expected = selection.kmeans_plus_plus(formed, 10, random_state=child).indices
    np.testing.assert_array_equal(BADGE(random_state=5).select(net, X[12:], 10).indices, expected)


@pytest.mark.parametrize("n_partitions", [2, 3, 7, 100])
@pytest.mark.parametrize("n_instances", [7, 48])
def test_every_part_gives_its_share(n_partitions, n_instances, monkeypatch):
    """Parts are disjoint, cover the pool, and give shares that differ by at most one."""
    net = zoo.net().fit(X[:12], y[:12])
    seen = []
    parts_of = BADGE._parts
    monkeypatch.setattr(BADGE, "_parts", lambda self, query: seen.extend(parts_of(self, query)) or seen)
    selected = BADGE(n_partitions=n_partitions, random_state=0).select(net, X[12:], n_instances)
    assert sorted(np.concatenate([part for part, _ in seen]).tolist()) == list(range(48))
    shares = [len(np.intersect1d(part, selected.indices)) for part, _ in seen]
    assert shares == [share for _, share in seen]
    assert sum(shares) == n_instances
    assert max(shares) - min(shares) <= 1


def test_a_uniform_first_choice():
    """With first="uniform" the first choice changes with the seed; with the default it does not."""
    net = zoo.net().fit(X[:12], y[:12])
    first = {f: {int(BADGE(first=f, random_state=s).select(net, X[12:], 1).indices[0]) for s in range(9)}
             for f in ("uniform", "largest")}  # fmt: skip
    assert len(first["largest"]) == 1
    assert len(first["uniform"]) > 3


def test_averaged_gradients(monkeypatch):
    """Averaged to 6 of 24 entries, the first is the longest mean of neighbouring entries, in blocks or at once."""
    net = zoo.net().fit(X[:12], y[:12])
    averaged = gradients(net).reshape(48, 6, 4).mean(axis=2)
    selected = BADGE(n_averaged=6, random_state=0).select(net, X[12:], 4)
    assert selected.indices[0] == (averaged**2).sum(1).argmax()
    assert selected.scores[0] == pytest.approx((averaged**2).sum(1).max(), rel=1e-4)
    monkeypatch.setattr(module, "_BLOCK", 100)
    np.testing.assert_array_equal(BADGE(n_averaged=6, random_state=0).select(net, X[12:], 4).indices, selected.indices)
    whole = BADGE(n_averaged=24, random_state=0).select(net, X[12:], 4)
    np.testing.assert_array_equal(whole.indices, BADGE(random_state=0).select(net, X[12:], 4).indices)


def test_what_cannot_be_used_is_told():
    """A classifier without an embedding is refused by that name unless samples are to stand for it."""
    model = LogisticRegression().fit(X[:12], y[:12])
    with pytest.raises(UnmetNeedError, match="embedding"):
        BADGE().select(model, X[12:], 2)
    assert BADGE(features="input").select(model, X[12:], 2).info["features"] == "input"
    assert BADGE(features="auto").select(model, X[12:], 2).info["features"] == "input"
    for wrong in ({"first": "x"}, {"n_partitions": 0}, {"n_averaged": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            BADGE(**wrong).select(model, X[12:], 2)
