"""How the cost of one query grows with the pool: seconds and peak memory of every strategy, and the exponents.

python tests/benchmarks/growth.py OUT [--rows N ...] [--strategy NAME ...] [--limit SECONDS] [--memory GIB]

Each query runs in a process of its own, after a small one that compiles what is to be compiled. What is in
OUT/growth.csv already is not run again, so the same command goes on after an interruption. A size is left out where the
one before could not be run, or where quadratic growth from it would take twenty times the limit. The table is printed
and written to OUT/growth.md.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from bench_large_pool import blocks
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import get_strategy, list_strategies
from modal_ntk.bench.loop.memory import PeakMemory

COLUMNS, LABELS, PICKS, CLASSES = 64, 100, 20, 10
FIELDS = ["strategy", "rows", "seconds", "peak_bytes", "before_bytes", "error"]


def samples(n, seed):
    parts = [(X, y) for _, X, y in blocks(n, COLUMNS, seed=seed)]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def one(name, n):
    """Measure one query in this process."""
    torch.manual_seed(0)
    layers = [nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES)]
    settings = {"max_epochs": 5, "lr": 0.05, "train_split": None, "verbose": 0, "classes": list(range(CLASSES))}
    X, y = samples(LABELS, seed=2)
    net = NeuralNetClassifier(nn.Sequential(*layers), criterion=nn.CrossEntropyLoss, **settings).fit(X, y)
    pool, known = samples(n, seed=1)[0], {"X_labeled": X, "y_labeled": y}

    def strategy():
        made = get_strategy(name)
        return made.set_params(random_state=0) if "random_state" in made.get_params(deep=False) else made

    strategy().select(net, pool[:500], PICKS, **known)
    before, peak, started = PeakMemory().peak().host, PeakMemory(), perf_counter()
    strategy().select(net, pool, PICKS, **known)
    return {"seconds": perf_counter() - started, "peak_bytes": peak.peak().host, "before_bytes": before, "error": ""}


def measured(name, n, limit, memory):
    """Measure in a process that may take so long and hold so much."""
    call = [sys.executable, __file__, "--one", name, str(n)]
    if memory:
        call = ["bash", "-c", f'ulimit -v {int(memory * 2**20)}; exec "$@"', "growth", *call]
    try:
        found = subprocess.run(call, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {limit:g} s"}
    if found.returncode == 0:
        return json.loads(found.stdout.splitlines()[-1])
    return {"error": (found.stderr.strip().splitlines() or [f"status {found.returncode}"])[-1][:200]}


def exponent(rows, values):
    """Return the slope of the logarithms by least squares, or None of fewer than two."""
    if len(rows) < 2:
        return None
    return float(np.polyfit(np.log(rows), np.log(values), 1)[0])


def read(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(found):
    """Return the measures as a table, a line for each strategy."""
    sizes = sorted({int(row["rows"]) for row in found})
    head = ["strategy", *(f"{n:,} rows: s, GiB" for n in sizes), "exponent of seconds", "of memory"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for name in sorted({row["strategy"] for row in found}):
        own = {int(row["rows"]): row for row in found if row["strategy"] == name}
        good = {n: row for n, row in own.items() if not row["error"]}
        cells = [
            f"{float(good[n]['seconds']):.2f}, {int(good[n]['peak_bytes']) / 2**30:.2f}"
            if n in good
            else (own[n]["error"] if n in own else "")
            for n in sizes
        ]
        seconds = exponent(list(good), [float(row["seconds"]) for row in good.values()])
        added = {n: int(row["peak_bytes"]) - int(row["before_bytes"]) for n, row in good.items()}
        grown = {n: more for n, more in added.items() if more > 2**20}
        slopes = [seconds, exponent(list(grown), list(grown.values()))]
        lines.append(" | ".join([name, *cells, *("" if slope is None else f"{slope:.2f}" for slope in slopes)]))
    return "\n".join(f"| {line} |" for line in lines)


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--strategy", nargs="+", default=[spec.name for spec in list_strategies()])
    parser.add_argument("--limit", type=float, default=300)
    parser.add_argument("--memory", type=float, default=0, help="address space of a process in GiB; 0 is no limit")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / "growth.csv"
    for n in sorted(asked.rows):
        for name in asked.strategy:
            own = {int(row["rows"]): row for row in read(path) if row["strategy"] == name}
            smaller = [own[size] for size in sorted(own) if size < n]
            if n in own or (smaller and (smaller[-1]["error"] or _too_long(smaller[-1], n, asked.limit))):
                continue
            new = not path.exists()
            row = {"strategy": name, "rows": n, **measured(name, n, asked.limit, asked.memory)}
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(row, flush=True)
    (asked.out / "growth.md").write_text(table(read(path)) + "\n")
    print(table(read(path)))


def _too_long(row, n, limit):
    # Of quadratic growth at the worst.
    return float(row["seconds"]) * (n / int(row["rows"])) ** 2 > 20 * limit


if __name__ == "__main__":
    main()
