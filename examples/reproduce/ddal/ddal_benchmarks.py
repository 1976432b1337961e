"""DDAL on MNIST and poker hands against other strategies, at several batch sizes, and on a million hands at once.

    MODAL_NTK_DATA=... python examples/reproduce ddal_benchmarks mnist OUT [--seeds 5] [--jobs 2]
    MODAL_NTK_DATA=... python examples/reproduce ddal_benchmarks poker OUT
    MODAL_NTK_DATA=... python examples/reproduce ddal_benchmarks batches OUT
    MODAL_NTK_DATA=... python examples/reproduce ddal_benchmarks features OUT
    python examples/reproduce ddal_benchmarks million

`mnist`: a balanced pool of 10,000 of the training images, its test set; the paper's net of 100 and 50 hidden units with
BatchNorm before each, Adam at 0.001, batches of 8, 100 epochs a round, trained on from round to round. `poker`: 10,000
hands of the training file, 20,000 of the test file, columns standardised; one hidden layer of 1,024, Adam at 0.0001.
The paper prints neither its query sizes nor, for poker, epochs and batches: ours are 40 labels, then 24 queries of 40
(MNIST); 100 labels, then 10 queries of 100, 50 epochs, batches of 32 (poker). `batches`: poker to 1,100 labels in
queries of 50, 100, 200 and 500, each in a folder of its own. `features`: the paper's net for CIFAR-10, two layers of
512 and 20 with dropout on frozen features, Adam at 0.0003 halved every 30 epochs, batches of 100, 100 epochs a round;
on cifar10_efficientnet (all 25,000) and, since SVHN is not at hand, on fashion_mnist_simclr (a balanced 20,000): 100
labels, then 10 queries of 100; the last arm has the paper's parameters. `million` deals hands at random and labels
them by the rules: synthetic data, not those of the UCI repository; the net that gives the embedding learns 1,000.

Runs go on where they were interrupted. Without the data, or with MODAL_NTK_SMALL=1, digits and dealt hands stand in.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ddal_checkerboard import SMALL, PlainNet, installed
from torch import nn

from modal_ntk import DDAL
from modal_ntk.bench import Dataset, load_dataset, report, run
from modal_ntk.errors import UnknownNameError

STRATEGIES = ["random_sampling", "least_confidence", "entropy", "margin", "coreset", "badge", "ddal"]

OF_PAPER = ["ddal:n_neighbors=20,n_steps=4,per_round=10"]


def deal(n, rng):
    """Hands of five cards, each as suit and rank five times, and their classes by the rules of poker."""
    cards = np.empty((n, 5), np.int64)
    for start in range(0, n, 50_000):
        block = cards[start : start + 50_000]
        block[:] = rng.random((len(block), 52)).argpartition(5, axis=1)[:, :5]
    suits, ranks = cards // 13 + 1, cards % 13 + 1
    X = np.stack([suits, ranks], axis=2).reshape(n, 10)
    return X.astype(np.float32), ranked(X)


def ranked(X):
    """Class of each hand: 0 nothing, pairs, three, straight, flush, full house, four, 8 straight flush, 9 royal."""
    suits, ranks = X[:, ::2].astype(int), np.sort(X[:, 1::2].astype(int), axis=1)
    counts = np.sort((ranks[:, :, None] == ranks[:, None]).sum(axis=2), axis=1)
    royal = (ranks == [1, 10, 11, 12, 13]).all(axis=1)
    straight = ((np.diff(ranks, axis=1) == 1).all(axis=1)) | royal
    flush = (suits == suits[:, :1]).all(axis=1)
    # Sorted: how many of a card's rank there are; (1,1,1,2,2) is a pair, (2,2,3,3,3) a full house.
    by_counts = {(1, 1, 1, 2, 2): 1, (1, 2, 2, 2, 2): 2, (1, 1, 3, 3, 3): 3, (2, 2, 3, 3, 3): 6, (1, 4, 4, 4, 4): 7}
    classes = np.zeros(len(X), np.int64)
    for pattern, number in by_counts.items():
        classes[(counts == pattern).all(axis=1)] = number
    for where, number in ((straight, 4), (flush, 5), (straight & flush, 8), (royal & flush, 9)):
        classes[where] = number
    return classes


class DigitNet(nn.Module):
    """Fully connected, 100 and 50 hidden units, BatchNorm before each."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(n_features),
            nn.Linear(n_features, 100),
            nn.ReLU(),
            nn.BatchNorm1d(100),
            nn.Linear(100, 50),
            nn.ReLU(),
        )
        self.head = nn.Linear(50, n_classes)

    def forward(self, x):
        return self.head(self.body(x))


