"""WAAL on Fashion-MNIST: accuracy from 1,000 labels on, trained against the critic and plainly (the paper's table 4).

    MODAL_NTK_DATA=... python examples/reproduce/waal_fashion_mnist.py OUT
    MODAL_NTK_DATA=... python examples/reproduce/waal_fashion_mnist.py OUT --rounds 10 --seeds 5 --device cuda \
        --arms plain:random_sampling plain:least_confidence plain:margin plain:entropy waal:waal

An arm is a training and a query. Trainings: "waal"; "plain", on the labels alone; "steps", on the labels alone but
with as many steps an epoch as WAAL takes, which tells the critic's part from that of longer training; "h_divergence",
the paper's ablation; "official", the authors' code. Queries: the names of `modal-ntk strategies`.

The paper's settings: 40,000 samples to label, 20,000 for early stopping, LeNet with 320 features, heads of 50 hidden
units, batches of 64, at most 80 epochs, SGD at 0.01 falling at one half and three quarters, momentum 0.5, mu = 0.01,
selection coefficient 5; from scratch in every round. Its table has 72.29 (WAAL) against 58.03 (random) at 1,000
labels. `--epochs`, `--pool` and `--validation` make it shorter, and are written beside every result.

Every round is stored in OUT as soon as it is done; started again, the script goes on where it was, also with more
rounds, seeds or arms. Without the data set, or with MODAL_NTK_SMALL=1, digits stand in, with two epochs.
"""

import argparse
import csv
import json
import os
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

from modal_ntk import ActiveLearner, get_strategy
from modal_ntk.bench import load_dataset
from modal_ntk.errors import ModalNTKWarning, UnknownNameError
from modal_ntk.nets import WAALClassifier, seeded

TRAININGS = {
    "waal": {},
    "plain": {},
    "steps": {"mu": 0.0},
    "h_divergence": {"h_divergence": True},
    "official": {"official_code": True, "mu": 2e-3},
}
SETTINGS = ("epochs", "batch", "pool", "validation", "initial")


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()
    )


def perceptron():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU())


def data_and_extractor(options):
    """Standardised samples (x, y, x_valid, y_valid, x_test, y_test), split as the paper does, and the extractor."""
    try:
        data = load_dataset("digits" if options.small else "fashion_mnist")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    if data.name == "digits":
        options.pool, options.validation, options.initial, options.batch, options.epochs = 800, 200, 50, 20, 2
    order = np.random.default_rng(0).permutation(len(data.x_train))
    rows, valid = order[: options.pool], order[options.pool : options.pool + options.validation]
    mean, std = data.x_train[rows].mean(), data.x_train[rows].std()
    x, x_valid, x_test = (((part - mean) / std).astype(np.float32) for part in _parts(data, rows, valid))
    extractor = perceptron if data.name == "digits" else lenet
    return (x, data.y_train[rows], x_valid, data.y_train[valid], x_test, data.y_test), extractor


def _parts(data, rows, valid):
    return data.x_train[rows], data.x_train[valid], data.x_test


def one_round(arm, seed, labeled, data, extractor, options):
    """Fit to the labelled rows, score on the test set and choose the next rows."""
    x, y, x_valid, y_valid, x_test, y_test = data
    training, strategy = arm.split(":")
    rest = np.setdiff1d(np.arange(len(x)), labeled)
    net = WAALClassifier(
        extractor,
        classes=range(10),
        n_instances=options.batch,
        max_epochs=options.epochs,
        train_split=predefined_split(Dataset(x_valid, y_valid)) if len(x_valid) else None,
        iterator_valid__batch_size=1024,
        callbacks__valid_acc=None,
        device=options.device,
        verbose=0,
        **TRAININGS[training],
    )
    given = {} if training == "plain" else {"X_unlabeled": x[rest]}
    started = time.perf_counter()
    with seeded(1000 * seed + len(labeled) % 997), warnings.catch_warnings():
        warnings.simplefilter("ignore", ModalNTKWarning)  # plain training is what is wanted where it is said
        learner = ActiveLearner(net, get_strategy(strategy, random_state=seed), x[labeled], y[labeled], **given)
    fitted = time.perf_counter()
    chosen = rest[learner.query(x[rest], n_instances=options.batch)[0]]
    return {
        "arm": arm,
        "seed": seed,
        "n_labels": len(labeled),
        "accuracy": float(learner.score(x_test, y_test)),
        "epochs_run": len(net.history),
        "transport": net.history[-1].get("transport"),
        "penalty": net.history[-1].get("penalty"),
        "fit_seconds": round(fitted - started, 2),
        "query_seconds": round(time.perf_counter() - fitted, 3),
        "settings": {name: getattr(options, name) for name in SETTINGS},
        "chosen": chosen.tolist(),
    }


