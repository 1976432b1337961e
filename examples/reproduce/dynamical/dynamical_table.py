"""dynamicAL against other strategies by the paper's protocol: CIFAR-10, 500 labels, 500 more at each query.

    MODAL_NTK_DATA=... python examples/reproduce dynamical_table OUT
    MODAL_NTK_DATA=... python examples/reproduce dynamical_table OUT --seeds 5 --rounds 9 --device cuda   in full

The net is that of PyTorch's CIFAR tutorial, trained by Adam from round to round without starting anew, each time until
97% of the labelled samples are right in an epoch, as the authors' code does, or for 100 epochs; the rate is that of
their script, 2e-4 (the paper: 0.001, by `--lr`). `dynamical:influence=0` leaves the labelled set's gradient out. With
`--anneal` the rate falls to zero instead in every round, so that this gradient settles (dynamical_settling.py).
`--reinitialise --accuracy 0.99` starts every round anew, as tables 11 and 12 do. Strategies that are not installed are
left out. The same command goes on where it was interrupted; OUT/table.md holds the result beside the paper's figures
(table 3 of its appendix). Without the data set, or with MODAL_NTK_SMALL=1, enlarged digits stand in at a size that
takes seconds.
"""

import argparse
import dataclasses
import math
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from modal_ntk import list_strategies
from modal_ntk.bench import load_dataset, report, run
from modal_ntk.errors import UnknownNameError

# Mean test accuracy in per cent at 500, 1,000, ... labels.
PAPER = {
    "random_sampling": [32.26, 34.87, 36.45, 37.16, 37.89, 38.59, 39.15, 39.51, 39.90, 40.17],
    "margin": [32.31, 34.89, 36.69, 37.99, 39.15, 39.98, 40.70, 40.99, 41.39, 41.64],
    "entropy": [32.29, 34.58, 36.50, 37.30, 38.23, 39.01, 39.68, 40.09, 40.39, 40.71],
    "coreset": [32.54, 33.84, 35.96, 36.20, 36.73, 37.33, 37.97, 38.53, 39.06, 39.43],
    "least_confidence": [32.32, 34.75, 36.73, 38.12, 39.10, 39.81, 40.47, 41.05, 41.30, 41.55],
    "albl": [32.41, 34.08, 35.62, 36.55, 37.20, 37.80, 38.47, 39.11, 39.55, 39.95],
    "badge": [32.49, 34.44, 36.41, 37.56, 38.49, 39.61, 40.55, 40.97, 41.27, 41.41],
    "dynamical": [32.37, 34.88, 36.78, 38.30, 39.37, 40.09, 40.75, 41.21, 41.59, 41.78],
}