class HandNet(nn.Module):
    """One hidden layer."""

    def __init__(self, n_hidden):
        super().__init__()
        self.hidden = nn.Linear(10, n_hidden)
        self.head = nn.Linear(n_hidden, 10)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x)))


class FeatureNet(nn.Sequential):
    """Two layers of 512 and 20 with dropout, on features."""

    def __init__(self, n_features, n_classes):
        super().__init__(
            nn.Linear(n_features, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 20), nn.ReLU(), nn.Dropout(),
            nn.Linear(20, n_classes),
        )  # fmt: skip


class HalvedNet(PlainNet):
    """A net whose rate is halved every 30 epochs."""

    decay = (30, 0.5)


def adam(module, *, lr, batch_size, epochs, kind=PlainNet, **sizes):
    """A net trained by Adam."""
    return kind(
        module,
        **{f"module__{name}": size for name, size in sizes.items()},
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,  # small nets spend most of a step on calls
        lr=lr,
        batch_size=batch_size,
        max_epochs=2 if SMALL else epochs,
        iterator_valid__batch_size=1000,
        classes=list(range(10)),
        train_split=None,
        verbose=0,
    )


def data_or_none(name):
    """A data set, or None where it is not to be had or all is to be small."""
    if SMALL:
        return None
    try:
        return load_dataset(name)
    except UnknownNameError as error:
        print(error)
        return None


def digits():
    """MNIST with a balanced pool of 10,000, or scikit-learn's digits."""
    data = data_or_none("mnist")
    if data is None:
        return load_dataset("digits")
    rng = np.random.default_rng(0)
    pool = np.concatenate([rng.choice(np.flatnonzero(data.y_train == c), 1000, replace=False) for c in range(10)])
    rng.shuffle(pool)
    return Dataset("mnist_10000", data.x_train[pool], data.y_train[pool], data.x_test, data.y_test, data.classes)


def hands():
    """Poker hands, standardised by the pool's moments; dealt ones stand in."""
    data, rng = data_or_none("poker_hand"), np.random.default_rng(0)
    if data is None:
        (X, y), (X_test, y_test) = deal(600, rng), deal(300, rng)
        name = "dealt_hands"
    else:
        pool = rng.choice(len(data.x_train), 10_000, replace=False)
        X, y, X_test, y_test = data.x_train[pool], data.y_train[pool], data.x_test[:20_000], data.y_test[:20_000]
        name = "poker_hand_10000"
    mean, scale = X.mean(axis=0), X.std(axis=0)
    return Dataset(name, (X - mean) / scale, y, (X_test - mean) / scale, y_test, np.arange(10))


def compare(data, estimator, out, more=(), most=None, **settings):
    """Run all strategies there are and print the table."""
    settings["n_rounds"] = min(settings["n_rounds"], most or settings["n_rounds"])
    names = [*installed(STRATEGIES), *more]
    run(data, names, out=out, estimator=estimator, reinitialise=False, progress=True, **settings)
    print(out, report(out).table, sep="\n")


