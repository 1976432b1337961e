"""Tables of the result pages, made again from the rows that lie beside them.

    python examples/reproduce pages [RESULTS]

A page keeps its words. What stands between `<!-- table: NAME -->` and `<!-- end -->` is made anew from the study's rows
in RESULTS, by default `examples/reproduce/results`.
"""

import argparse
import re
from pathlib import Path

import ddal_defaults
import dynamical_rounds
import dynamical_settling
import lpntk_conflicts
import lpntk_mnist
import small_queries
import waal_fashion_mnist
import waal_starved
from cells import curve_table, rounds, rows

FEATURES = [100, 200, 300, 400, 600, 800, 1100]


def starved(path, *, n_rounds=None, seed=None):
    """The table of the starved classes, of some rounds or one seed."""
    found = [r for r in rows(path) if seed in (None, r["seed"])]
    budgets = sorted({r["n_labels"] for r in found})[:n_rounds]
    return waal_starved.table([r for r in found if r["n_labels"] in budgets])


def pruning(folder):
    """Comparisons of the pruned sets, as the stage prints them."""
    return ["```", *lpntk_mnist.comparison(lpntk_mnist.pruning_table(folder).by("data")), "```"]


def tables(results):
    """By page and name, what makes its lines."""
    ddal, dynamical, lpntk, waal = (results / group for group in ("ddal", "dynamical", "lpntk", "waal"))
    settling = dynamical / "dynamical_settling"
    of_small = lambda task: small_queries.tables(rows(results / "small_queries/small_queries.jsonl"))[task]  # noqa: E731
    of_ddal = lambda task: ddal_defaults.tables(rows(ddal / "ddal_defaults/ddal_defaults.jsonl"))[task]  # noqa: E731
    both = ["random_sampling", "coreset"]
    annealed = ["random_sampling", "dynamical:influence=0"]
    return {
        "waal/waal_fashion_mnist.md": {
            "two seeds": lambda: waal_fashion_mnist.summary(rows(waal / "waal_fashion_mnist/waal_fashion_mnist.jsonl")),
            "in small": lambda: waal_fashion_mnist.summary(rows(waal / "waal_fashion_mnist/in_small.jsonl")),
        },
        "waal/waal_starved.md": {
            "classes": lambda: starved(waal / "waal_starved/waal_starved_classes.jsonl"),
        },
        "dynamical/dynamical_table.md": {
            "annealed": lambda: curve_table(rounds(dynamical / "dynamical_table/annealed.csv"), annealed),
            "reinitialised": lambda: curve_table(rounds(dynamical / "dynamical_table/reinitialised.csv"), both),
        },
        "dynamical/dynamical_rounds.md": {
            "at stop": lambda: dynamical_rounds.table(rows(dynamical / "dynamical_rounds/at_stop.jsonl")),
            "annealed": lambda: dynamical_rounds.table(rows(dynamical / "dynamical_rounds/annealed.jsonl")),
        },
        "dynamical/dynamical_settling.md": {
            "settling": lambda: dynamical_settling.table(rows(settling / "dynamical_settling.jsonl")),
        },
        "ddal/ddal_defaults.md": {task: lambda task=task: of_ddal(task) for task in ddal_defaults.CLASSES},
        "ddal/ddal_benchmarks.md": {
            "mnist": lambda: curve_table(rounds(ddal / "ddal_benchmarks/mnist.csv"), both),
        },
        "ddal/ddal_features.md": {
            "features": lambda: curve_table(rounds(ddal / "ddal_features/rounds.csv"), both, FEATURES),
            "fashion": lambda: curve_table(rounds(ddal / "ddal_features/fashion_mnist_simclr.csv"), both, FEATURES),
        },
        "lpntk/lpntk_mnist.md": {
            "pruning": lambda: pruning(lpntk / "lpntk_mnist"),
            "cifar10": lambda: pruning(lpntk / "lpntk_mnist/cifar10"),
            "cifar10 of 3,000": lambda: pruning(lpntk / "lpntk_mnist/cifar10_3000"),
        },
        "small_queries.md": {task: lambda task=task: of_small(task) for task in small_queries.TASKS},
        "lpntk/lpntk_conflicts.md": {
            "conflicts": lambda: lpntk_conflicts.table(lpntk / "lpntk_conflicts/lpntk_conflicts.csv"),
        },
    }


def fill(text, made):
    """The page with its tables anew; every table that is named must be there once, and no other."""
    marks = re.findall(r"<!-- table: (.+?) -->", text)
    if sorted(marks) != sorted(made):
        raise SystemExit(f"expected the tables {sorted(made)} in the page, got the marks {sorted(marks)}.")
    for name, lines in made.items():
        mark = f"<!-- table: {name} -->"
        start, end = text.index(mark) + len(mark), text.index("<!-- end -->", text.index(mark))
        text = text[:start] + "\n\n" + "\n".join(lines()) + "\n\n" + text[end:]
    return text


def main(results):
    """Make all tables anew, and say which pages changed."""
    for name, made in tables(results).items():
        page = results / name
        text = page.read_text(encoding="utf-8")
        anew = fill(text, made)
        if anew != text:
            page.write_text(anew, encoding="utf-8")
            print(f"{page.name} changed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=Path(__file__).parent / "results")
    main(parser.parse_args().results)
