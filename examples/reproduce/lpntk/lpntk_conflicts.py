"""Flipped labels found by conflicts, EL2N and cleanlab, at several shares of flips: rankings, and cut-offs.

    MODAL_NTK_DATA=... python examples/reproduce lpntk_conflicts OUT [--seeds 5] [--flips 0.02 0.075]

A thousand samples of MNIST drawn anew for each seed (scikit-learn's digits without the data), some labels flipped to
another class at random, a perceptron of 64-64 trained on them by Adam for 40 epochs. Printed: the share of flipped
labels among as many first suspects, and for the ways that have a cut-off of their own how many suspects they name and
how many of these are flipped. cleanlab is asked where it is installed. Runs go on where they were interrupted.
"""

import argparse
import csv
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import cross_val_predict
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import nets
from modal_ntk.bench import load_dataset
from modal_ntk.errors import UnknownNameError
from modal_ntk.pruning import EL2N, find_label_conflicts

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
COLUMNS = ["flips", "seed", "way", "precision", "suspects", "of them flipped"]


def samples(seed):
    """A thousand standardised flat samples and their labels."""
    try:
        data = load_dataset("digits" if SMALL else "mnist")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    rows = np.random.default_rng(seed).choice(len(data.x_train), 200 if SMALL else 1000, replace=False)
    x = data.x_train[rows].reshape(len(rows), -1)
    return ((x - x.mean()) / x.std()).astype(np.float32), data.y_train[rows]


def perceptron(d):
    """An untrained net."""
    layers = nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    return NeuralNetClassifier(
        nn.Sequential(*layers),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        batch_size=32,
        iterator_train__shuffle=True,
        max_epochs=3 if SMALL else 40,
        classes=list(range(10)),
        train_split=None,
        verbose=0,
    )


def ways(x, y, seed):
    """By way: suspicion of every row, and the rows it names if it has a cut-off."""
    with nets.seeded(seed):
        net = perceptron(x.shape[1]).fit(x, y)
        held_out = cross_val_predict(perceptron(x.shape[1]), x, y, cv=3, method="predict_proba").astype(np.float64)
    p = net.predict_proba(x).astype(np.float64)
    few = {"n_models": 2, "n_epochs": 1} if SMALL else {"n_models": 5, "n_epochs": 5}
    found = {
        "EL2N of the same net": (np.linalg.norm(p - np.eye(10)[y], axis=1), None),
        "EL2N of five young nets": (EL2N(perceptron(x.shape[1]), random_state=seed, **few).fit(x, y).scores_, None),
    }
    if importlib.util.find_spec("cleanlab"):
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        for name, probabilities in (("the same net", p), ("three-fold", held_out)):
            named = np.flatnonzero(find_label_issues(y, probabilities, n_jobs=1))
            found[f"cleanlab, {name}"] = -get_label_quality_scores(y, probabilities), named
    for name, conflicts in (
        ("the same net", find_label_conflicts(net, x, y, random_state=seed)),
        ("three-fold", find_label_conflicts(perceptron(x.shape[1]), x, y, n_folds=3, random_state=seed)),
    ):
        found[f"conflicts, {name}"] = conflicts.scores, conflicts.suspects
    return found


def study(path, *, seeds, shares):
    """Do what is not in the table yet."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
    done = {(float(row["flips"]), int(row["seed"])) for row in rows}
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if not rows:
            table.writeheader()
        for seed in range(seeds):
            for share in (share for share in shares if (share, seed) not in done):
                x, y = samples(seed)
                rng = np.random.default_rng(seed)
                flipped = rng.choice(len(y), round(share * len(y)), replace=False)
                y = y.copy()
                y[flipped] = (y[flipped] + rng.integers(1, 10, len(flipped))) % 10
                for way, (scores, named) in ways(x, y, seed).items():
                    first = np.argsort(-scores, kind="stable")[: len(flipped)]
                    cut = ("", "") if named is None else (len(named), int(np.isin(named, flipped).sum()))
                    values = share, seed, way, float(np.isin(first, flipped).mean()), *cut
                    table.writerow(dict(zip(COLUMNS, values, strict=True)))
                file.flush()


def table(path):
    """Lines of the table: means over seeds."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    lines = ["| flips | way | precision at the number of flips | suspects named | of them flipped | seeds |"]
    lines.append("|" + "---|" * 6)
    for flips, way in dict.fromkeys((row["flips"], row["way"]) for row in rows):
        some = [row for row in rows if (row["flips"], row["way"]) == (flips, way)]
        precision = np.array([float(row["precision"]) for row in some])
        spread = f" ± {precision.std(ddof=1):.3f}" if len(some) > 1 else ""
        cut = [f"{np.mean([float(row[c]) for row in some]):.0f}" if some[0][c] else "" for c in COLUMNS[4:]]
        means = f"{precision.mean():.3f}{spread}", *cut, str(len(some))
        lines.append(f"| {float(flips):.1%} | {way} | {' | '.join(means)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    parser.add_argument("--flips", type=float, nargs="+", default=[0.075] if SMALL else [0.02, 0.075])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        study(folder / "lpntk_conflicts.csv", seeds=arguments.seeds, shares=arguments.flips)
        print(*table(folder / "lpntk_conflicts.csv"), sep="\n")
