"""What the stages of lpntk_mnist share: data, nets, a table that is written row by row."""

import csv
import os
import time
from pathlib import Path

import numpy as np
import skorch
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Checkpoint, LRScheduler
from skorch.dataset import ValidSplit

from modal_ntk import nets
from modal_ntk.bench import load_dataset
from modal_ntk.bench.experiment.estimators import LeNet
from modal_ntk.errors import UnknownNameError
from modal_ntk.pruning import LpNTKPruner

CHANNELS = {"mnist": 1, "cifar10": 3}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def images(options):
    """Return training images and labels, at most --n, and test images and labels; digits where --data is not at hand.

    Pixels are standardised, as is customary for MNIST. The paper does not say so, but its number of forgetting
    events speaks for it: there are hardly any with pixels between 0 and 1.
    """
    X, y, X_test, y_test = _pixels(options)
    mean, deviation = X.mean(), X.std()
    return (X - mean) / deviation, y, (X_test - mean) / deviation, y_test


def _pixels(options):
    try:
        if os.environ.get("MODAL_NTK_SMALL"):
            raise UnknownNameError("MODAL_NTK_SMALL is set.")
        data = load_dataset(options.data)
        return data.x_train[: options.n], data.y_train[: options.n], data.x_test, data.y_test
    except UnknownNameError as error:
        print(error, "Using digits.")
    X, y = load_digits(return_X_y=True)
    X = np.kron(
        (X / 16).astype(np.float32).reshape(-1, 1, 8, 8), np.ones((1, CHANNELS[options.data], 2, 2), np.float32)
    )
    n = min(options.n, 1200)
    return X[:n], y[:n], X[1200:], y[1200:]


def lenet(epochs, *, n_channels=1, lr=0.05, every=2, callbacks=(), **options):
    """The recipe of the authors' code for LeNet: SGD with momentum, the rate times 0.7 every second epoch."""
    settings = {"train_split": None, "verbose": 0, "batch_size": 128, "iterator_valid__batch_size": 1000}
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=every, gamma=0.7)
    return skorch.NeuralNetClassifier(
        LeNet,
        module__n_channels=n_channels,
        module__n_classes=10,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=5e-4,
        lr=lr,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        classes=list(range(10)),
        device=DEVICE,
        callbacks=[("schedule", schedule), *callbacks],
        **{**settings, **options},
    )


def trained(net, X, y, seed):
    """Fit a net whose weights and order of samples follow from the seed."""
    with nets.seeded(seed):
        return net.fit(X, y)


def reference(X, y, options):
    """The net whose kernel is used: the epoch of best accuracy on a tenth held out, stored and read again."""
    path = options.out / "reference.pt"
    best = Checkpoint(monitor="valid_acc_best", f_params="best.pt", dirname=str(options.out), load_best=True)
    net = options.lenet(options.epochs, train_split=ValidSplit(10, stratified=True), callbacks=[("best", best)])
    if path.exists():
        net.initialize().load_params(f_params=str(path))
        return net
    trained(net, X, y, 0).save_params(f_params=str(path))
    return net


def pruned(net, X, y, **changes):
    """A fitted LpNTKPruner that reads the reference net, and like the paper drops all that is redundant."""
    changes = {"max_redundant": 1.0, **changes}
    return LpNTKPruner(net, prefit=True, random_state=0, verbose=1, **changes).fit(X, y)


class Table:
    """Rows of a CSV file, each found again by its first columns, so that a study goes on where it was stopped."""

    def __init__(self, path, keys, values, minutes):
        self.path, self.columns, self.keys = Path(path), [*keys, *values], keys
        self.stop = time.monotonic() + 60 * minutes
        if not self.path.exists():
            with self.path.open("w", newline="") as file:
                csv.writer(file).writerow(self.columns)

    def rows(self):
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def missing(self, *key):
        """Whether a cell is still to be computed, and there is time for it."""
        known = {tuple(row[name] for name in self.keys) for row in self.rows()}
        return tuple(map(str, key)) not in known and time.monotonic() < self.stop

    def add(self, *row):
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        print(dict(zip(self.columns, row, strict=True)))

    def by(self, name):
        """Return rows grouped by a column, numbers read."""
        groups = {}
        for row in self.rows():
            groups.setdefault(row[name], []).append({k: _number(v) for k, v in row.items()})
        return groups


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
