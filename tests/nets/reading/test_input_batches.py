"""Batches of a net's inputs are those of its own loader, cut from an array where the loader only stacks its rows."""

import numpy as np
import pytest
import skorch
import torch
from skorch.dataset import Dataset, unpack_data
from torch import nn

from modal_ntk.nets import NetView, input_batches

ROWS = np.random.default_rng(0).integers(0, 9, (8, 2, 3))


def _net(**options):
    net = skorch.NeuralNetClassifier(nn.Linear(2, 2), criterion=nn.CrossEntropyLoss, batch_size=3, **options)
    return net.initialize()


class Doubled(Dataset):
    """Samples that are changed as they are read."""

    def transform(self, X, y):
        """Return twice the sample."""
        X, y = super().transform(X, y)
        return 2 * X, y


def _frozen(X):
    X.flags.writeable = False
    return X


KINDS = {
    "float32": ROWS.astype("float32"),
    "float64": ROWS.astype("float64"),
    "uint8": ROWS.astype("uint8"),
    "int64": ROWS.astype("int64"),
    "bool": ROWS > 4,
    "backwards": ROWS.astype("float32")[::-1],
    "read-only": _frozen(ROWS.astype("float32")),
    "tensor": torch.tensor(ROWS),
    "numbers": ROWS[:, 0, 0].astype("float32"),
    "none": ROWS[:0].astype("float32"),
}
OPTIONS = {
    "plain": {},
    "whole": {"iterator_valid__batch_size": -1},
    "changing": {"dataset": Doubled},
    "collated": {"iterator_valid__collate_fn": lambda rows: (torch.zeros(len(rows)), torch.zeros(len(rows)))},
}
DISORDER = {
    "dropping": {"iterator_valid__drop_last": True},
    "shuffling": {"iterator_valid__shuffle": True},
    "both": {"iterator_valid__shuffle": True, "iterator_valid__drop_last": True},
    "sampling": {"iterator_valid__sampler": [3, 1, 0]},
    "batches of one's own": {"iterator_valid__batch_size": 1, "iterator_valid__batch_sampler": [[5, 0], [2]]},
}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_loaders(kind, options):
    """Values, types and sizes are the loader's for every kind of array, and whatever the loader does to it."""
    if (kind, options) == ("none", "whole"):
        pytest.skip("the loader itself refuses batches of no rows")
    net, X = _net(**OPTIONS[options]), KINDS[kind]
    want = [unpack_data(batch)[0] for batch in net.get_iterator(net.get_dataset(X), training=False)]
    got = list(input_batches(NetView(net), X))
    assert len(got) == len(want)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, want, strict=True))


@pytest.mark.filterwarnings("ignore:You set iterator_valid__shuffle")
@pytest.mark.parametrize("options", DISORDER)
def test_every_sample_is_read_once_and_in_order(options):
    """A validation iterator that shuffles, samples or drops is not obeyed: picks are named by position."""
    net, X = _net(**DISORDER[options]), KINDS["float32"]
    assert torch.equal(torch.cat(list(input_batches(NetView(net), X))), torch.from_numpy(X))
    with torch.no_grad():
        assert torch.equal(NetView(net).logits(X[..., 0]), net.module_(torch.from_numpy(X[..., 0])))


@pytest.mark.parametrize("kind", ["float32", "tensor"])
def test_batches_are_copies(kind):
    """Writing to a batch leaves the samples as they were."""
    before = torch.tensor(ROWS).to(torch.as_tensor(KINDS[kind]).dtype)
    for batch in input_batches(NetView(_net()), KINDS[kind]):
        batch.fill_(7)
    assert torch.equal(torch.as_tensor(KINDS[kind]), before)