class TutorialNet(nn.Sequential):
    """Two convolutions and three linear layers for images of 32x32 pixels."""

    def __init__(self, n_channels, n_classes):
        super().__init__(
            nn.Conv2d(n_channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )


class StopAtAccuracy(Callback):
    """End training after the first epoch in which enough samples were classified right on the way."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def __repr__(self):
        return f"StopAtAccuracy({self.accuracy})"

    def on_epoch_begin(self, *_, **__):
        self.right = self.seen = 0

    def on_batch_end(self, *_, batch, training, y_pred, **__):
        if training:
            self.right += int((y_pred.argmax(1).cpu() == batch[1].cpu()).sum())
            self.seen += len(y_pred)

    def on_epoch_end(self, *_, **__):
        if self.right >= self.accuracy * self.seen:
            raise KeyboardInterrupt  # skorch's own way to end training early, which it does not pass on


class Annealed(Callback):
    """Let the rate fall to zero along half a cosine in every round's epochs."""

    def __repr__(self):
        return "Annealed()"

    def on_train_begin(self, *_, **__):
        self.epoch = 0

    def on_epoch_begin(self, net, **__):
        for group in net.optimizer_.param_groups:
            group["lr"] = net.lr * (1 + math.cos(math.pi * self.epoch / net.max_epochs)) / 2
        self.epoch += 1


def data_set(small, n_pool):
    """CIFAR-10 in [-1, 1], or digits blown up to its shape."""
    try:
        data = load_dataset("digits" if small else "cifar10")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    parts = {"x_train": data.x_train[:n_pool], "x_test": data.x_test}
    if data.name == "digits":
        parts = {name: np.kron(x.reshape(-1, 1, 8, 8), np.ones((4, 4), "float32")) for name, x in parts.items()}
    parts = {name: 2 * x - 1 for name, x in parts.items()}
    return dataclasses.replace(data, **parts, y_train=data.y_train[:n_pool])


def estimator(data, device, max_epochs, lr, accuracy=0.97, anneal=False):
    """An unfitted net."""
    ending = ("anneal", Annealed()) if anneal else ("stop", StopAtAccuracy(accuracy))
    return NeuralNetClassifier(
        TutorialNet,
        module__n_channels=data.x_train.shape[1],
        module__n_classes=len(data.classes),
        classes=list(range(len(data.classes))),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=512,
        train_split=None,
        callbacks=[ending],
        device=device,
        verbose=0,
    )


def write(out, options, table, data, store):
    """The table with what it came from, and the paper's."""
    rows = store.rows()
    names = [name for name in PAPER if any(row.strategy == name for row in rows)]
    n_rounds = max(row.round for row in rows) + 1
    paper = [f"| labels | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
    for i in range(min(n_rounds, 10)):
        paper.append(f"| {500 * (i + 1)} | {' | '.join(f'{PAPER[name][i]:.2f}' for name in names)} |")
    seconds = {name: [row.query_seconds for row in rows if row.strategy == name and row.round] for name in names}
    spent = ", ".join(f"{name} {np.mean(s):.1f}" for name, s in seconds.items() if s)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    gpu = options.device.startswith("cuda")
    machine = torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} CPU cores"
    command = " ".join("OUT" if word == options.out else word for word in sys.argv[1:])
    protocol = ", ".join(f"{key} {value}" for key, value in store.protocol().items() if key != "estimator")
    lines = [
        "# dynamicAL by the paper's protocol",
        "",
        f"command: MODAL_NTK_DATA=... python examples/reproduce dynamical_table {command}",
        f"data: {data.name}, {len(data.x_train)} in the pool, {len(data.x_test)} test; {protocol}",
        f"versions: {versions}",
        f"machine: {machine}",
        f"mean seconds of a query: {spent}",
        "",
        "Test accuracy, mean and standard deviation over seeds:",
        "",
        "```",
        table,
        "```",
    ]
    if data.name == "cifar10":
        lines += ["", "The paper's means, in per cent, over 5 seeds and the whole training set:", "", *paper]
    (out / "table.md").write_text("\n".join(lines) + "\n")


def main(argv):
    """Run what is missing, print and write the table."""
    small = bool(os.environ.get("MODAL_NTK_SMALL"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--seeds", type=int, default=1 if small else 3)
    parser.add_argument("--rounds", type=int, default=1 if small else 5, help="number of queries")
    parser.add_argument("--pool", type=int, help="take the first so many training images only")
    parser.add_argument("--epochs", type=int, default=3 if small else 100, help="at most, in each round")
    parser.add_argument("--lr", type=float, default=2e-4, help="Adam's rate")
    parser.add_argument("--anneal", action="store_true", help="let the rate fall to zero in all --epochs of a round")
    parser.add_argument("--reinitialise", action="store_true", help="start anew in every round (tables 11 and 12)")
    parser.add_argument("--accuracy", type=float, default=0.97, help="on the labelled samples, at which a round ends")
    parser.add_argument("--strategy", action="append", help="one of several; by default the paper's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    arguments = parser.parse_args(argv)
    data = data_set(small, arguments.pool)
    installed = {strategy.spec.name for strategy in list_strategies()}
    strategies = arguments.strategy or [*(name for name in PAPER if name in installed), "dynamical:influence=0"]
    size = 500 if data.name == "cifar10" else 50
    store = run(
        data,
        strategies,
        out=arguments.out,
        seeds=arguments.seeds,
        n_initial=size,
        batch_size=size,
        n_rounds=arguments.rounds,
        reinitialise=arguments.reinitialise,
        estimator=estimator(
            data, arguments.device, arguments.epochs, arguments.lr, arguments.accuracy, arguments.anneal
        ),
        jobs=arguments.jobs,
        progress=True,
    )
    table = report(arguments.out).table
    write(Path(arguments.out), arguments, table, data, store)
    print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
