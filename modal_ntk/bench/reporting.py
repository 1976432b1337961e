"""What a comparison found: a table of means and deviations, and the curves."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.store import Row, Store


@dataclass(frozen=True)
class Report:
    """A comparison summarised.

    Parameters
    ----------
    table : str
        Mean and standard deviation of the score for each number of labels and strategy.
    curves : Path
        The picture.
    """

    table: str
    curves: Path


def report(out: str | os.PathLike[str]) -> Report:
    """Summarise the results in a folder and draw ``curves.png`` there.

    Parameters
    ----------
    out : str or path
        Folder of a comparison.

    Returns
    -------
    Report
        Table and picture.

    Raises
    ------
    InvalidInputError
        If the folder holds no results.
    MissingExtraError
        If matplotlib is not installed.
    """
    store = Store.open(Path(out))
    rows = store.rows()
    if not rows:
        raise checks.expected(f"finished runs in {out}", "none", "Let `modal-ntk bench` finish at least one.")
    scores = _by_strategy(rows)
    path = store.folder / "curves.png"
    _draw(scores, checks.one_line(str(store.protocol().get("dataset", "unnamed"))), path)
    return Report(_table(scores), path)


def _by_strategy(rows: list[Row]) -> dict[str, dict[int, list[float]]]:
    scores: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # A store may come from anywhere, and its names go to a terminal.
        scores[checks.one_line(row.strategy)][row.n_labels].append(row.score)
    return {strategy: dict(budgets) for strategy, budgets in scores.items()}


def _deviation(values: list[float]) -> float:
    # The sample's own deviation; a single seed has none to show.
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _table(scores: dict[str, dict[int, list[float]]]) -> str:
    budgets = sorted({n for by_budget in scores.values() for n in by_budget})
    names = sorted(scores)
    cells = [["labels", *names]]
    for n in budgets:
        cells.append([str(n), *(_cell(scores[name].get(n)) for name in names)])
    cells.append(["seeds", *(_span([len(values) for values in scores[name].values()]) for name in names)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(names) + 1)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in cells)


def _cell(values: list[float] | None) -> str:
    if not values:
        return "-"
    spread = "" if len(values) == 1 else f" ± {_deviation(values):.4f}"
    return f"{np.mean(values):.4f}{spread}"


def _span(counts: list[int]) -> str:
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


def _draw(scores: dict[str, dict[int, list[float]]], dataset: str, path: Path) -> None:
    checks.check_installed("The picture of the curves", ["matplotlib"], extra="bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display and without touching a user's pyplot
    axes = figure.subplots()
    for name in sorted(scores):
        budgets = sorted(scores[name])
        means = np.array([np.mean(scores[name][n]) for n in budgets])
        spread = np.nan_to_num([_deviation(scores[name][n]) for n in budgets])
        (line,) = axes.plot(budgets, means, marker="o", markersize=4, label=name)
        axes.fill_between(budgets, means - spread, means + spread, color=line.get_color(), alpha=0.2, linewidth=0)
    n_seeds = max(len(values) for by_budget in scores.values() for values in by_budget.values())
    axes.set_xlabel("labels")
    axes.set_ylabel("test accuracy")
    # Names are shown as they are: a dollar sign in one is no formula.
    axes.set_title(f"{dataset}: mean and standard deviation over {n_seeds} seeds", parse_math=False)
    axes.grid(alpha=0.3)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    # Moved into place whole: a link of that name is replaced, not followed out of the folder.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        drawn = Path(folder) / path.name
        figure.savefig(drawn, dpi=150)
        drawn.replace(path)