def mnist(out, **settings):
    """Accuracy against labels on MNIST."""
    data = digits()
    estimator = adam(DigitNet, n_features=data.x_train[0].size, n_classes=10, lr=1e-3, batch_size=8, epochs=100)
    rounds = 1 if SMALL else 24
    compare(data, estimator, out, n_initial=40, batch_size=40, n_rounds=rounds, initial="stratified", **settings)


def poker(out, *, batch_size=100, **settings):
    """Accuracy against labels on poker hands."""
    rounds = 1 if SMALL else 1000 // batch_size
    batch = min(batch_size, 50) if SMALL else batch_size
    estimator = adam(HandNet, n_hidden=1024, lr=1e-4, batch_size=32, epochs=50)
    compare(hands(), estimator, out, n_initial=100, batch_size=batch, n_rounds=rounds, **settings)


def features(out, **settings):
    """Accuracy against labels on frozen features."""
    for name, n in {"cifar10_efficientnet": 25_000, "fashion_mnist_simclr": 20_000}.items():
        data = data_or_none(name) or (load_dataset("digits") if SMALL else None)
        if data is None:
            continue
        rng, each = np.random.default_rng(0), n // 10
        members = [np.flatnonzero(data.y_train == c) for c in range(10)]
        pool = np.sort(np.concatenate([rng.permutation(rows)[:each] for rows in members]))
        mean, scale = data.x_train[pool].mean(axis=0), data.x_train[pool].std(axis=0) + 1e-6
        x, x_test = (data.x_train[pool] - mean) / scale, (data.x_test - mean) / scale
        data = Dataset(f"{name}_{len(pool)}", x, data.y_train[pool], x_test, data.y_test, data.classes)
        sizes = {"n_features": x.shape[1], "n_classes": 10}
        estimator = adam(FeatureNet, lr=3e-4, batch_size=100, epochs=100, kind=HalvedNet, **sizes)
        rounds = 1 if SMALL else 10
        protocol = {"n_initial": 100, "batch_size": 100, "n_rounds": rounds, "initial": "stratified"}
        compare(data, estimator, Path(out, name), more=OF_PAPER, **protocol, **settings)


def batches(out, **settings):
    """The same number of labels in queries of several sizes."""
    for size in (50, 100, 200, 500):
        poker(Path(out, f"batch_{size}"), batch_size=size, **settings)


def million(n_hidden=64, n_picks=1000):
    """One query on a million dealt hands, by the embedding of a net that has learnt 1,000."""
    n = 3_000 if SMALL else 1_000_000
    X, y = deal(n, np.random.default_rng(0))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    print(f"{n} hands dealt at random and labelled by rule (synthetic); per class {np.bincount(y, minlength=10)}")
    torch.manual_seed(0)
    net = adam(HandNet, n_hidden=n_hidden, lr=1e-3, batch_size=32, epochs=50).fit(X[:1000], y[:1000])
    started = time.perf_counter()
    known = {"X_labeled": X[:1000], "y_labeled": y[:1000]}
    selected = DDAL(per_round=100, random_state=0).select(net, X[1000:], n_picks, **known)
    info = selected.info
    print(f"{n_picks} picked in {time.perf_counter() - started:.1f} s; stage {info['stage']}, T={info['n_steps']}")
    print(f"unreached {info['n_unreached']}, hops {info['hops']}")
    print("seconds:", {name: round(seconds, 2) for name, seconds in info["seconds"].items()})
    print(f"classes picked {np.bincount(y[1000:][selected.indices], minlength=10)}")


STUDIES = {"mnist": mnist, "poker": poker, "batches": batches, "features": features}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="mnist", choices=[*STUDIES, "million"])
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    parser.add_argument("--rounds", type=int, help="queries, where fewer are wanted than the study has")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // arguments.jobs))
    if arguments.study == "million":
        million()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            given = {"seeds": arguments.seeds, "jobs": arguments.jobs}
            STUDIES[arguments.study](arguments.out or scratch, most=arguments.rounds, **given)
