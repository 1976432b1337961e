"""NTKCPL's protocol on features of a frozen net: accuracy, effective budget ratio and seconds, to 2,000 labels.

    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_table OUT --data cifar10_efficientnet
    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_table OUT --clusters      the paper's figure 5
    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_table OUT --times         the paper's figure 9

20 labels a query to 100, 100 a query to 500, 500 a query to 2,000; 5 seeds; the classifier anew each round, learning
rate 0.3; the whole pool; 10,000 candidates for NTKCPL and 6,000 for look-ahead. Strategies that start without labels
choose their first 20 themselves, the others start from random ones. The run goes on where it was interrupted; OUT
receives ntkcpl_table.md and ntkcpl_table.png, with --report from what is finished so far. Without the data set, or with
MODAL_NTK_SMALL=1, digits stand in.
"""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path
from time import process_time

import numpy as np
from sklearn.base import clone

from modal_ntk import NTKCPL, LookAhead
from modal_ntk.bench import default_estimator, load_dataset, run
from modal_ntk.bench.analysis.statistics import curves, effective_budget_ratio, shared
from modal_ntk.bench.reports.figures import draw_gain
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import UnknownNameError
from modal_ntk.nets.traceless import seeded

BATCHES = [20] * 4 + [100] * 4 + [500] * 3
RANDOM = "random_sampling"
# The paper's table 1, CIFAR-10 by SimSiam features: labels, and accuracy in per cent (random with its deviation).
PAPER_LABELS = [20, 40, 60, 80, 100, 200, 300, 400, 500, 1000, 1500, 2000]
PAPER_RANDOM = [41.80, 57.52, 65.88, 69.35, 74.11, 80.90, 82.80, 84.04, 84.97, 86.26, 86.95, 87.30]
PAPER_DEVIATION = [3.82, 3.34, 3.07, 3.31, 1.16, 0.90, 0.93, 0.49, 0.78, 0.38, 0.27, 0.37]
PAPER = {
    "TypiClust": [46.38, 66.18, 72.93, 76.98, 78.24, 83.16, 84.16, 85.13, 85.37, 86.07, 86.37, 86.55],
    "BADGE": [39.85, 54.99, 65.23, 70.76, 75.40, 82.20, 84.53, 84.75, 85.57, 86.06, 87.05, 87.31],
    "NTKCPL(self)": [54.31, 68.60, 75.09, 78.51, 80.30, 83.77, 85.00, 85.64, 85.72, 86.83, 87.18, 87.34],
    "NTKCPL(al)": [52.67, 63.55, 72.22, 75.32, 78.45, 81.87, 83.78, 84.73, 85.48, 87.15, 87.58, 87.87],
}


def comparisons(candidates, clusters=False):
    """Strategies that choose their first batch themselves, and those that start from random labels."""
    if clusters:
        sizes = [f"ntkcpl:n_candidates={candidates},max_clusters={size}" for size in (10, 50, 100, 200)]
        return {"query": sizes, "random": [RANDOM]}
    cold = [f"ntkcpl:n_candidates={candidates}", f"ntkcpl:n_candidates={candidates},variant=al"]
    cold += ["coreset", "typiclust"]
    fewer = min(candidates, 6000)
    warm = [RANDOM, "entropy", "badge", f"lookahead:n_candidates={fewer}"]
    warm += [f"lookahead:n_candidates={fewer},variant=initial"]
    return {"query": cold, "random": warm}


def paper_ratio(strategy, most):
    """Effective budget ratio of the paper's own means, cut at some number of labels, by our rule."""
    kept = [labels <= most for labels in PAPER_LABELS]
    bought = np.diff(PAPER_LABELS, prepend=0)[kept]
    ahead = np.greater(PAPER[strategy], np.add(PAPER_RANDOM, PAPER_DEVIATION))[kept]
    return bought[ahead].sum() / bought.sum()


def paper_table():
    """What the paper's own table gives by the same rule, so that like is compared with like."""
    lines = ["| the paper's table 1 (CIFAR-10) by this rule | to 500 labels | to 2,000 |", "|---|---|---|"]
    lines += [f"| {name} | {paper_ratio(name, 500):.0%} | {paper_ratio(name, 2000):.0%} |" for name in PAPER]
    return "\n".join(lines)


def found_in(stores, compared):
    """The curves of every strategy, over the seeds that all have finished."""
    rows = [row for store in stores for row in store.rows() if any(row.strategy in part for part in compared.values())]
    return shared(curves(rows))


def table(found):
    """Mean and sample standard deviation in percent, the effective budget ratio and the seconds of the last query."""
    budgets = next(iter(found.values())).budgets
    baseline = found[RANDOM].scores
    shorter = budgets <= 500
    names = ("effective budget to 500", f"to {budgets[-1]}", "all queries", "seeds")
    lines = [f"| strategy | {' | '.join([*map(str, budgets), *names])} |"]
    lines.append("|" + "---|" * (len(budgets) + 5))
    for strategy, curve in found.items():
        spread = ["" if np.isnan(s) else f" ± {100 * s:.1f}" for s in curve.deviation]
        cells = [f"{100 * mean:.1f}{s}" for mean, s in zip(curve.mean, spread, strict=True)]
        cells += [
            "" if strategy == RANDOM else f"{effective_budget_ratio(budgets[kept], curve.scores[:, kept], bar):.0%}"
            for kept, bar in ((shorter, baseline[:, shorter]), (slice(None), baseline))
        ]
        seconds = curve.query_seconds.mean(axis=0).sum()
        lines.append(f"| {strategy} | {' | '.join(cells)} | {seconds:.1f} s | {len(curve.seeds)} |")
    return "\n".join(lines)


