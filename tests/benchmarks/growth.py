"""How the cost of one query grows: seconds and peak memory of every strategy, on one core.

python tests/benchmarks/growth.py TABLE.csv [--rows N ...] [--sides N] [--strategy NAME ...] [--columns N] [--picks N]
    [--classes N] [--labels N] [--limit SECONDS] [--memory GIB]

Each query runs in a process of its own, forked from one that has compiled what is to be compiled, with the speed of the
machine measured just before it. Seconds are the processor's. --sides measures, at so many rows, four times the columns,
picks, classes and labels, one by one. What is in the table already is not run again, so the same command goes on after
an interruption. A size is left out where the one before could not be run, or where quadratic growth from it would take
five times the limit.
"""

import argparse
import csv
import multiprocessing
import os
import resource
from pathlib import Path
from time import process_time

import numba
import numpy as np
import torch
from bench_large_pool import blocks
from skorch import NeuralNetClassifier
from threadpoolctl import threadpool_limits
from torch import nn

from modal_ntk import get_strategy, list_strategies
from modal_ntk.bench.analysis.cost import USUAL
from modal_ntk.bench.analysis.machine import Speed
from modal_ntk.bench.loop.memory import PeakMemory
from modal_ntk.nets import WAALClassifier

MEASURES = ["seconds", "peak_bytes", "before_bytes", "product", "copy", "error"]
FIELDS = ["strategy", "rows", *USUAL, *MEASURES]


def samples(n, columns, seed):
    parts = [X for _, X, _ in blocks(n, columns, seed=seed)]
    return np.concatenate(parts)


def situation(name, point):
    """Return the strategy's maker, a trained net and what it was trained on."""
    columns, classes = point["columns"], point["classes"]
    X, y = samples(point["labels"], columns, seed=2), np.arange(point["labels"]) % classes
    settings = {"max_epochs": 5, "lr": 0.05, "verbose": 0, "classes": list(range(classes))}
    body = [nn.Linear(columns, 64), nn.ReLU(), nn.Dropout()]
    torch.manual_seed(0)
    if name == "waal":
        net = WAALClassifier(nn.Sequential(*body), **settings).fit(X, y, X_unlabeled=samples(500, columns, seed=3))
    else:
        module = nn.Sequential(*body, nn.Linear(64, classes))
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, train_split=None, **settings).fit(X, y)

    def strategy():
        made = get_strategy(name)
        return made.set_params(random_state=0) if "random_state" in made.get_params(deep=False) else made

    return strategy, net, {"X_labeled": X, "y_labeled": y}


def one(name, point, memory):
    """Measure one query in this process."""
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    strategy, net, known = situation(name, point)
    pool = samples(point["rows"], point["columns"], seed=1)
    machine = Speed.measured()
    before, peak, started = PeakMemory().peak().host, PeakMemory(), process_time()
    strategy().select(net, pool, point["picks"], **known)
    seconds = process_time() - started
    return {"seconds": f"{seconds:.4f}", "peak_bytes": peak.peak().host, "before_bytes": before} | {
        what: f"{value:.3e}" for what, value in machine._asdict().items()
    }


def warm(name):
    """Let a small query compile what is to be compiled."""
    strategy, net, known = situation(name, USUAL)
    strategy().select(net, samples(500, USUAL["columns"], seed=1), USUAL["picks"], **known)


def measured(name, point, limit, memory):
    """Measure in a forked process that may take so many seconds and hold so much."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def work():
        try:
            send.send(one(name, point, memory))
        except Exception as error:  # noqa: BLE001 - written into the table
            send.send({"error": f"{type(error).__name__}: {error}".split("\n")[0][:200]})

    child = context.Process(target=work)
    child.start()
    send.close()
    try:
        # A limit of the processor's seconds would make its clock coarse.
        found = receive.recv() if receive.poll(limit) else {"error": f"longer than {limit:g} s"}
    except EOFError:
        found = {"error": "killed"}
    child.kill()
    child.join()
    return found


def read(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def points(sizes, sides, asked):
    """Return what is to be measured, the cheap first."""
    varied = [{"rows": sides, **USUAL, side: 4 * USUAL[side]} for side in USUAL if sides]
    return varied + [{"rows": n, **{side: getattr(asked, side) for side in USUAL}} for n in sorted(sizes)]


def left_out(name, point, rows, limit):
    """Tell whether a point has been measured, or its smaller neighbour says that it cannot be."""
    own = [row for row in rows if row["strategy"] == name]
    if any(all(int(row[key]) == value for key, value in point.items()) for row in own):
        return True
    alike = [row for row in own if all(int(row[side]) == point[side] for side in USUAL)]
    below = [row for row in alike if int(row["rows"]) < point["rows"]]
    if not below:
        return False
    smaller = max(below, key=lambda row: int(row["rows"]))
    growth = (point["rows"] / int(smaller["rows"])) ** 2
    return bool(smaller["error"]) or float(smaller["seconds"]) * growth > 5 * limit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--sides", type=int, default=0, metavar="ROWS")
    for side, value in USUAL.items():
        parser.add_argument(f"--{side}", type=int, default=value)
    parser.add_argument("--strategy", nargs="+", default=[spec.name for spec in list_strategies()])
    parser.add_argument("--limit", type=float, default=300, help="seconds by the clock for one query")
    parser.add_argument("--memory", type=float, default=0, help="address space of a process in GiB; 0 is no limit")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    numba.config.THREADING_LAYER = "workqueue"  # GNU's OpenMP does not survive a fork
    numba.set_num_threads(1)
    with threadpool_limits(1):
        warmed = set()
        for point in points(asked.rows, asked.sides, asked):
            for name in asked.strategy:
                if left_out(name, point, read(asked.table), asked.limit):
                    continue
                if name not in warmed:
                    warm(name)
                    warmed.add(name)
                row = {"strategy": name, **point, **measured(name, point, asked.limit, asked.memory)}
                new = not asked.table.exists()
                with asked.table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(row)
                    os.fsync(file.fileno())
                print(row, flush=True)


if __name__ == "__main__":
    main()
