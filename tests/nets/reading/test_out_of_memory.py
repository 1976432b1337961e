"""A device with too little room: batches are halved until they fit, and the answers are the same."""

import numpy as np
import pretended
import pytest
import torch
import zoo
from torch import nn

from modal_ntk import BADGE, DynamicAL, LookAhead, LpNTK, Margin
from modal_ntk.features import LossGradients, gradient_sketch
from modal_ntk.kernels import empirical_ntk, kernel_rows
from modal_ntk.nets import NetView
from modal_ntk.selection.distances import DenseRows, OuterRows

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


def measures(module, x, labels):
    """The numbers that are made of gradients, by what makes them."""
    gradients = LossGradients(module)
    direction = {name: torch.ones_like(p) for name, p in module.named_parameters()}
    yield from gradients.measure(x, direction)
    yield gradients.products(x, direction, labels)
    yield gradient_sketch(module, x, 5, random_state=0)
    yield kernel_rows(module, x, labels=labels).matrix()
    for kind in ("pseudo", "trace", "full"):
        yield empirical_ntk(module, x, kind=kind)
        yield empirical_ntk(module, x, x[:7], kind=kind)
        yield empirical_ntk(module, x, kind=kind, memory_budget=20_000)  # in chunks from the start
    yield empirical_ntk(module, x, method="sketch", sketch_dim=8, random_state=0)


@pytest.mark.parametrize("room", [31, 7])
def test_chunks_of_gradients_are_halved_until_they_fit(room):
    """Kernels, sketches, lengths and products are those of a device with room for all; two samples are needed."""
    module, x, labels = fitted(Small, X).module_, torch.from_numpy(X[:40]), torch.from_numpy(y[:40])
    wide = list(measures(module, x, labels))
    module.room = room
    SIZES.clear()
    for found, expected in zip(measures(module, x, labels), wide, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert max(SIZES) > room


def test_rows_that_a_device_has_no_room_for_go_there_in_parts(monkeypatch):
    """Lengths and distances from blocks that are halved are those of all rows at once."""
    left, x = torch.randn(200, 3, dtype=torch.float64), torch.randn(200, 16, dtype=torch.float64)
    with pretended.pretended() as device:
        monkeypatch.setattr(pretended, "ROOM", 1000)
        for here, there in (
            (DenseRows(x), DenseRows(x, device)), (OuterRows(left, x), OuterRows(left, x, device)),
        ):  # fmt: skip
            torch.testing.assert_close(there.squared_norms().cpu(), here.squared_norms())
            torch.testing.assert_close(there.squared_to(3).cpu(), here.squared_to(3))
        rows = torch.tensor([5, 1, 7])
        torch.testing.assert_close(DenseRows(x, device).lower_bounds(rows).cpu(), DenseRows(x).lower_bounds(rows))
        monkeypatch.setattr(pretended, "ROOM", 15)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            DenseRows(x, device).squared_norms()


@pytest.mark.parametrize(
    "strategy",
    [Margin(random_state=0), BADGE(random_state=0), DynamicAL(random_state=0), LpNTK(random_state=0),
     LookAhead(random_state=0)],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_picks_are_the_same(strategy):
    """A query goes on where the device has room for a few samples only."""
    net = fitted(Small, X)
    known = {"X_labeled": X[:10], "y_labeled": y[:10]}
    wide = strategy.select(net, X[10:], 5, **known)
    net.module_.room = 9
    narrow = strategy.select(net, X[10:], 5, **known)
    np.testing.assert_array_equal(narrow.indices, wide.indices)
