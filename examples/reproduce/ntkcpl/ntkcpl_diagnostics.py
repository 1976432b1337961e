"""How far NTKCPL's estimate of the risk can be trusted, from 20 labels on, where all labels are known.

    python examples/reproduce ntkcpl_diagnostics                                   digits, five rounds of 20
    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_diagnostics --dataset fashion_mnist_simclr --pool 10000 \\
        --candidates 2500 --batches 20 20 20 20 100 100 --out FOLDER

NTKCPL labels a pool; after every round a classifier is trained and the strategy's belief before its next query is
compared with the truth. FOLDER receives the figures as ntkcpl_diagnostics.json and the picture as
ntkcpl_diagnostics.png. MODAL_NTK_SMALL=1 makes it short.
"""

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.base import clone

from modal_ntk import NTKCPL
from modal_ntk.bench import SimulatedActiveLearning, default_estimator, load_dataset
from modal_ntk.nets import seeded
from modal_ntk.strategies.ntkcpl_diagnostics import diagnose

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
NAME = "ntkcpl_diagnostics"


def diagnosed(estimator, X, y, strategy, batches, seed):
    """Label with the strategy, then diagnose after every round; a list of dicts."""
    simulation = SimulatedActiveLearning(
        estimator, strategy, n_initial=batches[0], batch_size=batches[1:], initial="query", random_state=seed
    )
    labeled = simulation.fit(X, y).labeled_indices_
    found = []
    for budget, coming in zip(np.cumsum(batches).tolist(), [*batches[1:], batches[-1]], strict=True):
        known = labeled[:budget]
        with seeded(seed):
            net = clone(estimator).fit(X[known], y[known])
        diagnosis = diagnose(clone(strategy).set_params(random_state=seed), net, X, y, known, coming)
        found.append({"seed": seed, **dataclasses.asdict(diagnosis)})
        error = diagnosis.pseudo_label_error
        print(
            f"seed {seed}, {budget:4d} labels, {diagnosis.n_clusters:3d} clusters: "
            f"coverage {diagnosis.estimated_coverage:.3f} estimated, {1 - diagnosis.kernel_risk:.3f} of the kernel, "
            f"{diagnosis.true_coverage:.3f} of the network; the two agree on {diagnosis.agreement:.3f}; "
            f"pseudo-labels err on {error.total:.3f}, of which explained {error.explained:.3f}",
            flush=True,
        )
    return found


def draw(found, title, path):
    """Coverage, agreement, and the split of the pseudo-labels' error, as means over seeds."""
    budgets = sorted({entry["n_labeled"] for entry in found})

    def mean(read):
        return np.array([np.mean([read(e) for e in found if e["n_labeled"] == budget]) for budget in budgets])

    def part(name):
        return mean(lambda entry: entry["pseudo_label_error"][name])

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    coverage, agreement, split = figure.subplots(1, 3)
    for label, name in [
        ("network, true labels", "network_risk"),
        ("kernel, true labels", "kernel_risk"),
        ("kernel, pseudo-labels: the estimate", "estimated_risk"),
    ]:
        coverage.plot(budgets, 1 - mean(lambda entry, name=name: entry[name]), marker="o", label=label)
    coverage.set_title("coverage (fraction of rows predicted rightly)")
    agreement.plot(budgets, mean(lambda entry: entry["agreement"]), marker="o", label="kernel and network")
    agreement.plot(budgets, part("mapped_agreement"), marker="o", label="kernel on true and on pseudo-labels, mapped")
    agreement.set_title("same predicted class")
    over, impure = part("over_clustered"), part("impure")
    rest = [part("right_called_wrong") - over, part("wrong_called_right") - impure]
    labels = ["over-clustering", "other right called wrong", "impurity", "other wrong called right"]
    split.stackplot(budgets, over, rest[0], impure, rest[1], labels=labels, alpha=0.8)
    split.set_title("error of the pseudo-labels")
    for axes in (coverage, agreement, split):
        axes.set_xlabel("labels")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def main(arguments):
    data = load_dataset(arguments.dataset)
    X, y = data.x_train[: arguments.pool], data.y_train[: arguments.pool]
    estimator = default_estimator(data).set_params(lr=0.3, max_epochs=10 if SMALL else 100)
    strategy = NTKCPL(variant=arguments.variant, n_candidates=arguments.candidates)
    batches = arguments.batches[:2] if SMALL else arguments.batches
    seeds = 1 if SMALL else arguments.seeds
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    setting = {"dataset": data.name, "pool": len(X), "strategy": repr(strategy), "batches": batches}
    found = []
    for seed in range(seeds):
        found += diagnosed(estimator, X, y, strategy, batches, seed)
        # After every seed, so that an interrupted run leaves what it has.
        (folder / f"{NAME}.json").write_text(json.dumps({**setting, "found": found}, indent=1) + "\n")
        title = f"{data.name}, {len(X)} rows, {strategy!r}, seeds: {seed + 1}"
        draw(found, title, folder / f"{NAME}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--pool", type=int, default=None, help="first rows of the pool to use; all by default")
    parser.add_argument("--candidates", type=int, default=10000)
    parser.add_argument("--variant", choices=["al", "self"], default="al")
    parser.add_argument("--batches", type=int, nargs="+", default=[20] * 5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    if options.out:
        main(options)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            options.out = temporary
            main(options)
