"""Which strategy saves labels? The page and the picture of the study that `strategies.toml` describes.

    MODAL_NTK_DATA=... modal-ntk bench examples/reproduce/strategies.toml --out OUT
    python examples/reproduce strategies_page OUT
    python examples/reproduce strategies_page examples/reproduce/results      again, from the committed rows
    modal-ntk verify examples/reproduce/results/strategies/breast_cancer --protocol examples/reproduce/strategies.toml

Where OUT holds the study's stores, their rows are written to OUT/strategies.csv first. Then strategies.md and
strategies.png are made from these rows: accuracy by labels, differences to random sampling seed by seed, ranks by
labels a class, and what the data sets say together.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from budgets import difference, draw_ranks, ranks_by_budget, read_rows, write_rows

from modal_ntk.bench import Protocol, compare_sets
from modal_ntk.bench.analysis.statistics import curves, shared
from modal_ntk.bench.storage.store import Store

RANDOM = "random_sampling"
N_CLASSES = {"banking77_features": 77, "breast_cancer": 2}  # all others have ten
FEW = 10  # labels a class
GROUPS = {
    "frozen features, balanced and not": lambda name: "features" in name,
    "a small net on digits and on a table": lambda name: name in ("digits", "breast_cancer"),
    "convolutional nets trained from pixels": lambda name: "images" in name,
}
COLOURS = {
    "uherding": "#0072B2",
    "ntkcpl": "#D55E00",
    "maxherding": "#009E73",
    "variance_design": "#CC79A7",
    "typiclust": "#E69F00",
    "tcm": "#56B4E9",
    "badge": "#000000",
    "margin": "#8C6BB1",
    "coreset": "#A6761D",
    RANDOM: "#666666",
}


def classes_of(name):
    """Number of classes of a part."""
    return N_CLASSES.get(name, 10)


def stores_of(out):
    """Name and folder of the part that each store in a folder is of."""
    parts = Protocol.all_from_toml(Path(__file__).with_name("strategies.toml"))
    return [(name, out / name) for name in parts if (out / name / "results.sqlite").exists()]


def machines(stores):
    """What the runs of each store were computed with."""
    found = {}
    for name, folder in stores:
        for manifest in Store.open(folder).manifests():
            versions = ", ".join(f"{package} {number}" for package, number in manifest["versions"].items())
            gpus = ", ".join(manifest["hardware"]["gpus"]) if manifest["how"]["devices"] else "no GPU"
            text = f"{manifest['hardware']['cores']} cores, {gpus}; {versions}"
            found.setdefault(text, []).append(name)
    return [f"- {text}: {', '.join(dict.fromkeys(names))}" for text, names in found.items()]


def table(name, found):
    """Accuracy by budget and what was gained over random sampling, the best first."""
    budgets = found[RANDOM].budgets
    few = budgets <= FEW * classes_of(name)
    head = f"minus random, to {FEW} a class | beyond"
    lines = [f"| strategy | {' | '.join(map(str, budgets))} | {head} | query s | seeds |"]
    lines.append("|" + "---|" * (len(budgets) + 5))
    for strategy, curve in sorted(found.items(), key=lambda entry: -entry[1].scores.mean()):
        cells = [f"{100 * value:.1f}" for value in curve.mean]
        cells += [difference(curve, found[RANDOM], inside) if strategy != RANDOM else "" for inside in (few, ~few)]
        lines.append(f"| `{strategy}` | {' | '.join(cells)} | {curve.query_seconds.mean():.2f} | {len(curve.seeds)} |")
    return "\n".join(lines)


def rank_table(sets):
    """Mean rank by labels a class with its standard error, the best of all labels first."""
    ranks, names = ranks_by_budget(sets, {name: classes_of(name) for name in sets})
    lines = [f"| strategy | {' | '.join(ranks)} | all |", "|" + "---|" * (len(ranks) + 2)]
    whole = np.mean([values.mean(axis=0) for values in ranks.values()], axis=0)
    for place in np.argsort(whole):
        cells = [
            f"{values[:, place].mean():.1f} ± {values[:, place].std(ddof=1) / len(values) ** 0.5:.1f}"
            for values in ranks.values()
        ]
        lines.append(f"| `{names[place]}` | {' | '.join(cells)} | {whole[place]:.1f} |")
    return "\n".join(lines)


def picture(groups):
    """Mean ranks by labels a class, one panel for each group of data sets."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(4.2 * len(groups), 4.6))
    FigureCanvasAgg(drawing)
    looks = {
        name: {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.6}
        for name, colour in COLOURS.items()
    }
    panels = drawing.subplots(1, len(groups), squeeze=False)[0]
    for axes, (title, sets) in zip(panels, groups.items(), strict=True):
        ranks, names = ranks_by_budget(sets, {name: classes_of(name) for name in sets})
        draw_ranks(axes, ranks, names, looks)
        axes.set_title(f"{title} ({len(sets)})", fontsize="small")
        if axes is not panels[0]:
            axes.set_ylabel("")
    drawing.legend(*panels[0].get_legend_handles_labels(), ncols=5, loc="lower center", fontsize="small", frameon=False)
    drawing.tight_layout(rect=(0, 0.1, 1, 1))
    return drawing


def write(out):
    """Write the page, the picture and, where the stores are there, the rows."""
    rows, made = out / "strategies.csv", out / "strategies_machines.txt"
    if stores := stores_of(out):
        write_rows(rows, stores)
        made.write_text("\n".join(machines(stores)) + "\n")
    sets = {name: shared(curves(found)) for name, found in read_rows(rows).items()}
    # Ranked are strategies at their defaults; a table may have one with another parameter beside.
    ranked = {name: {key: curve for key, curve in found.items() if ":" not in key} for name, found in sets.items()}
    groups = {
        title: {name: found for name, found in ranked.items() if belongs(name)} for title, belongs in GROUPS.items()
    }
    groups = {title: found for title, found in groups.items() if found}
    text = [
        "# Which strategy saves labels?",
        "command: MODAL_NTK_DATA=... modal-ntk bench examples/reproduce/strategies.toml --out OUT, then\n"
        "python examples/reproduce strategies_page OUT; from the rows in `strategies.csv` by\n"
        "python examples/reproduce strategies_page examples/reproduce/results; cells again by\n"
        "modal-ntk verify examples/reproduce/results/strategies/breast_cancer "
        "--protocol examples/reproduce/strategies.toml",
        "Accuracy in per cent, mean over the seeds that all strategies share; differences are those of means over\n"
        "budgets, seed by seed, with their standard errors. Strategies at their defaults. Those that start without\n"
        "labels choose their first themselves, the others start from random ones; the classifier is trained anew each\n"
        "round. The pool is the same for all seeds of a set.",
        "![Mean rank by labels a class](strategies.png)",
        "Mean rank of the accuracy by labels a class (1 is best); bars are standard errors over sets and seeds, grey\n"
        "lines the other strategies.",
    ]
    for title, found in groups.items():
        text += [f"## Ranks: {title}", f"{', '.join(found)}; labels a class:", rank_table(found)]
    if len(sets) > 1:
        text += ["## All sets together", "Areas under the curves over all labels, which the many-label end decides:"]
        text.append(f"```\n{compare_sets(ranked).table}\n```")
    for name, found in sets.items():
        text += [f"## {name}", table(name, found)]
    text += ["## Computed on", made.read_text()]
    (out / "strategies.md").write_text("\n\n".join(text).rstrip() + "\n")
    picture(groups).savefig(out / "strategies.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the stores, or of strategies.csv")
    sys.exit(write(parser.parse_args().out))
