"""Which defaults serve NTKCPL: one choice changed at a time, on three sets of features at once, paired seeds.

    MODAL_NTK_DATA=... python examples/reproduce/ntkcpl_defaults.py choose OUT      the choices, seeds from 100 on
    MODAL_NTK_DATA=... python examples/reproduce/ntkcpl_defaults.py confirm OUT     what was chosen, seeds from 200 on
    python examples/reproduce/ntkcpl_defaults.py choose OUT --report                tables from what is finished

Five queries of two labels a class (banking77: one a class), the first without labels, from a pool of 4,000 rows that
each seed draws anew; `confirm` goes on to 100 a class, but for banking77. The classifier is anew each
round, learning rate 0.3. A difference is that of the means over the first five budgets, seed by seed, with its standard
error. The run goes on where it was interrupted. OUT receives a store for each data set and seed, ntkcpl_CHOICES.md, and
ntkcpl_CHOICES.csv with every seed's accuracies. With MODAL_NTK_SMALL=1 digits stand in.
"""

import argparse
import csv
import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from modal_ntk.bench import Protocol, default_estimator, load_dataset
from modal_ntk.bench.runner import run_protocol
from modal_ntk.bench.statistics import curves
from modal_ntk.bench.store import Store
from modal_ntk.bench.workers import Workers

SETS = {
    "digits": (10, 64),
    "fashion_mnist_simclr": (20, 64),
    "cifar10_efficientnet": (20, 64),
    "banking77_minilm": (77, 256),
}
BASELINES = ("random_sampling", "typiclust")
OTHERS = ("maxherding", "variance_design")
WARM = ("margin", "badge")  # they start from random labels
RISK = "objective=risk,variance_weight=0,tie_break=variance"
PUBLISHED = (
    "max_clusters=100,variant=al,n_hidden=64,use_f0=True,feature_scaling=None,n_init=10,"
    "objective=risk,variance_weight=0,tie_break=random"
)
CHANGES = (
    "",
    "constraint=must_link",
    "variance_weight=0",
    "variance_weight=1",
    "variance_weight=5",
    "feature_scaling=l2",
    "variant=al",
    "n_hidden=64",
    f"{RISK},tie_tolerance=0.01",
    PUBLISHED,
)
STUDIES = {
    "choose": (100, CHANGES, OTHERS, (), [1] * 4),
    "confirm": (200, ("",), (*OTHERS, "uherding"), WARM, [1] * 4 + [5] * 4 + [25]),
}


def protocols(choices, n_seeds, sets, small):
    """One protocol for each data set and seed, which draws its own pool."""
    first, changes, others, warm, rounds = STUDIES[choices]
    arms = [*BASELINES, *others, *(f"ntkcpl:{change}" if change else "ntkcpl" for change in changes)]
    for seed in range(first, first + n_seeds):
        for name in sets:
            batch, n_hidden = SETS[name]
            many = rounds if batch < 77 else rounds[:4]
            for initial, strategies in (("query", arms), ("random", warm)):
                if strategies:
                    yield n_hidden, Protocol(
                        dataset=name, strategies=strategies, seeds=[seed], n_initial=batch,
                        batch_size=[batch * times for times in many][: 1 if small else None],
                        initial=initial, pool_size=300 if small else 4000, split_seed=seed,
                    )  # fmt: skip


def compute(choices, out, n_seeds, sets, jobs, small):
    """Run what is missing."""
    for n_hidden, protocol in protocols(choices, n_seeds, sets, small):
        data = load_dataset(protocol.dataset)
        estimator = default_estimator(data).set_params(
            lr=0.3, module__n_hidden=n_hidden, max_epochs=5 if small else 100
        )
        folder = out / protocol.dataset / f"{protocol.seeds[0]}-{protocol.initial}"
        run_protocol(protocol, out=folder, dataset=data, estimator=estimator, workers=Workers(jobs=jobs))


def found_in(folder):
    """Curves by arm, over the stores of a data set."""
    rows = [row for store in sorted(folder.glob("*/")) for row in Store.open(store).rows()]
    return curves(rows)


def difference(curve, baseline, few):
    """Mean and standard error over the common seeds of the difference of means over few budgets, in per cent."""
    first, second = (dict(zip(c.seeds, c.scores[:, few].mean(axis=1), strict=True)) for c in (curve, baseline))
    paired = np.array([first[s] - second[s] for s in sorted(set(first) & set(second))]) * 100
    return f"{paired.mean():+.1f} ± {paired.std(ddof=1) / len(paired) ** 0.5:.1f}" if len(paired) > 1 else ""


def table(found):
    """Accuracy by budget and the differences to the baselines, the best first."""
    budgets = found[BASELINES[0]].budgets
    few = budgets <= 5 * budgets[0]  # the means are over the first five
    lines = [f"| arm | {' | '.join(map(str, budgets))} | mean | minus random | minus TypiClust | query s | seeds |"]
    lines.append("|" + "---|" * (len(budgets) + 6))
    for arm, curve in sorted(found.items(), key=lambda entry: -entry[1].scores[:, few].mean()):
        name = arm.replace(PUBLISHED, "as_published()")
        cells = [f"{100 * value:.1f}" for value in [*curve.mean, curve.scores[:, few].mean()]]
        cells += [difference(curve, found[b], few) if arm != b else "" for b in BASELINES]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {curve.query_seconds.mean():.1f} | {len(curve.seeds)} |")
    return "\n".join(lines)


def write(choices, out):
    """Write tables and rows of what is finished."""
    names = ("torch", "scikit-learn", "skorch", "numpy", "modal-ntk")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    command = shlex.join(["python", "examples/reproduce/ntkcpl_defaults.py", choices, "OUT"])
    text = [f"# NTKCPL's defaults: {choices}\n\ncommand: MODAL_NTK_DATA=... {command}\n", f"versions: {versions}\n"]
    with (out / f"ntkcpl_{choices}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "arm", "seed", "labels", "accuracy"])
        for folder in sorted(path for path in out.iterdir() if path.is_dir()):
            found = found_in(folder)
            text.append(f"## {folder.name}\n\n{table(found)}\n")
            for arm, curve in found.items():
                for seed, scores in zip(curve.seeds, curve.scores, strict=True):
                    for budget, score in zip(curve.budgets, scores, strict=True):
                        writer.writerow([folder.name, arm, seed, budget, f"{score:.4f}"])
    (out / f"ntkcpl_{choices}.md").write_text("\n".join(text))
    print("\n".join(text))


def main(arguments):
    small, out = bool(os.environ.get("MODAL_NTK_SMALL")), Path(arguments.out)
    if not arguments.report:
        sets = ["digits"] if small else arguments.sets or [name for name in SETS if name != "digits"]
        compute(arguments.choices, out, 1 if small else arguments.seeds, sets, arguments.jobs, small)
    write(arguments.choices, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choices", choices=sorted(STUDIES))
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), help="some of the data sets only")
    parser.add_argument("--jobs", type=int, default=1, help="cells run at once")
    parser.add_argument("--report", action="store_true", help="only tabulate what is finished")
    sys.exit(main(parser.parse_args()))
