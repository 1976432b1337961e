"""What comparisons on several data sets say together: ranks, who wins how often, labels saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.significance import Ranks, average_ranks
from modal_ntk.bench.analysis.statistics import Curves, curves, find_baseline, shared, speed_up
from modal_ntk.bench.reports import page, wording
from modal_ntk.bench.reports.figures import Written
from modal_ntk.bench.reports.sections import ranks_picture
from modal_ntk.bench.storage.store import Store
from modal_ntk.writing import replacing

PAGE = "across.html"


@dataclass(frozen=True)
class Across:
    """Strategies compared over several data sets, each of which counts the same.

    Parameters
    ----------
    datasets : tuple of str (n_sets,)
        Names of the data sets.
    areas : numpy.ndarray (n_sets, k)
        Mean `aubc` over the seeds and numbers of labels that all strategies share on a data set.
    ranks : Ranks
        Of the areas within each data set.
    wins : numpy.ndarray (k, k)
        Share of the seeds in which the strategy of the row has the larger area than that of the column, mean over
        data sets; a tie is half a win, and the diagonal is NaN.
    baseline : str or None
        What labels are saved against.
    saved : numpy.ndarray (n_sets, k)
        `labels_saved` against the baseline; NaN where its last score is never reached, and without a baseline.
    left_out : tuple of str
        Strategies that some data set lacks.
    metric : str, default="score"
        What is scored, where it is the same on all data sets.
    """

    datasets: tuple[str, ...]
    areas: np.ndarray
    ranks: Ranks
    wins: np.ndarray
    baseline: str | None
    saved: np.ndarray
    left_out: tuple[str, ...]
    metric: str = "score"

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies, (k,)."""
        return self.ranks.strategies

    @property
    def table(self) -> str:
        """Average rank, labels saved and area of every strategy, the best first, as text."""
        order = np.argsort(self.ranks.average, kind="stable")
        width = max(len("strategy"), *map(len, self.strategies))
        cells = [["strategy".ljust(width), "rank", "saved", *self.datasets]]
        for i in order:
            saved = wording.percent(_mean(self.saved[:, i]))
            areas = [f"{area:.4f}" for area in self.areas[:, i]]
            cells.append([self.strategies[i].ljust(width), f"{self.ranks.average[i]:.2f}", saved, *areas])
        return wording.aligned(cells)


def labels_saved(curve: Curves, baseline: Curves) -> float:
    """Return the share of labels that a strategy saves at the baseline's last mean score.

    Parameters
    ----------
    curve, baseline : Curves
        The strategy's and, as a rule, random sampling's; their means are compared.

    Returns
    -------
    float
        One less the labels it takes over those that the baseline takes: a half where it takes half as many, below
        zero where it takes more; NaN where it never gets there.
    """
    return 1 - 1 / speed_up(curve, baseline)


def compare_sets(
    by_dataset: Mapping[str, Mapping[str, Curves]], *, baseline: str | None = None, metric: str = "score"
) -> Across:
    """Compare strategies over data sets.

    Parameters
    ----------
    by_dataset : dict of str to dict of str to Curves
        For each data set what `curves` returns.
    baseline : str, optional
        What labels are saved against; by default `random_sampling`, if every data set has it.
    metric : str, default="score"
        What is scored.

    Returns
    -------
    Across
        Over the strategies that every data set has.

    Raises
    ------
    InvalidInputError
        If there are fewer than two data sets, or fewer than two strategies in all of them, or these share no seed or
        number of labels on one, or the baseline is none of them.

    Notes
    -----
    Ranks and their critical difference are those of Demšar (2006), with the data sets as blocks: unlike seeds of one
    data set, they tell something of data sets that are not among them.
    """
    if len(by_dataset) < 2:
        remedy = "One alone has a report of its own: `modal-ntk report DIR`."
        raise checks.expected("comparisons on two data sets or more", len(by_dataset), remedy)
    every = {name for found in by_dataset.values() for name in found}
    names = tuple(sorted(set.intersection(*(set(found) for found in by_dataset.values()))))
    if len(names) < 2:
        remedy = "Run the same strategies on each."
        raise checks.expected("two strategies that all data sets have", ", ".join(names) or "none", remedy)
    baseline = find_baseline(names) if baseline is None else checks.check_choice("baseline", baseline, names)
    areas, wins, saved = [], [], []
    for dataset, found in by_dataset.items():
        cut = [shared({name: found[name] for name in names})[name] for name in names]
        if not cut[0].scores.size:
            remedy = "Let every strategy finish the same seeds."
            raise checks.expected(f"seeds and numbers of labels that all strategies share on {dataset}", "none", remedy)
        by_seed = np.stack([curve.areas for curve in cut], axis=1)
        areas.append(by_seed.mean(axis=0))
        difference = by_seed[:, :, None] - by_seed[:, None, :]
        wins.append(((difference > 0) + 0.5 * (difference == 0)).mean(axis=0))
        saved.append([labels_saved(c, cut[names.index(baseline)]) if baseline else np.nan for c in cut])
    won = np.mean(wins, axis=0)
    np.fill_diagonal(won, np.nan)
    ranks = average_ranks(names, np.array(areas))
    left_out = tuple(sorted(every - set(names)))
    return Across(tuple(by_dataset), np.array(areas), ranks, won, baseline, np.array(saved), left_out, metric)


