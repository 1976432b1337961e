"""DDAL's defaults, paired: picks a diffusion and the graph's edges, on the checkerboards and on a small MNIST.

    MODAL_NTK_DATA=... python examples/reproduce ddal_defaults OUT [--task binary multiclass mnist] [--seeds 5]

The boards are those of ddal_checkerboard.py, 44 queries of 10, but tested on 4,000 points, since paired differences are
small. MNIST is a balanced pool of 1,500, drawn anew for each seed, the paper's net of 100 and 50, 40 labels and six
queries of 40, tested on 3,000. The area is the mean accuracy over all rounds. Written: OUT/ddal_defaults.jsonl, a line
a run; the same command goes on from it, and may be started several times at once. MODAL_NTK_SMALL=1 makes it seconds.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from cells import add, curve_table, missing, rows
from ddal_benchmarks import DigitNet, adam, data_or_none
from ddal_checkerboard import SMALL, board_net, checkerboard

from modal_ntk import get_strategy
from modal_ntk.bench import SimulatedActiveLearning, load_dataset

ARMS = {
    "random_sampling": {},
    "coreset": {},
    "ddal:per_round=None,symmetrise=None": {"per_round": None, "symmetrise": None},
    "ddal:per_round=5,symmetrise=None": {"per_round": 5, "symmetrise": None},
    "ddal:symmetrise=None": {"symmetrise": None},
    "ddal": {},
}
CLASSES = {"binary": 2, "multiclass": 4, "mnist": 10}


def board(n_classes):
    """Pool and test set of a checkerboard, its net and protocol."""
    parts = checkerboard(n_classes, 300 if SMALL else 2000, np.random.default_rng(0))
    tested = checkerboard(n_classes, 200 if SMALL else 4000, np.random.default_rng(77))
    protocol = {"n_initial": 4 * n_classes, "batch_size": 10, "n_rounds": 2 if SMALL else 44}
    return parts, tested, board_net(n_classes), protocol


def mnist(seed):
    """A balanced pool of the seed's own, the first test images, the paper's net and the protocol."""
    data, rng = data_or_none("mnist") or load_dataset("digits"), np.random.default_rng(seed)
    each = 15 if SMALL else 150
    rows = np.concatenate([rng.choice(np.flatnonzero(data.y_train == c), each, replace=False) for c in range(10)])
    rng.shuffle(rows)
    net = adam(DigitNet, n_features=data.x_train[0].size, n_classes=10, lr=1e-3, batch_size=8, epochs=100)
    protocol = {"n_initial": 40, "batch_size": 40, "n_rounds": 1 if SMALL else 6}
    return (data.x_train[rows], data.y_train[rows]), (data.x_test[:3000], data.y_test[:3000]), net, protocol


def accuracies(task, arm, seed):
    """Accuracy after every round of one run."""
    (X, y), tested, net, protocol = mnist(seed) if task == "mnist" else board(CLASSES[task])
    strategy = get_strategy(arm.split(":")[0], random_state=seed, **ARMS[arm])
    protocol |= {"initial": "stratified", "reinitialise": False, "random_state": seed}
    simulation = SimulatedActiveLearning(net, strategy, evaluation_set=tested, **protocol)
    return [float(entry.score) for entry in simulation.fit(X, y).curve_]


FIRST = {"binary": (8, 10), "multiclass": (16, 10), "mnist": (40, 40)}  # first labels, and labels a query
SHOWN = {"binary": [8, 18, 148, 448], "multiclass": [16, 26, 156, 456]}  # after 0, 1, 14 and 44 queries


def tables(found):
    """Lines of each task's table: means by labels, areas, paired differences to random sampling and CoreSet."""
    lines = {}
    for task in (t for t in CLASSES if any(r["task"] == t for r in found)):
        curves, (first, each) = {}, FIRST[task]
        for arm in ARMS:
            for r in (r for r in found if (r["task"], r["arm"]) == (task, arm)):
                curve = {first + each * i: value for i, value in enumerate(r["accuracies"])}
                curves.setdefault(arm, {})[r["seed"]] = curve
        shown = None if len(next(iter(curves["ddal"].values()))) < 10 else SHOWN.get(task)
        lines[task] = curve_table(curves, ["random_sampling", "coreset"], shown)
    return lines


def main(out, tasks, seeds):
    """Run what is missing, and print the tables."""
    path = Path(out, "ddal_defaults.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [(seed, task, arm) for seed in range(seeds) for task in tasks for arm in ARMS]
    for seed, task, arm in missing(path, cells, "seed", "task", "arm"):
        add(path, {"task": task, "arm": arm, "seed": seed, "accuracies": accuracies(task, arm, seed)})
    for task, lines in tables(rows(path)).items():
        print(task, *lines, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--task", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        main(arguments.out or scratch, arguments.task, arguments.seeds)
