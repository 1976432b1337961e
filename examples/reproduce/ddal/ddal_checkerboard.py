"""DDAL on the checkerboard: accuracy against other strategies, what was queried when, and when exploring ended.

    python examples/reproduce ddal_checkerboard OUT [--board binary multiclass] [--seeds 5] [--jobs 2]

The paper's protocol: 2,000 pool and 200 test points, 4 initial labels of each class, 44 queries of 10, an MLP of
30-30 trained on from round to round by SGD one sample at a time, rate 0.001, momentum 0.9, 100 epochs; K=10, T=4. It
prints neither the size of the board nor the classes of the second one: ours is 4 x 4 cells on the square, with 2
classes, or 4 repeated every second row and column. "ddal" diffuses its own guesses after each pick, "ddal, true labels"
the answers, as the paper's algorithm does, and "ddal:per_round=None" takes a batch at once.

A run goes on where it was interrupted. OUT/BOARD gets results.sqlite, curves.png, queries.png and trace.json, which
holds for every query of ddal how many rows no label reached. MODAL_NTK_SMALL=1 makes it seconds.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numba
import numpy as np
import torch
from joblib import Parallel, delayed
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numba.typed import List
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import DDAL
from modal_ntk.bench import Dataset, SimulatedActiveLearning, report, run
from modal_ntk.host import list_strategies

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
OTHERS = ["random_sampling", "least_confidence", "coreset"]
TRACED = {"ddal": False, "ddal, true labels": True}


def installed(names):
    """Those of some strategies that there are."""
    known = {entry.name for entry in list_strategies()}
    return [name for name in names if name in known]


def checkerboard(n_classes, n, rng, n_cells=4):
    """Points spread evenly over a square of cells, and the classes of their cells."""
    X = rng.uniform(0, n_cells, size=(n, 2))
    column, row = X.astype(int).T
    y = (column + row) % 2 if n_classes == 2 else 2 * (row % 2) + column % 2
    return (2 * X / n_cells - 1).astype(np.float32), y.astype(np.int64)


class PlainNet(NeuralNetClassifier):
    """A skorch net whose epochs are nothing but steps: bookkeeping costs more than a step on one sample.

    `decay` is a number of epochs and what the rate is multiplied by after each so many; every fit begins with `lr`.
    """

    decay = None

    def fit_loop(self, X, y=None, epochs=None, **_):
        inputs, targets = torch.as_tensor(X), torch.as_tensor(y)
        self.module_.train()
        for epoch in range(self.max_epochs if epochs is None else epochs):
            if self.decay is not None:
                for group in self.optimizer_.param_groups:
                    group["lr"] = self.lr * self.decay[1] ** (epoch // self.decay[0])
            for rows in torch.randperm(len(inputs)).split(self.batch_size):
                if len(rows) == 1 < min(self.batch_size, len(inputs)):
                    continue  # a last sample on its own, on which BatchNorm cannot train
                self.optimizer_.zero_grad()
                self.criterion_(self.module_(inputs[rows]), targets[rows]).backward()
                self.optimizer_.step()
        return self


@numba.njit(cache=True, fastmath={"reassoc", "contract"})
def descend(inputs, targets, order, weights, biases, pace, drift, rate, momentum):
    """SGD with momentum on the cross-entropy of one sample after the other, through layers with ReLU between."""
    depth, zero = len(weights), np.float32(0)
    values = [inputs[0].copy()] + [np.empty_like(bias) for bias in biases]
    slopes = [np.empty_like(value) for value in values]
    for row in order:
        values[0][:] = inputs[row]
        for k in range(depth):
            weight, bias, below, above = weights[k], biases[k], values[k], values[k + 1]
            for i in range(len(bias)):
                total = bias[i]
                for j in range(len(below)):
                    total += weight[i, j] * below[j]
                above[i] = total if k + 1 == depth else max(total, zero)
        scores = np.exp(values[depth] - values[depth].max())
        slopes[depth][:] = scores / scores.sum()
        slopes[depth][targets[row]] -= np.float32(1)
        for k in range(depth - 1, -1, -1):
            weight, bias, below, slope_below, slope = weights[k], biases[k], values[k], slopes[k], slopes[k + 1]
            speed, drifting = pace[k], drift[k]
            slope_below[:] = zero
            for i in range(len(bias)):
                drifting[i] = momentum * drifting[i] + slope[i]
                bias[i] -= rate * drifting[i]
                for j in range(len(below)):
                    slope_below[j] += slope[i] * weight[i, j]
                    speed[i, j] = momentum * speed[i, j] + slope[i] * below[j]
                    weight[i, j] -= rate * speed[i, j]
            for j in range(len(below)):
                if below[j] <= zero:
                    slope_below[j] = zero


class OneByOneNet(PlainNet):
    """A skorch net of linear layers with ReLU between, trained by SGD one sample at a time, in a compiled loop.

    Its weights are those that torch's own steps lead to, but for rounding: a step of torch on one sample costs
    a hundred times its arithmetic.
    """

    def fit_loop(self, X, y=None, epochs=None, **_):
        epochs = self.max_epochs if epochs is None else epochs
        order = torch.cat([torch.randperm(len(X)) for _ in range(epochs)]).numpy()
        settings, state = self.optimizer_.param_groups[0], self.optimizer_.state
        parameters = list(self.module_.parameters())
        for parameter in parameters:
            state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        arrays = [parameter.detach().numpy() for parameter in parameters]
        speeds = [state[parameter]["momentum_buffer"].numpy() for parameter in parameters]
        parts = (List(some) for some in (arrays[::2], arrays[1::2], speeds[::2], speeds[1::2]))
        rate, momentum = np.float32(settings["lr"]), np.float32(settings["momentum"])
        descend(np.asarray(X), np.asarray(y), order, *parts, rate, momentum)
        return self


class BoardNet(nn.Module):
    """Two hidden layers of 30."""

    def __init__(self, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU())
        self.head = nn.Linear(30, n_classes)

    def forward(self, x):
        return self.head(self.body(x))


def traced(data, estimator, protocol, answered, seed):
    """Replay one run of DDAL, and note what each query knew."""
    truth = {row.tobytes(): int(label) for row, label in zip(data.x_train, data.y_train, strict=True)}
    strategy, notes = DDAL(random_state=seed), []

    def query(learner, X_pool, n_instances=1, **given):
        if answered:
            strategy.set_params(oracle=lambda rows: [truth[X_pool[row].tobytes()] for row in rows])
        picked = strategy(learner, X_pool, n_instances, **given)
        info = strategy.last_selection_.info
        notes.append({key: info[key] for key in ("stage", "n_unreached", "n_explored", "hops")})
        return picked

    test = (data.x_test, data.y_test)
    simulation = SimulatedActiveLearning(estimator, query, evaluation_set=test, random_state=seed, **protocol)
    return simulation.fit(data.x_train, data.y_train).curve_, notes


def trace_all(data, estimator, protocol, store, path, *, seeds, jobs):
    """Replay what is not stored yet; returns the notes of all runs."""
    notes = json.loads(path.read_text()) if path.exists() else {}
    done = store.finished()
    cells = [(name, seed) for seed in range(seeds) for name in TRACED]
    cells = [cell for cell in cells if cell not in done or "{}, seed {}".format(*cell) not in notes]
    tasks = (delayed(traced)(data, estimator, protocol, TRACED[name], seed) for name, seed in cells)
    results = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    for (name, seed), (curve, of_run) in zip(cells, results, strict=True):
        notes[f"{name}, seed {seed}"] = of_run
        path.write_text(json.dumps(notes, indent=1))
        store.add(name, seed, curve)
    return notes


def switch(of_run):
    """First query, from one, that reached every row; or none."""
    return next((i for i, note in enumerate(of_run, 1) if note["stage"] == "refining"), None)


def draw_queries(data, rows, notes, rounds, path):
    """Draw the board and the points of some queries of one run."""
    figure = Figure(figsize=(4 * (len(rounds) + 1), 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(rounds) + 1)
    for panel in axes:
        panel.scatter(*data.x_train.T, c=data.y_train, cmap="Set2", s=8, alpha=0.5)
        panel.set(xticks=[], yticks=[])
    axes[0].set_title("classes")
    for panel, number in zip(axes[1:], rounds, strict=True):
        before = np.concatenate([row.indices for row in rows[:number]])
        panel.scatter(*data.x_train[before].T, c="gold", edgecolors="grey", linewidths=0.5, s=22)
        panel.scatter(*data.x_train[list(rows[number].indices)].T, c="black", s=28)
        panel.set_title(f"query {number} ({notes[number - 1]['stage']}), then {rows[number].score:.1%}")
    figure.savefig(path, dpi=100)


def board_net(n_classes):
    """An unfitted net for a board."""
    return OneByOneNet(
        BoardNet,
        module__n_classes=n_classes,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.001,
        max_epochs=2 if SMALL else 100,
        classes=list(range(n_classes)),
        train_split=None,
        verbose=0,
    )


def main(out, boards, *, seeds, n_rounds, jobs):
    """Run, trace and draw every board."""
    torch.set_num_threads(1)
    n_pool = 300 if SMALL else 2000
    for board in boards:
        n_classes = {"binary": 2, "multiclass": 4}[board]
        rng = np.random.default_rng(0)
        parts = *checkerboard(n_classes, n_pool, rng), *checkerboard(n_classes, 200, rng)
        data = Dataset(f"checkerboard_{board}", *parts, np.arange(n_classes))
        estimator = board_net(n_classes)
        protocol = {"n_initial": 4 * n_classes, "batch_size": 10, "n_rounds": n_rounds}
        protocol |= {"initial": "stratified", "reinitialise": False}
        names = [*installed(OTHERS), "ddal:per_round=None"]
        folder = Path(out, board)
        store = run(data, names, out=folder, seeds=seeds, estimator=estimator, jobs=jobs, progress=True, **protocol)
        notes = trace_all(data, estimator, protocol, store, folder / "trace.json", seeds=seeds, jobs=jobs)
        print(board, report(folder).table, sep="\n")
        for name in TRACED:
            switches = [switch(notes[f"{name}, seed {seed}"]) for seed in range(seeds)]
            print(f"{name}: every row reached from query {switches} on (seeds 0 to {seeds - 1})")
        rows = [row for row in store.rows() if (row.strategy, row.seed) == ("ddal", 0)]
        shown = [number for number in (1, 14, 44) if number <= n_rounds]
        draw_queries(data, rows, notes["ddal, seed 0"], shown, folder / "queries.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--board", nargs="+", choices=["binary", "multiclass"], default=["binary", "multiclass"])
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    parser.add_argument("--rounds", type=int, default=2 if SMALL else 44)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(
            arguments.out or scratch,
            arguments.board,
            seeds=arguments.seeds,
            n_rounds=arguments.rounds,
            jobs=arguments.jobs,
        )
