"""A device with too little room: batches are halved until they fit, and the answers are the same."""

import numpy as np
import pytest
import torch
import zoo
from torch import nn

from modal_ntk import BADGE, Margin
from modal_ntk.nets import NetView

X, y = zoo.blobs(n=70)
SIZES = []  # not the module's own: a query leaves that as it was


class Small(nn.Module):
    """A net on a device that has room for so many samples at a time; notes the batches that it was given."""

    def __init__(self, room=1000):
        super().__init__()
        self.hidden, self.head = nn.Linear(X.shape[1], 8), nn.Linear(8, 3)
        self.room = room

    def forward(self, x):
        hidden = torch.relu(self.hidden(x))
        SIZES.append(len(x))
        if len(x) > self.room:  # after a layer has run, as on a real device
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.head(hidden)


class SmallOfDict(Small):
    """The same with its input in a dict."""

    def forward(self, x, unused):
        return super().forward(x) + 0 * unused[:, :1]


def halves(n, room):
    return [n] if n <= room else halves(n // 2, room) + halves(n - n // 2, room)


def fitted(module, X):
    torch.manual_seed(0)
    return zoo.net(module, batch_size=32, max_epochs=1).fit(X, y)


@pytest.mark.parametrize("room", [31, 7, 1])
@pytest.mark.parametrize("kind", ["array", "dict"])
def test_batches_are_halved_until_they_fit(room, kind):
    """Outputs and embeddings are those of a device with room for all, in order, and no batch that fits is split."""
    module, samples = (Small, X) if kind == "array" else (SmallOfDict, {"x": X, "unused": X.copy()})
    net = fitted(module, samples)
    view = NetView(net)
    wide = [ask(samples) for ask in (view.probabilities, view.embeddings, view.logits)]
    net.module_.room = room
    for ask, expected in zip((view.probabilities, view.embeddings, view.logits), wide, strict=True):
        SIZES.clear()
        torch.testing.assert_close(ask(samples), expected)
        fitting = [size for size in SIZES if size <= room]
        assert fitting == halves(32, room) + halves(32, room) + halves(6, room)


def test_one_sample_that_does_not_fit_is_the_devices_error():
    """Without room for one sample the error is torch's own, and the net is as before."""
    net = fitted(Small, X)
    before = zoo.state_of(net.module_)
    net.module_.room = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        NetView(net).probabilities(X)
    zoo.assert_same_state(before, zoo.state_of(net.module_))


@pytest.mark.parametrize("strategy", [Margin(random_state=0), BADGE(random_state=0)], ids=lambda s: type(s).__name__)
def test_picks_are_the_same(strategy):
    """A query goes on where the device has room for a few samples only."""
    net = fitted(Small, X)
    wide = strategy.select(net, X[10:], 5)
    net.module_.room = 9
    narrow = strategy.select(net, X[10:], 5)
    np.testing.assert_array_equal(narrow.indices, wide.indices)
