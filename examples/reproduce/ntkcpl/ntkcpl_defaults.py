"""Which defaults serve NTKCPL: one choice changed at a time, on three sets of features at once, paired seeds.

    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_defaults choose OUT      the choices, seeds from 100 on
    MODAL_NTK_DATA=... python examples/reproduce ntkcpl_defaults confirm OUT     what was chosen, seeds from 200 on
    python examples/reproduce ntkcpl_defaults choose OUT --report                tables from what is finished

Five queries of two labels a class (banking77: one a class), the first without labels, from a pool of 4,000 rows that
each seed draws anew; `confirm` goes on to 100 a class, but for banking77. The classifier is anew each round, learning
rate 0.3. A difference is that of the means over the first five budgets, seed by seed, with its standard error. The run
goes on where it was interrupted. OUT receives a store for each data set and seed, ntkcpl_CHOICES.md with the tables,
ntkcpl_CHOICES.png with ranks by labels a class, and ntkcpl_CHOICES.csv with every row, from which --report makes the
others again. With MODAL_NTK_SMALL=1 digits stand in.
"""

import argparse
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

from budgets import difference, draw_ranks, ranks_by_budget, read_rows, write_rows

from modal_ntk.bench import Protocol, default_estimator, load_dataset
from modal_ntk.bench.analysis.statistics import curves, shared
from modal_ntk.bench.reports.figures import figure
from modal_ntk.bench.running.runner import run_protocol
from modal_ntk.bench.running.workers import Workers

SETS = {
    "digits": (10, 64),
    "fashion_mnist_simclr": (20, 64),
    "cifar10_efficientnet": (20, 64),
    "banking77_minilm": (77, 256),
}
N_CLASSES = {"digits": 10, "fashion_mnist_simclr": 10, "cifar10_efficientnet": 10, "banking77_minilm": 77}
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
    "confirm": (200, ("",), (*OTHERS, "uherding:features=fixed"), WARM, [1] * 4 + [5] * 4 + [25]),
}


def arms_of(choices):
    """Strategies that start without labels, and those that do not."""
    _, changes, others, warm, _ = STUDIES[choices]
    return [*BASELINES, *others, *(f"ntkcpl:{change}" if change else "ntkcpl" for change in changes)], [*warm]


def protocols(choices, n_seeds, sets, small):
    """One protocol for each data set and seed, which draws its own pool."""
    first, *_, rounds = STUDIES[choices]
    arms, warm = arms_of(choices)
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


def rows_of(choices, out):
    """Rows by data set: those of the stores, kept in the CSV too, or where there are no stores those of the CSV."""
    path, stores = out / f"ntkcpl_{choices}.csv", sorted(out.glob("*/*/"))
    if stores:
        asked = {strategy for part in arms_of(choices) for strategy in part}
        write_rows(path, [(store.parent.name, store) for store in stores], asked.__contains__)
    return read_rows(path)


def shown(arm):
    """An arm as the tables name it: uherding's features are its default since, and the published values have a name."""
    return arm.replace(PUBLISHED, "as_published()").removesuffix(":features=fixed")


def table(found):
    """Accuracy by budget and the differences to the baselines, the best first."""
    budgets = found[BASELINES[0]].budgets
    few = budgets <= 5 * budgets[0]  # the means are over the first five
    lines = [f"| arm | {' | '.join(map(str, budgets))} | mean | minus random | minus TypiClust | query s | seeds |"]
    lines.append("|" + "---|" * (len(budgets) + 6))
    for arm, curve in sorted(found.items(), key=lambda entry: -entry[1].scores[:, few].mean()):
        name = shown(arm)
        cells = [f"{100 * value:.1f}" for value in [*curve.mean, curve.scores[:, few].mean()]]
        cells += [difference(curve, found[b], few) if arm != b else "" for b in BASELINES]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {curve.query_seconds.mean():.1f} | {len(curve.seeds)} |")
    return "\n".join(lines)


def picture(sets):
    """Mean rank of every arm by labels a class, over sets and seeds, with its standard error over these."""
    drawing, axes = figure(4.8)
    draw_ranks(axes, *ranks_by_budget(sets, N_CLASSES), shown=shown)
    axes.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    drawing.tight_layout()
    return drawing


def write(choices, out):
    """Write tables, rows and ranks of what is finished: the seeds that every arm has."""
    names = ("torch", "scikit-learn", "skorch", "numpy", "modal-ntk")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    command = shlex.join(["python", "examples/reproduce/ntkcpl/ntkcpl_defaults.py", choices, "OUT"])
    text = [f"# NTKCPL's defaults: {choices}\n\ncommand: MODAL_NTK_DATA=... {command}\n", f"versions: {versions}\n"]
    text.append(
        f"machine: {os.cpu_count()} cores, {platform.machine()}, shared with other work: seconds are upper bounds\n"
    )
    sets = {name: shared(curves(rows)) for name, rows in rows_of(choices, out).items()}
    text += [f"## {name}\n\n{table(found)}\n" for name, found in sets.items()]
    if all(len(found[BASELINES[0]].seeds) > 1 for found in sets.values()):
        picture(sets).savefig(out / f"ntkcpl_{choices}.png", dpi=130)
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
