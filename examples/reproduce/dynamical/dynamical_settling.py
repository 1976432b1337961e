"""Does the labelled set's gradient settle? dynamicAL's scores after four ways of training on 500 images of CIFAR-10.

    MODAL_NTK_DATA=... python examples/reproduce dynamical_settling OUT [--seeds 3] [--pool 3000]

The net and its training are those of dynamical_table: Adam at the paper's 0.001 until 97 % of the labelled samples
are right, at the 2e-4 of the authors' script likewise, for 100 epochs at most, at 0.001 falling to zero within 40
epochs, or at 0.001 until 97 % and then for ten epochs at 1e-4. Written for each: the correlation of the scores with
their products with the labelled gradient, which is near one where that gradient ranks the pool alone; the squared
length of the labelled gradient over the median squared length in the pool; how many of the ten classes 500 picks are
of, and the share of the largest.

The same command goes on where it was interrupted. MODAL_NTK_SMALL=1, or no data, makes it seconds, on digits.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from cells import add, missing, rows
from dynamical_table import data_set, estimator

from modal_ntk import DynamicAL
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.nets import seeded

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
RECIPES = {
    "0.001 until 97 %": {"lr": 1e-3, "epochs": 100},
    "2e-4 until 97 %": {"lr": 2e-4, "epochs": 100},
    "0.001, annealed in 40 epochs": {"lr": 1e-3, "epochs": 40, "anneal": True},
    "0.001 until 97 %, ten epochs at 1e-4": {"lr": 1e-3, "epochs": 100},
}
COLUMNS = {
    "correlation": "correlation of scores and products",
    "ratio": "labelled gradient over the pool's median",
    "classes": "classes queried",
    "largest": "share of the largest",
}


def run(seed, recipe, data):
    """Train, query once, and measure."""
    n = 50 if data.name == "digits" else 500
    x, y = data.x_train, data.y_train
    labeled = np.random.default_rng(seed).choice(len(x), n, replace=False)
    rest = np.setdiff1d(np.arange(len(x)), labeled)
    options = dict(RECIPES[recipe])
    epochs = 2 if SMALL else options.pop("epochs")
    options.pop("epochs", None)
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", ModalNTKWarning)  # the noise is what is measured here
        net = estimator(data, "cpu", epochs, **options).fit(x[labeled], y[labeled])
        if recipe.endswith("ten epochs at 1e-4"):
            trained = net.module_.state_dict()
            net = estimator(data, "cpu", 2 if SMALL else 10, 1e-4, accuracy=2).initialize()  # ends at its epochs
            net.module_.load_state_dict(trained)
            net.partial_fit(x[labeled], y[labeled])
        known = {"X_labeled": x[labeled], "y_labeled": y[labeled]}
        whole = DynamicAL(random_state=seed).select(net, x[rest], len(rest), **known)
        alone = DynamicAL(influence=0, random_state=seed).select(net, x[rest], len(rest), **known)
    counts = np.bincount(y[rest[whole.indices[:n]]], minlength=len(data.classes))
    return {
        "seed": seed,
        "recipe": recipe,
        "accuracy": float(net.score(x[labeled], y[labeled])),
        "correlation": float(whole.info["influence_correlation"]),
        "ratio": float(whole.info["dynamics"] / np.median(alone.scores)),
        "classes": int((counts > 0).sum()),
        "largest": float(counts.max() / n),
    }


def table(found):
    """Lines of the table: means over the seeds, and their least and largest correlation."""
    lines = [f"| training | labelled right | {' | '.join(COLUMNS.values())} | seeds |", "|" + "---|" * 7]
    for recipe in (recipe for recipe in RECIPES if any(r["recipe"] == recipe for r in found)):
        some = [r for r in found if r["recipe"] == recipe]
        mean = {key: float(np.mean([r[key] for r in some])) for key in ("accuracy", *COLUMNS)}
        values = [r["correlation"] for r in some]
        cells = [
            recipe,
            f"{mean['accuracy']:.1%}",
            f"{mean['correlation']:.3f} ({min(values):.3f} to {max(values):.3f})",
        ]
        cells += [f"{mean['ratio']:,.0f}", f"{mean['classes']:.1f}", f"{mean['largest']:.0%}", str(len(some))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 3)
    parser.add_argument("--pool", type=int, default=3000, help="so many training images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        path, images = folder / "dynamical_settling.jsonl", data_set(SMALL, arguments.pool)
        cells = [(seed, recipe) for seed in range(arguments.seeds) for recipe in RECIPES]
        for cell in missing(path, cells, "seed", "recipe"):
            add(path, run(*cell, images))
        print(*table(rows(path)), sep="\n")
