"""WAAL on Fashion-MNIST from 300 labels to 2,500 (the paper's figure 3 and table 4): what its critic adds.

    MODAL_NTK_DATA=... python examples/reproduce waal_fashion_mnist OUT [--seeds 5] [--device cuda]

The arms are those of waal_starved, and before them

    plain                trained on the labels alone, random queries: the paper's "Random"
    no critic, random    as many steps as WAAL takes, without the critic, and random queries

The paper has a pool of 40,000, 20,000 samples for early stopping and 80 epochs, of which each passes as often as the
pool is large. Here the pool is --pool of the first 10,000 training images, there are --epochs, plain training has four
times as many, and none stops early; with --half, images are of 14 x 14 pixels, and as many features come from one
layer with ReLU. The rest is the paper's: LeNet with 320 features, heads of 50 hidden units,
batches of 64, SGD at 0.01 falling at one half and three quarters, momentum 0.5, mu = 0.01, selection coefficient 5,
from scratch in every round.

Every round is stored as soon as it is done. The same command goes on where it was, and may be started several times at
once, on several devices. Without the data set, or with MODAL_NTK_SMALL=1, digits stand in, with two epochs.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from cells import add, claimed, rows
from torch import nn
from waal_starved import ARMS as OF_STARVED
from waal_starved import MEANING, table

from modal_ntk import ActiveLearner, RandomSampling
from modal_ntk.bench import load_dataset
from modal_ntk.errors import ModalNTKWarning, UnknownNameError
from modal_ntk.nets import WAALClassifier, seeded

ARMS = {
    "plain": ({}, lambda seed: RandomSampling(random_state=seed)),
    "no critic, random": ({"mu": 0.0}, lambda seed: RandomSampling(random_state=seed)),
    **{name: arm for name, arm in OF_STARVED.items() if name != "random"},
}
BUDGETS = [300, 500, 1000, 1500, 2000, 2500]
SETTINGS = ("epochs", "pool", "budgets")
# Accuracy in per cent at 1,000, 1,500, 2,000 and 2,500 labels.
PAPER = {"Random": [58.03, 66.81, 71.21, 73.12], "WAAL": [72.29, 76.99, 79.85, 81.08]}


def settings_of(options):
    """What a row says of its run."""
    settings = {name: getattr(options, name) for name in SETTINGS}
    return settings | {"half": True, "lr": options.lr} if options.half else settings


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()
    )


def one_layer():
    """As many features, of images of half the size."""
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 320), nn.ReLU())


def perceptron():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU())


def data_and_extractor(options):
    """Standardised samples (x, y, x_test, y_test) and the extractor."""
    try:
        data = load_dataset("digits" if os.environ.get("MODAL_NTK_SMALL") else "fashion_mnist")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    if data.name == "digits":
        options.pool, options.budgets, options.epochs, options.half = 800, [50, 70], 2, False
    chosen = np.random.default_rng(0).permutation(len(data.x_train[:10_000]))[: options.pool]
    x = data.x_train[chosen]
    mean, std = x.mean(), x.std()
    x, x_test = (((part - mean) / std).astype(np.float32) for part in (x, data.x_test))
    if options.half:
        x, x_test = (part.reshape(len(part), 1, 14, 2, 14, 2).mean(axis=(3, 5)) for part in (x, x_test))
    extractor = perceptron if data.name == "digits" else one_layer if options.half else lenet
    return (x, data.y_train[chosen], x_test, data.y_test), extractor


def one_round(arm, seed, labeled, n_next, data, extractor, options):
    """Fit to the labelled rows, score on the test set and choose the next rows."""
    x, y, x_test, y_test = data
    training, query = ARMS[arm]
    rest = np.setdiff1d(np.arange(len(x)), labeled)
    net = WAALClassifier(
        extractor,
        classes=range(10),
        n_instances=n_next,
        lr=options.lr,
        max_epochs=options.epochs * (4 if arm == "plain" else 1),
        iterator_valid__batch_size=1024,
        device=options.device,
        verbose=0,
        **training,
    )
    given = {} if arm == "plain" else {"X_unlabeled": x[rest]}
    started = time.perf_counter()
    with seeded(1000 * seed + len(labeled) % 997), warnings.catch_warnings():
        warnings.simplefilter("ignore", ModalNTKWarning)  # plain training is what is wanted where it is said
        learner = ActiveLearner(net, query(seed), x[labeled], y[labeled], **given)
    seconds = time.perf_counter() - started
    chosen = rest[learner.query(x[rest], n_instances=n_next)[0]] if n_next else rest[:0]
    return {
        "arm": arm,
        "seed": seed,
        "n_labels": len(labeled),
        "accuracy": float(learner.score(x_test, y_test)),
        "auc": net.history[-1].get("critic_auc"),
        "fit_seconds": round(seconds, 2),
        "device": options.device,
        "settings": settings_of(options),
        "chosen": chosen.tolist(),
    }


def run_cell(seed, arm, data, extractor, options):
    """Do the rounds of one arm and seed that are not stored yet."""
    settings = settings_of(options)
    stored = [r for r in rows(options.path) if (r["arm"], r["seed"], r["settings"]) == (arm, seed, settings)]
    # All arms of a seed start from the same rows.
    labeled = np.random.default_rng(seed).choice(len(data[0]), options.budgets[0], replace=False)
    labeled = np.concatenate([labeled, *(r["chosen"] for r in stored)]).astype(np.int64)
    for n_next in np.diff([*options.budgets, options.budgets[-1]])[len(stored) :]:
        result = one_round(arm, seed, labeled, int(n_next), data, extractor, options)
        add(options.path, result)
        labeled = np.concatenate([labeled, result["chosen"]]).astype(np.int64)
        shown = {name: result[name] for name in ("n_labels", "accuracy", "auc", "fit_seconds")}
        print(arm, f"seed {seed}", shown, flush=True)


def summary(found):
    """Lines of the table."""
    known = [(f"AUC at {min(r['n_labels'] for r in found):,}", "auc", 0)]
    known.append((f"at {max(r['n_labels'] for r in found):,}", "auc", -1))
    return table(found, list(ARMS), known)


def figure(found, path):
    """Draw the curves and the paper's."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7, 4.5), layout="constrained").subplots()
    budgets = sorted({r["n_labels"] for r in found})
    for arm in (arm for arm in ARMS if any(r["arm"] == arm for r in found)):
        scores = [[100 * r["accuracy"] for r in found if (r["arm"], r["n_labels"]) == (arm, n)] for n in budgets]
        axes.plot(budgets, [np.mean(s) if s else np.nan for s in scores], marker="o", label=arm)
    for name, scores in PAPER.items():
        axes.plot(BUDGETS[2:], scores, "k:" if name == "Random" else "k--", label=f"{name}, the paper's")
    axes.set(xlabel="labels", ylabel="test accuracy in %", title="Fashion-MNIST, means over the seeds")
    axes.legend(fontsize=8)
    axes.figure.savefig(path, dpi=110)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=[a for a in ARMS if "spread" not in a])
    parser.add_argument("--seeds", type=int, default=1 if os.environ.get("MODAL_NTK_SMALL") else 5)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pool", type=int, default=8000)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--half", action="store_true", help="images of half the size and one layer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--report", action="store_true", help="show what is stored, and do nothing more")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        options.path = folder / "waal_fashion_mnist.jsonl"
        if not options.report:
            data, extractor = data_and_extractor(options)
            # Seeds outermost: whatever is stored compares the arms.
            for seed, arm in claimed(folder, [(seed, arm) for seed in range(options.seeds) for arm in options.arms]):
                run_cell(seed, arm, data, extractor, options)
        found = rows(options.path)
        print(f"Fashion-MNIST: {MEANING}", *summary(found), sep="\n")
        figure(found, folder / "waal_fashion_mnist.png")


if __name__ == "__main__":
    main()
