"""NTKCPL's protocol on self-supervised features of Fashion-MNIST: accuracy and effective budget ratio.

    MODAL_NTK_DATA=... python examples/reproduce/ntkcpl_table.py OUT

20 labels a query to 100, then 100 a query to 500; 5 seeds; the classifier anew each round, learning rate 0.3; the
whole pool; 10,000 candidates for NTKCPL and 6,000 for look-ahead. Strategies that start without labels choose their
first 20 themselves, the others start from random ones. The run goes on where it was interrupted; OUT receives
ntkcpl_table.md and ntkcpl_table.png, with --report from what is finished so far. Without the data set, or with
MODAL_NTK_SMALL=1, digits stand in.
"""

import argparse
import dataclasses
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from modal_ntk import list_strategies
from modal_ntk.bench import default_estimator, load_dataset, run
from modal_ntk.bench.figures import draw_gain
from modal_ntk.bench.statistics import curves, effective_budget_ratio
from modal_ntk.bench.store import Store
from modal_ntk.errors import UnknownNameError

BATCHES = [20] * 4 + [100] * 4
RANDOM = "random_sampling"


def comparisons(candidates):
    """Strategies that choose their first batch themselves, and those that start from random labels."""
    registered = {strategy.name for strategy in list_strategies()}
    cold = [f"ntkcpl:n_candidates={candidates}", f"ntkcpl:n_candidates={candidates},variant=self"]
    cold += [name for name in ("coreset", "typiclust") if name in registered]
    fewer = min(candidates, 6000)
    warm = [RANDOM, "entropy", f"lookahead:n_candidates={fewer}", f"lookahead:n_candidates={fewer},variant=initial"]
    return {"query": cold, "random": warm}


def found_in(stores):
    """The curves of every strategy, over its finished seeds, those that started cold first."""
    rows = [store.rows() for store in stores]
    order = dict.fromkeys(row.strategy for part in rows for row in part)
    found = curves([row for part in rows for row in part])
    return {strategy: found[strategy] for strategy in order}


def table(found):
    """Mean and sample standard deviation in percent, the effective budget ratio and the seconds of the last query."""
    budgets = next(iter(found.values())).budgets
    baseline = found[RANDOM].scores
    lines = [f"| strategy | {' | '.join(map(str, budgets))} | effective budget | last query | seeds |"]
    lines.append("|" + "---|" * (len(budgets) + 4))
    for strategy, curve in found.items():
        spread = ["" if np.isnan(s) else f" ± {100 * s:.1f}" for s in curve.deviation]
        cells = [f"{100 * mean:.1f}{s}" for mean, s in zip(curve.mean, spread, strict=True)]
        ratio = "" if strategy == RANDOM else f"{100 * effective_budget_ratio(budgets, curve.scores, baseline):.0f} %"
        seconds = curve.query_seconds.mean(axis=0)[-1]
        lines.append(f"| {strategy} | {' | '.join(cells)} | {ratio} | {seconds:.1f} s | {len(curve.seeds)} |")
    return "\n".join(lines)


def header(data, estimator, batches, out):
    """How the figures were made: command, data, protocol, versions, machine."""
    names = ("torch", "scikit-learn", "skorch", "numpy", "modAL-python", "modal-ntk")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
    asked = [argument if argument != out else "OUT" for argument in sys.argv[1:]]
    command = shlex.join(["python", "examples/reproduce/ntkcpl_table.py", *asked])
    return (
        f"# NTKCPL's protocol on {data.name}\n\n"
        f"command: MODAL_NTK_DATA=... {command}\n"
        f"data: {data.name}, pool = its first {len(data.x_train)} training rows, {len(data.y_test)} test rows\n"
        f"protocol: {batches} labels a query; strategies that start cold choose the first themselves, the others\n"
        "          start from random labels; classifier anew each round,\n"
        f"          lr {estimator.lr}, {estimator.max_epochs} epochs; accuracy in percent, mean and sample standard\n"
        "          deviation; effective budget: share of the labels at which the mean exceeds random's mean plus\n"
        "          standard deviation\n"
        f"versions: {versions}\n"
        f"machine: {os.cpu_count()} cores, {platform.machine()}\n"
    )


def main(arguments):
    small = bool(os.environ.get("MODAL_NTK_SMALL"))
    try:
        data = load_dataset("digits" if small else "fashion_mnist_simclr")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    pool = len(data.x_train) if arguments.pool is None else arguments.pool
    data = dataclasses.replace(data, x_train=data.x_train[:pool], y_train=data.y_train[:pool])
    estimator = default_estimator(data).set_params(lr=0.3, max_epochs=5 if small else 100)
    compared = comparisons(arguments.candidates)
    batches = BATCHES[: 1 if small else arguments.rounds]
    seeds = 1 if small else arguments.seeds
    out = Path(arguments.out)
    stores = []
    for initial in ("random", "query"):
        if arguments.report:
            stores.append(Store.open(out / initial))
        else:
            settings = {"seeds": seeds, "n_initial": 20, "batch_size": batches, "initial": initial}
            settings |= {"estimator": estimator, "jobs": arguments.jobs, "progress": True}
            stores.append(run(data, compared[initial], out=out / initial, **settings))
    found = found_in(stores)
    text = f"{header(data, estimator, [20, *batches], arguments.out)}\n{table(found)}\n"
    (out / "ntkcpl_table.md").write_text(text)
    draw_gain(found, RANDOM).savefig(out / "ntkcpl_table.png", dpi=130)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--pool", type=int, default=None, help="first rows of the pool to use; all by default")
    parser.add_argument("--candidates", type=int, default=10000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=len(BATCHES), help="queries after the first")
    parser.add_argument("--jobs", type=int, default=1, help="cells run at once")
    parser.add_argument("--report", action="store_true", help="only tabulate what is finished")
    main(parser.parse_args())