def report_across(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Across:
    """Compare the comparisons in several folders and write ``across.html``, its picture and its tables.

    Parameters
    ----------
    folders : sequence of str or path
        Folders of comparisons, one for each data set.
    out : str or path
        Where the page goes.

    Returns
    -------
    Across
        What it says.

    Raises
    ------
    InvalidInputError
        As for `compare_sets`; also if a folder holds no results, or two hold the same data set under one name.
    MissingExtraError
        If matplotlib is not installed.
    """
    by_dataset: dict[str, dict[str, Curves]] = {}
    stores = {Path(folder).resolve(): Store.open(folder) for folder in folders}
    if len(stores) < len(folders):
        raise checks.expected("one comparison for each data set", "one folder twice", "Name each folder once.")
    of = {folder: checks.one_line(str(store.protocol().get("dataset", "unnamed"))) for folder, store in stores.items()}
    for folder, store in stores.items():
        # One data set may be there in several ways, such as balanced and not: each has a folder of its own.
        several = list(of.values()).count(of[folder]) > 1
        name = checks.one_line(folder.name) if several else of[folder]
        if name in by_dataset:
            raise checks.expected("one comparison for each data set", f"two called {name}", "Rename one folder.")
        by_dataset[name] = {checks.one_line(key): curve for key, curve in curves(store.rows()).items()}
    metrics = {wording.metric(store.protocol()) for store in stores.values()}
    found = compare_sets(by_dataset, metric=metrics.pop() if len(metrics) == 1 else "score")
    written = Written(Path(out))
    parts = [
        page.listing("Not on every data set, hence left out", found.left_out),
        page.section("Ranks", ranks_picture(found.ranks, written, "across_ranks", "data sets", found.metric)),
        _wins(found, written),
        _figures(found, written),
    ]
    with replacing(Path(out) / PAGE) as draft:
        draft.write_text(page.page(f"Active learning on {len(found.datasets)} data sets", parts), encoding="utf-8")
    return found


def _wins(found: Across, written: Written) -> str:
    names = found.strategies
    written.table("across_wins.csv", ["wins", *names], [[n, *row] for n, row in zip(names, found.wins, strict=True)])
    caption = f"Share of the seeds in which the row has the larger mean {found.metric} over all labels; "
    caption += "each data set counts the same."
    return page.section("Wins", page.shares("row over column", names, found.wins.tolist(), caption))


def _figures(found: Across, written: Written) -> str:
    long = [
        (dataset, name, area, share)
        for dataset, areas, saved in zip(found.datasets, found.areas, found.saved, strict=True)
        for name, area, share in zip(found.strategies, areas, saved, strict=True)
    ]
    written.table("across.csv", ["dataset", "strategy", "area", "labels_saved"], long)
    header = ["strategy", *found.datasets]
    areas = [[n, *row] for n, row in zip(found.strategies, found.areas.T, strict=True)]
    parts = [page.table(header, areas, f"Mean {found.metric} over all labels.")]
    if found.baseline is not None:
        rows = [
            [name, *map(wording.percent, shares), wording.percent(_mean(shares))]
            for name, shares in zip(found.strategies, found.saved.T, strict=True)
        ]
        caption = f"Labels saved against {found.baseline} at its last mean {found.metric}; "
        caption += "a dash where that is never reached, and then for the mean."
        parts.append(page.table([*header, "mean"], rows, caption))
    return page.section("By data set", *parts)


def _mean(shares: np.ndarray) -> float:
    # NaN where it is for one: the mean over the data sets that went well would flatter.
    return float(np.mean(shares))
