"""The sections of a report: what each shows, and the pictures and tables it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from functools import partial
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.significance import Ranks, penalty_matrix, rank_areas
from modal_ntk.bench.analysis.statistics import AUBC, Curves, Summary, shared, summarise
from modal_ntk.bench.experiment.datasets import Dataset
from modal_ntk.bench.reports import figures, page, wording
from modal_ntk.bench.reports.figures import Written
from modal_ntk.bench.reports.queried import Queried, count_classes, evenness, first_images
from modal_ntk.bench.storage.store import Row

_MOST_CLASSES = 20  # columns that a table of classes may have and be read


def curves_section(found: Mapping[str, Curves], name: str, written: Written, baseline: str | None, metric: str) -> str:
    """Show curves, and gains over the baseline.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    name : str
        The data set.
    written : Written
        Takes the pictures.
    baseline : str or None
        What gains are over, if anything.
    metric : str
        What is scored.

    Returns
    -------
    str
        HTML.
    """
    n_seeds = wording.span([len(curve.seeds) for curve in found.values()])
    text = f"Mean {metric} on {name} over {n_seeds} seeds; the bands are one standard deviation over seeds."
    last = {key: (int(curve.budgets[-1]), float(curve.mean[-1])) for key, curve in found.items()}
    ends = ", ".join(f"{key} {mean:.3f} at {n}" for key, (n, mean) in sorted(last.items(), key=lambda kv: -kv[1][1]))
    read = f"Lines of mean {metric} against the number of labels. At the end: {ends} labels."
    drawn = written.picture(lambda: figures.draw_curves(found, name, metric), "curves.png", text, read)
    if baseline is not None:
        text = f"Mean {metric} less that of {baseline}; the band is one standard deviation of {baseline}."
        levels = dict(zip(found[baseline].budgets.tolist(), found[baseline].mean.tolist(), strict=True))
        gains = [f"{key} {mean - levels[n]:+.3f}" for key, (n, mean) in last.items() if n in levels]
        read = f"Lines of the gain in mean {metric} over {baseline}. At the end: {', '.join(gains)}."
        drawn += written.picture(lambda: figures.draw_gain(found, baseline, metric), "gain.png", text, read)
    return page.section("Curves", page.pictures(drawn) if drawn else page.paragraph(figures.NO_PICTURES, "note"))


def summary_section(
    found: Mapping[str, Curves], written: Written, baseline: str | None, target: float | None, metric: str
) -> str:
    """Show the figures of each strategy.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    written : Written
        Takes the table.
    baseline, target
        As for `summarise`.
    metric : str
        What is scored.

    Returns
    -------
    str
        HTML.
    """
    summaries = summarise(found, baseline=baseline, target=target).values()
    written.table("summary.csv", [f.name for f in fields(Summary)], map(astuple, summaries))
    goal = "target" if target is None else f"{target:.4f}"
    header = ["strategy", "seeds", f"{metric} over all labels", f"final {metric}", f"labels to {goal}"]
    header += ["speed-up", "effective budget"]
    rows = [
        [
            s.strategy,
            str(s.n_seeds),
            wording.spread(s.area, s.area_deviation),
            wording.spread(s.final, s.final_deviation),
            "never" if np.isnan(s.labels_to_target) else f"{s.labels_to_target:.0f}",
            "-" if np.isnan(s.speed_up) else f"{s.speed_up:.2f} times",
            wording.percent(s.effective_budget_ratio),
        ]
        for s in summaries
    ]
    terms = [
        (f"{metric} over all labels", f"mean ± standard deviation over seeds of the {AUBC}"),
        (f"final {metric}", "at the last number of labels; mean ± standard deviation over seeds"),
        (f"labels to {goal}", f"labels at which the mean {metric} first reaches {goal}, between two rounds by a line"),
    ]
    if baseline is not None:
        terms += [
            ("speed-up", f"labels {baseline} takes to {goal} over labels the strategy takes, on the curves of means"),
            ("effective budget", f"share of the labels at which the mean exceeds {baseline}'s plus its deviation"),
        ]
    caption = f"Active learning: {metric}, mean ± standard deviation over seeds."
    formats = [("LaTeX", wording.latex(header, rows, caption)), ("Markdown", wording.markdown(header, rows))]
    table = page.table(header, rows, "One row for each strategy.")
    return page.section("Summary", table, page.to_copy(formats), page.definitions(terms))


def budgets_section(found: Mapping[str, Curves], written: Written, metric: str) -> str:
    """Show mean and deviation at each number of labels.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    written : Written
        Takes the table.
    metric : str
        What is scored.

    Returns
    -------
    str
        HTML.
    """
    budgets = sorted({int(n) for curve in found.values() for n in curve.budgets})
    rows, long = [], []
    for name, curve in found.items():
        points = zip(curve.budgets.tolist(), curve.mean.tolist(), curve.deviation.tolist(), strict=True)
        at = {n: (mean, deviation) for n, mean, deviation in points}
        rows.append([name, *(wording.spread(*at[n]) if n in at else "-" for n in budgets)])
        long += [(name, n, len(curve.seeds), *point) for n, point in at.items()]
    written.table("curves.csv", ["strategy", "n_labels", "n_seeds", "mean", "deviation"], long)
    caption = f"Mean {metric} ± standard deviation over seeds, by number of labels."
    heading = f"{metric.capitalize()} by number of labels"
    return page.section(heading, page.table(["strategy", *map(str, budgets)], rows, caption))


def tests_section(found: Mapping[str, Curves], written: Written) -> str:
    """Show who beats whom.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    written : Written
        Takes the table.

    Returns
    -------
    str
        HTML.
    """
    penalties = penalty_matrix(found)
    names = penalties.strategies
    by_name = zip(names, penalties.matrix, strict=True)
    written.table("penalties.csv", ["better", *names], [[name, *row] for name, row in by_name])
    if not penalties.n_tests:
        return page.section("Wins", page.paragraph("Nothing could be tested: that takes two strategies and two seeds."))
    wins = np.where(np.eye(len(names), dtype=bool), np.nan, penalties.matrix).tolist()
    caption = "Share of the numbers of labels at which the row is significantly better than the column."
    text = (
        f"{penalties.n_tests} two-sided paired t-tests over the shared seeds, one for each pair of strategies and "
        f"number of labels, at {penalties.alpha:.0%} for all together (Holm). A row with high figures wins; a column "
        "with high figures loses. Numbers of labels at which two strategies agree on every seed are not tested."
    )
    return page.section("Wins", page.shares("row beats column", names, wins, caption), page.paragraph(text, "note"))


def ranks_section(found: Mapping[str, Curves], written: Written, metric: str) -> str:
    """Show average ranks with their critical difference.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.
    written : Written
        Takes picture and table.
    metric : str
        What is scored.

    Returns
    -------
    str
        HTML.
    """
    if len(found) < 2 or not next(iter(shared(found).values())).scores.size:
        said = "There is nothing to rank: that takes two strategies with seeds and numbers of labels in common."
        return page.section("Ranks", page.paragraph(said))
    note = "The blocks are seeds of one data set: the order is one for this data set."
    drawn = ranks_picture(rank_areas(found), written, "ranks", "seeds", metric)
    return page.section("Ranks", drawn, page.paragraph(note, "note"))


def ranks_picture(ranks: Ranks, written: Written, name: str, blocks: str, metric: str) -> str:
    """Draw average ranks with their critical difference, and write them as a table.

    Parameters
    ----------
    ranks : Ranks
        The ranks.
    written : Written
        Takes picture and table.
    name : str
        Of both files, without its ending.
    blocks : str
        What was ranked within, in the plural.
    metric : str
        What is scored.

    Returns
    -------
    str
        HTML.
    """
    pairs = sorted(zip(ranks.average, ranks.strategies, strict=True))
    written.table(f"{name}.csv", ["strategy", "average_rank"], [(strategy, rank) for rank, strategy in pairs])
    text = f"Average rank by mean {metric} over all labels within each of {ranks.n_blocks} {blocks}; "
    text += f"critical difference {ranks.critical_difference:.2f} (Nemenyi, 5 %)"
    text += "." if np.isnan(ranks.p_value) else f"; Friedman's p {ranks.p_value:.2g}."
    read = "Average ranks, the best first: " + ", ".join(f"{strategy} {rank:.2f}" for rank, strategy in pairs) + "."
    return page.pictures(written.picture(lambda: figures.draw_ranks(ranks), f"{name}.png", text, read))


def times_section(found: Mapping[str, Curves]) -> str:
    """Show seconds.

    Parameters
    ----------
    found : dict of str to Curves
        The curves.

    Returns
    -------
    str
        HTML.
    """
    rows: list[page.Row] = [
        [
            name,
            *(wording.seconds(float(curve.query_seconds[:, i].mean())) for i in (min(1, len(curve.budgets) - 1), -1)),
            wording.seconds(float(curve.query_seconds.sum(axis=1).mean())),
            wording.seconds(float(curve.fit_seconds.sum(axis=1).mean())),
        ]
        for name, curve in found.items()
    ]
    header = ["strategy", "first query", "last query", "all queries", "all fits"]
    return page.section("Times", page.table(header, rows, "Mean over seeds."))


def queried_section(rows: Sequence[Row], data: Dataset | str, written: Written) -> str:
    """Show classes and images that were queried.

    Parameters
    ----------
    rows : sequence of Row
        Of the store.
    data : Dataset or str
        The data, or why they are not at hand.
    written : Written
        Takes pictures and table.

    Returns
    -------
    str
        HTML.
    """
    heading = "What was queried"
    if isinstance(data, str):
        return page.section(heading, page.paragraph(f"Not shown, since the data are not at hand: {data}", "note"))
    counted = count_classes(rows, data)
    parts = [page.pictures(_balance(counted, data, written)), _classes(counted, data, written)]
    drawn: list[tuple[bytes, str, str]] = []
    for i, (strategy, shown) in enumerate(first_images(rows, data).items(), start=1):
        captions = [f"to {row.n_labels}" for row in shown]
        draw = partial(figures.draw_images, [data.x_train[list(row.indices)] for row in shown], captions)
        text = f"The first images queried by {strategy}, seed {shown[0].seed}; one row for each round."
        drawn += written.picture(draw, f"images_{i}.png", text, text)
    return page.section(heading, *parts, *([page.pictures(drawn)] if drawn else []))


def _balance(counted: Mapping[str, Queried], data: Dataset, written: Written) -> list[tuple[bytes, str, str]]:
    pool = float(evenness(np.bincount(data.y_train, minlength=len(data.classes))))
    text = "Balance of the classes among the labels: entropy of shares over that of equal shares, mean over seeds."
    ends = ", ".join(f"{name} {entry.evenness[-1]:.2f}" for name, entry in counted.items())
    read = (
        f"Lines of the balance against the number of labels; 1 is even. At the end: {ends}; the whole pool {pool:.2f}."
    )
    return written.picture(lambda: figures.draw_balance(counted, pool), "balance.png", text, read)


def _classes(counted: Mapping[str, Queried], data: Dataset, written: Written) -> str:
    names = [checks.one_line(str(label)) for label in data.classes]
    long = [
        (strategy, int(n), label, count)
        for strategy, entry in counted.items()
        for n, counts in zip(entry.budgets, entry.counts, strict=True)
        for label, count in zip(names, counts, strict=True)
    ]
    written.table("classes.csv", ["strategy", "n_labels", "class", "mean_count"], long)
    if len(names) > _MOST_CLASSES:
        return page.paragraph(f"Counts of the {len(names)} classes are in classes.csv.", "note")
    rows = [[strategy, *(f"{count:.1f}" for count in entry.counts[-1])] for strategy, entry in counted.items()]
    return page.table(["strategy", *names], rows, "Labels of each class at the end, mean over seeds.")


def protocol_section(protocol: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]]) -> str:
    """Show what all runs share, and where they were run last.

    Parameters
    ----------
    protocol : dict
        Of the store.
    manifests : sequence of dict
        Of the calls that ran it.

    Returns
    -------
    str
        HTML.
    """
    parts = [page.definitions(_pairs(protocol))]
    if manifests:
        last = {key: value for key, value in manifests[-1].items() if key != "protocol"}
        said = f"Run by {len(manifests)} calls; the last:" if len(manifests) > 1 else "Run by one call:"
        parts += [page.paragraph(said, "note"), page.definitions(_pairs(last))]
    return page.section("Protocol", *parts)


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    words = ((wording.word(key), wording.entry(str(key), value)) for key, value in values.items())
    return [(checks.one_line(key), checks.one_line(text)) for key, text in words]


def write_rounds(rows: Sequence[Row], written: Written) -> None:
    """Write every round as a row of ``rounds.csv``, without the indices.

    Parameters
    ----------
    rows : sequence of Row
        Of the store.
    written : Written
        Takes the table.
    """
    names = ["strategy", "seed", "round", "n_labels", "score", "query_seconds", "fit_seconds"]
    written.table("rounds.csv", names, [[getattr(row, name) for name in names] for row in rows])
