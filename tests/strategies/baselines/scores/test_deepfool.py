"""DeepFool active learning on affine nets in closed form, and through learners of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo
from torch import nn

from modal_ntk import DeepFool
from modal_ntk.errors import InvalidInputError, UnmetNeedError

X, y = zoo.blobs()


def affine(n_classes=6, seed=0, **options):
    torch.manual_seed(seed)
    return zoo.net(nn.Linear, module__in_features=6, module__out_features=n_classes, n_classes=n_classes, **options)


def closed_form(net, X):
    w = net.module_.weight.detach().double().numpy()
    f = X.astype(np.float64) @ w.T + net.module_.bias.detach().double().numpy()
    k = f.argmax(1)
    with np.errstate(invalid="ignore"):
        squared = (f - f[np.arange(len(X)), k][:, None]) ** 2 / ((w[None] - w[k][:, None]) ** 2).sum(2)
    return np.nanmin(squared, axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_on_an_affine_net_it_is_the_closed_form(seed):
    """Picks and scores are the smallest squared distances to the nearest of six classes, not to the last one."""
    net = affine(seed=seed).initialize()
    selected = DeepFool(random_state=0).select(net, X, 60)
    expected = closed_form(net, X)
    np.testing.assert_allclose(-selected.scores, expected[selected.indices], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(-selected.scores, np.sort(expected), rtol=1e-3, atol=1e-7)
    assert selected.info["n_not_arrived"] == 0


def test_what_comes_first_does_not_depend_on_order_or_batches():
    """A permuted pool and another batch size give the same samples."""
    net = zoo.net().fit(X[:12], y[:12])
    first = DeepFool(random_state=0).select(net, X[12:], 8)
    order = np.random.default_rng(0).permutation(48)
    permuted = DeepFool(random_state=0).select(net.set_params(batch_size=7), X[12:][order], 8)
    np.testing.assert_array_equal(order[permuted.indices], first.indices)


def test_the_part_that_no_change_can_move_comes_last():
    """Dead units leave no gradient: such a sample has a finite score, the worst."""
    net = zoo.net().initialize()
    module = net.module_.eval()
    with torch.no_grad():
        module.norm.bias.fill_(-1e4)
        module.head.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    selected = DeepFool(random_state=0).select(net, X, 5)
    assert np.isfinite(selected.scores).all()
    assert selected.info["n_not_arrived"] == 60


def test_integers_beside_floats_stay():
    """Of several inputs only floats are moved; without any there is an error that says so."""

    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 4)
            self.head = nn.Linear(10, 3)

        def forward(self, ids, values=None):
            values = torch.zeros(len(ids), 6) if values is None else values
            return self.head(torch.cat([self.table(ids), values], 1))

    torch.manual_seed(0)
    net = zoo.net(Looked).initialize()
    pool = {"ids": y, "values": X}
    selected = DeepFool(random_state=0).select(net, pool, 60)
    offset = (net.module_.table.weight @ net.module_.head.weight[:, :4].T + net.module_.head.bias).detach()
    w = net.module_.head.weight.detach()[:, 4:].double().numpy()
    f = X.astype(np.float64) @ w.T + offset.double().numpy()[y]
    k = f.argmax(1)
    with np.errstate(invalid="ignore"):
        squared = (f - f[np.arange(60), k][:, None]) ** 2 / ((w[None] - w[k][:, None]) ** 2).sum(2)
    np.testing.assert_allclose(-selected.scores, np.sort(np.nanmin(squared, 1)), rtol=1e-3, atol=1e-7)
    with pytest.raises(InvalidInputError, match=r"float type.*int64"):
        DeepFool().select(net, {"ids": y})


@pytest.mark.parametrize("output", ["log_softmax", "softmax"])
def test_a_net_that_returns_probabilities_is_read_through_their_logarithms(output):
    """Logits and log-softmax differ by the same amount in every class, so the distances are the same."""
    plain = zoo.net().fit(X[:12], y[:12])
    other = zoo.net(module__output=output, criterion=nn.NLLLoss).initialize()
    other.module_.load_state_dict(plain.module_.state_dict())
    first, second = (DeepFool(random_state=0).select(net, X[12:], 10) for net in (plain, other))
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(first.scores, second.scores, rtol=1e-3)


@pytest.mark.parametrize("params", [{"max_steps": 0}, {"n_rivals": 0}, {"overshoot": -0.1}], ids=str)
def test_bad_parameters_are_refused(params):
    """What cannot be used is an error that says what was expected."""
    with pytest.raises(InvalidInputError, match="Expected"):
        DeepFool(**params).select(affine().initialize(), X)


def test_a_learner_without_a_net_is_refused():
    """Distances need a torch net."""
    with pytest.raises(UnmetNeedError, match="gradients"):
        DeepFool().select(None, X)
