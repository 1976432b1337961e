"""Rules of lpNTK, look-ahead and dynamicAL on small data, in pairs.

    MODAL_NTK_DATA=... python examples/reproduce small_queries OUT [--task digits mnist fashion] [--seeds 5]

A pool of 1,200 drawn anew for each seed from scikit-learn's digits, from MNIST or from 512 features of Fashion-MNIST
(fashion_mnist_simclr), 2,000 test samples where there are as many; a perceptron of 64-64 trained from scratch by Adam,
batches of 32, 60 epochs; 20 random labels, the same for all arms of a seed, and six queries of 20. The area is the mean
accuracy over the seven rounds. Written: OUT/small_queries.jsonl, a line a run; the same command goes on from it, and
may be started several times at once. MODAL_NTK_SMALL=1 makes it seconds.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from cells import add, curve_table, missing, rows
from ddal_checkerboard import PlainNet
from torch import nn

from modal_ntk import get_strategy
from modal_ntk.bench import load_dataset

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
ARMS = {
    "random_sampling": {},
    "badge": {},
    "lpntk": {},
    "lpntk:rule=clusters": {"rule": "clusters"},
    "lookahead": {},
    "lookahead:outputs=logits": {"outputs": "logits"},
    "dynamical": {},
    "dynamical:influence=0": {"influence": 0},
}
TASKS = {"digits": ("digits", 3e-3), "mnist": ("mnist", 2e-3), "fashion": ("fashion_mnist_simclr", 2e-3)}


def samples(task, seed):
    """Standardised flat samples and labels of the seed's pool, and the test set."""
    data, rng = load_dataset(TASKS[task][0]), np.random.default_rng(100 + seed)
    n = min(200 if SMALL else 1200, len(data.x_train))
    rows = rng.choice(len(data.x_train), n, replace=False)
    x = data.x_train[rows].reshape(n, -1).astype(np.float32)
    x_test = data.x_test[:2000].reshape(len(data.x_test[:2000]), -1).astype(np.float32)
    mean, scale = x.mean(), x.std()
    return (x - mean) / scale, data.y_train[rows], (x_test - mean) / scale, data.y_test[:2000]


def perceptron(d, lr):
    """An untrained net."""
    return PlainNet(
        lambda: nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        batch_size=32,
        max_epochs=5 if SMALL else 60,
        iterator_valid__batch_size=2000,
        classes=list(range(10)),
        train_split=None,
        verbose=0,
    )


def accuracies(task, arm, seed):
    """Accuracy after every round of one run."""
    x, y, x_test, y_test = samples(task, seed)
    strategy = get_strategy(arm.split(":")[0], random_state=seed, **ARMS[arm])
    labeled, scores = np.random.default_rng(seed).choice(len(x), 20, replace=False), []
    for number in range(2 if SMALL else 7):
        torch.manual_seed(1000 * seed + number)
        net = perceptron(x.shape[1], TASKS[task][1]).fit(x[labeled], y[labeled])
        scores.append(float((net.predict(x_test) == y_test).mean()))
        rest = np.setdiff1d(np.arange(len(x)), labeled)
        known = {"X_labeled": x[labeled], "y_labeled": y[labeled]}
        labeled = np.concatenate([labeled, rest[strategy.select(net, x[rest], 20, **known).indices]])
    return scores


def tables(found):
    """Lines of each task's table: mean curves, areas and their paired differences to random sampling."""
    lines = {}
    for task in (t for t in TASKS if any(r["task"] == t for r in found)):
        curves = {}
        for arm in ARMS:
            for r in (r for r in found if (r["task"], r["arm"]) == (task, arm)):
                curve = {20 * (i + 1): value for i, value in enumerate(r["accuracies"])}
                curves.setdefault(arm, {})[r["seed"]] = curve
        lines[task] = curve_table(curves, ["random_sampling"])
    return lines


def main(out, tasks, arms, seeds):
    """Run what is missing, and print the tables."""
    path = Path(out, "small_queries.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [(seed, task, arm) for seed in range(seeds) for task in tasks for arm in arms]
    for seed, task, arm in missing(path, cells, "seed", "task", "arm"):
        add(path, {"task": task, "arm": arm, "seed": seed, "accuracies": accuracies(task, arm, seed)})
    for task, lines in tables(rows(path)).items():
        print(task, *lines, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=["digits"] if SMALL else list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        main(arguments.out or scratch, arguments.task, arguments.arms, arguments.seeds)