def header(data, estimator, batches, out, stores):
    """How the figures were made: command, data, protocol, versions, machine, as the stores hold them."""
    made = []
    for store in stores:
        last = store.manifests()[-1]
        versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
        gpus = ", ".join(last["hardware"]["gpus"]) or "no GPU"
        made.append(f"{last['protocol']['initial']}: {last['hardware']['cores']} cores, {gpus}; {versions}")
    asked = [argument if argument != out else "OUT" for argument in sys.argv[1:] if argument != "--report"]
    command = shlex.join(["python", "examples/reproduce", "ntkcpl_table", *asked])
    return (
        f"# NTKCPL's protocol on {data.name}\n\n"
        f"command: MODAL_NTK_DATA=... {command}\n"
        f"data: {data.name}, pool = its first {len(data.x_train)} training rows, {len(data.y_test)} test rows\n"
        f"protocol: {batches} labels a query; strategies that start cold choose the first themselves, the others\n"
        "          start from random labels; classifier anew each round,\n"
        f"          lr {estimator.lr}, {estimator.max_epochs} epochs; accuracy in percent, mean and sample standard\n"
        "          deviation; effective budget: share of the labels at which the mean exceeds random's mean plus\n"
        "          standard deviation\n"
        "machines, by how cells start, shared with other work, so that seconds are upper bounds:\n"
        + "".join(f"- {text}\n" for text in made)
    )


def times(data, estimator, candidates, out):
    """Seconds of the processor of one query, by labels there are: NTKCPL beside look-ahead, in one run."""
    arms = {
        "ntkcpl": NTKCPL(n_candidates=candidates),
        "ntkcpl as published": NTKCPL.as_published(n_candidates=candidates),
        "lookahead": LookAhead(n_candidates=candidates),
        "lookahead, variant=initial": LookAhead(n_candidates=candidates, variant="initial"),
    }
    sizes = {100: 20, 500: 100, 1000: 500}
    rows = {name: [] for name in arms}
    order = np.random.default_rng(0).permutation(len(data.x_train))
    for n_labels, n_instances in sizes.items():
        known, rest = order[:n_labels], order[n_labels:]
        with seeded(0):
            net = clone(estimator).fit(data.x_train[known], data.y_train[known])
        labeled = {"X_labeled": data.x_train[known], "y_labeled": data.y_train[known]}
        for name, strategy in arms.items():
            began = process_time()
            strategy.set_params(random_state=0).select(net, data.x_train[rest], n_instances, **labeled)
            rows[name].append(process_time() - began)
    head = " | ".join(f"{n_instances} picks, {n_labels} labels" for n_labels, n_instances in sizes.items())
    text = f"| seconds of the processor, {candidates} candidates | {head} |\n|{'---|' * (len(sizes) + 1)}\n"
    text += "".join(f"| {name} | {' | '.join(f'{s:.1f}' for s in taken)} |\n" for name, taken in rows.items())
    (out / "ntkcpl_times.md").write_text(text)
    print(text)


def main(arguments):
    small = bool(os.environ.get("MODAL_NTK_SMALL"))
    try:
        data = load_dataset("digits" if small else arguments.data)
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    pool = len(data.x_train) if arguments.pool is None else arguments.pool
    data = dataclasses.replace(data, x_train=data.x_train[:pool], y_train=data.y_train[:pool])
    estimator = default_estimator(data, device=arguments.device).set_params(lr=0.3, max_epochs=5 if small else 100)
    if arguments.times:
        out = Path(arguments.out)
        out.mkdir(parents=True, exist_ok=True)
        times(data, estimator, arguments.candidates, out)
        return
    compared = comparisons(arguments.candidates, arguments.clusters)
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
    found = found_in(stores, compared)
    text = f"{header(data, estimator, [20, *batches], arguments.out, stores)}\n{table(found)}\n\n{paper_table()}\n"
    (out / "ntkcpl_table.md").write_text(text)
    draw_gain(found, RANDOM).savefig(out / "ntkcpl_table.png", dpi=130)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--data", default="fashion_mnist_simclr", help="name of the data set")
    parser.add_argument("--clusters", action="store_true", help="NTKCPL with 10, 50, 100 and 200 clusters instead")
    parser.add_argument("--times", action="store_true", help="seconds of single queries instead")
    parser.add_argument("--pool", type=int, default=None, help="first rows of the pool to use; all by default")
    parser.add_argument("--candidates", type=int, default=10000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=len(BATCHES), help="queries after the first")
    parser.add_argument("--jobs", type=int, default=1, help="cells run at once")
    parser.add_argument("--device", default="cpu", help="where to train and to look ahead")
    parser.add_argument("--report", action="store_true", help="only tabulate what is finished")
    main(parser.parse_args())
