"""Dropout switched on in evaluation mode: every kind of it, and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import nn

from modal_ntk.errors import UnmetNeedError
from modal_ntk.nets import dropping, has_dropout


class Functional(nn.Module):
    def __init__(self, function=F.dropout):
        super().__init__()
        self.function = function

    def forward(self, x):
        return F.dropout(x, 0.5, self.training) if self.function is F.dropout else self.function(x, 0.5, self.training)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class Packed(Recurrent):
    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [x.shape[1]] * len(x), batch_first=True)
        return self.rnn(packed)[0].data


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def encoder():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
    return nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoder(layer, 1))


KINDS = {
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout1d": lambda: nn.Dropout1d(0.5),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "in place": lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5, inplace=True)),
    "F.dropout": Functional,
    "torch.dropout": lambda: Functional(torch.dropout),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "RNN": lambda: Recurrent(nn.RNN),
    "packed LSTM": lambda: Packed(nn.LSTM),
    "attention": Attention,
    "TransformerEncoder": encoder,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dropout_is_found_and_switched_on(kind):
    """In evaluation mode passes are alike outside the context and unlike inside, from one seed alike again."""
    torch.manual_seed(0)
    module, x = KINDS[kind]().eval(), torch.randn(4, 5, 3)
    assert has_dropout(module) or kind == "torch.dropout"

    def run(seed=None):
        with torch.no_grad():
            if seed is None:
                return module(x.clone())
            with dropping(seed) as rates:
                out = module(x.clone())
            assert 0.5 in rates
            return out

    torch.testing.assert_close(run(), run())
    assert not torch.allclose(run(0), run(1))
    assert not torch.allclose(run(0), run())
    assert torch.equal(run(0), run(0))
    assert not any(part.training for part in module.modules())


def test_the_mask_has_the_rate_and_the_scale_of_the_layer():
    """A share p of the values is zero and the others are divided by 1 - p."""
    module = nn.Dropout(0.2).eval()
    with dropping(0):
        out = module(torch.ones(20000))
    assert out.unique().tolist() == pytest.approx([0, 1.25])
    assert float((out == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_batch_norm_stays_in_evaluation_mode():
    """With dropout of rate zero the output is that of prediction, and no running statistic moves."""
    net = zoo.ConvNet()
    net.drop.p = 0.0
    net.norm.running_mean.fill_(0.3)
    net.eval()
    x, before = torch.randn(7, 1, 2, 3), zoo.state_of(net)
    expected = net(x)
    with dropping(0) as rates:
        torch.testing.assert_close(net(x), expected)
    assert rates == [0.0]
    zoo.assert_same_state(before, zoo.state_of(net))


def test_generators_and_the_net_are_as_before():
    """The global generators do not move, also when the net raises inside."""
    with zoo.generators_untouched():
        with dropping(3):
            nn.Dropout()(torch.ones(5))
        with pytest.raises(RuntimeError), dropping(3):
            nn.Sequential(nn.Dropout(), nn.Linear(1, 1))(torch.ones(5))


@pytest.mark.parametrize("module", [zoo.MLP(), nn.LSTM(3, 4), nn.MultiheadAttention(4, 1), nn.Identity()], ids=repr)
def test_a_net_without_dropout_has_none(module):
    """Torch's layers that could have dropout and are set to none count as without."""
    assert not has_dropout(module)


def test_a_run_without_dropout_is_an_error():
    """Where nothing was dropped, the context says so on leaving."""
    with pytest.raises(UnmetNeedError, match=r"Expected a net with dropout.*Put nn\.Dropout"), dropping(0):
        zoo.MLP().eval()(torch.zeros(2, 6))