def results(out):
    path = Path(out) / "waal_fashion_mnist.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_cell(arm, seed, data, extractor, options):
    """Do the rounds of one arm and seed that are not stored yet."""
    settings = {name: getattr(options, name) for name in SETTINGS}
    wanted = (arm, seed, settings)
    stored = [r for r in results(options.out) if (r["arm"], r["seed"], r["settings"]) == wanted]
    # All arms of a seed start from the same rows.
    first = np.random.default_rng(seed).choice(len(data[0]), options.initial, replace=False)
    labeled = np.concatenate([first, *(r["chosen"] for r in stored)]).astype(np.int64)
    for _ in range(len(stored), options.rounds + 1):
        result = one_round(arm, seed, labeled, data, extractor, options)
        with open(Path(options.out) / "waal_fashion_mnist.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        labeled = np.concatenate([labeled, result["chosen"]])
        shown = {name: result[name] for name in ("n_labels", "accuracy", "epochs_run", "fit_seconds")}
        print(arm, f"seed {seed}", shown, flush=True)


def summary(out):
    """Write and return accuracy in percent, mean and deviation, for each arm, number of labels and settings."""
    groups = {}
    for r in results(out):
        key = (json.dumps(r["settings"]), r["arm"], r["n_labels"])
        groups.setdefault(key, []).append(100 * r["accuracy"])
    rows = [
        [arm, n, round(statistics.fmean(v), 2), round(statistics.stdev(v), 2) if len(v) > 1 else "", len(v), settings]
        for (settings, arm, n), v in sorted(groups.items())
    ]
    with open(Path(out) / "waal_fashion_mnist.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "n_labels", "accuracy", "std", "n_seeds", "settings"])
        writer.writerows(rows)
    return rows


def figure(out, rows):
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(6, 4)).subplots()
    for label in dict.fromkeys((row[0], row[5]) for row in rows):
        curve = [row for row in rows if (row[0], row[5]) == label]
        deviations = [row[3] or 0 for row in curve]
        axes.errorbar([row[1] for row in curve], [row[2] for row in curve], deviations, label=label[0], marker="o")
    axes.set(xlabel="labels", ylabel="test accuracy in %", title="Fashion-MNIST, mean and standard deviation")
    axes.legend()
    axes.figure.savefig(Path(out) / "waal_fashion_mnist.png", dpi=150, bbox_inches="tight")
    plt.close(axes.figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="waal_results", help="folder of the results")
    parser.add_argument("--arms", nargs="+", default=["plain:random_sampling", "steps:random_sampling", "waal:waal"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=0, help="queries after the initial labels")
    parser.add_argument("--initial", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=500, help="labels of a query")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--pool", type=int, default=40000)
    parser.add_argument("--validation", type=int, default=20000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    options.small = bool(os.environ.get("MODAL_NTK_SMALL"))
    Path(options.out).mkdir(parents=True, exist_ok=True)
    data, extractor = data_and_extractor(options)
    for seed in range(options.seeds):  # seeds outermost: whatever is stored compares the arms
        for arm in options.arms:
            run_cell(arm, seed, data, extractor, options)
    rows = summary(options.out)
    for row in rows:
        print(*row, sep="  ")
    figure(options.out, rows)


if __name__ == "__main__":
    main()
