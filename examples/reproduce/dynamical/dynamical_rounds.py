"""dynamicAL's discrepancy beside its bound, for one budget spent in more or fewer queries (the paper's table 10).

    MODAL_NTK_DATA=... python examples/reproduce dynamical_rounds OUT [--seeds 5] [--device cuda]

From 500 labelled images of CIFAR-10 to 1,500, in ten queries of 100, four of 250, two of 500 or one of 1,000; the net
and its training are those of dynamical_table. MMD is that of the first labels within all of them, B the bound of
all under their labels, both by the kernel of the net as initialised, its outputs' mean. "random" draws the 1,000.
The square of MMD is estimated without bias, so that its root is taken as zero where the estimate is negative.

The same command goes on where it was interrupted, and may be started several times at once. MODAL_NTK_SMALL=1, or no
data, makes it seconds, on digits.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from cells import add, missing, rows
from dynamical_table import data_set, estimator

from modal_ntk import DynamicAL, kernels
from modal_ntk.nets import seeded

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
PAPER = {10: 0.004999, 4: 0.005253, 2: 0.005367, 1: 0.005455}
ROUNDS = [*PAPER, 0]  # zero for random draws


def run(seed, n_rounds, data, options):
    """Query, and measure the labelled samples at the end."""
    n_first, budget = (50, 40) if data.name == "digits" else (500, 1000)
    x, y = data.x_train, data.y_train
    rng = np.random.default_rng(seed)
    labeled = rng.choice(len(x), n_first, replace=False)
    with seeded(seed):
        net = estimator(data, options.device, options.epochs, options.lr, anneal=options.anneal).initialize()
        first = {name: value.detach().clone() for name, value in net.module_.state_dict().items()}
        for _ in range(n_rounds):
            net.partial_fit(x[labeled], y[labeled])
            rest = np.setdiff1d(np.arange(len(x)), labeled)
            known = {"X_labeled": x[labeled], "y_labeled": y[labeled]}
            picked = DynamicAL(random_state=seed).select(net, x[rest], budget // n_rounds, **known).indices
            labeled = np.concatenate([labeled, rest[picked]])
        if n_rounds == 0:
            rest = np.setdiff1d(np.arange(len(x)), labeled)
            labeled = np.concatenate([labeled, rng.choice(rest, budget, replace=False)])
        net.partial_fit(x[labeled], y[labeled])
        accuracy = float(net.score(data.x_test, data.y_test))
        net.module_.load_state_dict(first)
    net.module_.eval()
    samples = torch.from_numpy(x[labeled]).to(options.device)
    kernel = kernels.empirical_ntk(net.module_, samples, kind="trace").double().cpu()
    discrepancy = kernels.mmd(kernel, np.arange(n_first))
    bound = kernels.generalization_bound(kernel, np.eye(len(data.classes))[y[labeled]])
    found = {"mmd": discrepancy.value, "squared": discrepancy.squared, "bound": bound, "accuracy": accuracy}
    return {"seed": seed, "rounds": n_rounds, "n_labels": len(labeled), **found}


def table(found):
    """Lines of the table: means over the seeds, and of each round's queries less random draws, paired."""
    lines = ["| queries | MMD | B | MMD / B | the paper's | MMD² minus random draws' | accuracy | seeds |"]
    lines.append("|" + "---|" * 8)
    at = {(r["rounds"], r["seed"]): r for r in found}
    for n_rounds in ROUNDS:
        some = [r for r in found if r["rounds"] == n_rounds]
        if not some:
            continue
        ratio = np.array([r["mmd"] / r["bound"] for r in some])
        means = {key: np.mean([r[key] for r in some]) for key in ("mmd", "bound", "accuracy")}
        gaps = [r["squared"] - at[0, r["seed"]]["squared"] for r in some if (0, r["seed"]) in at]
        error = f" ± {np.std(gaps, ddof=1) / len(gaps) ** 0.5:.2g}" if len(gaps) > 1 else ""
        cells = [str(n_rounds or "random"), f"{means['mmd']:.4g}", f"{means['bound']:.3f}"]
        cells += [f"{ratio.mean():.6f} ± {ratio.std(ddof=1):.6f}" if len(some) > 1 else f"{ratio[0]:.6f}"]
        cells += [f"{PAPER[n_rounds]:.6f}" if n_rounds else ""]
        cells += [f"{np.mean(gaps):+.3g}{error}" if gaps and n_rounds else ""]
        lines.append(f"| {' | '.join(cells)} | {means['accuracy']:.4f} | {len(some)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="folder of the results; by default one that is thrown away")
    parser.add_argument("--seeds", type=int, default=1 if SMALL else 5)
    parser.add_argument("--pool", type=int, help="take the first so many training images only")
    parser.add_argument("--epochs", type=int, default=2 if SMALL else 100, help="at most, in each round")
    parser.add_argument("--queries", type=int, nargs="+", choices=ROUNDS, default=ROUNDS, help="0 is random draws")
    parser.add_argument("--lr", type=float, default=2e-4, help="Adam's rate")
    parser.add_argument("--anneal", action="store_true", help="let the rate fall to zero in all --epochs of a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--report", action="store_true", help="show what is stored, and do nothing more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        path = folder / "dynamical_rounds.jsonl"
        if not arguments.report:
            images = data_set(SMALL, arguments.pool)
            cells = [(seed, n) for seed in range(arguments.seeds) for n in arguments.queries]
            for cell in missing(path, cells, "seed", "rounds"):
                add(path, run(*cell, images, arguments))
        print(*table(rows(path)), sep="\n")
