"""What a comparison found: a table of means and deviations, and a page with curves, tests, times and queries."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.significance import doubts
from modal_ntk.bench.analysis.statistics import curves, deviation, find_baseline
from modal_ntk.bench.experiment.datasets import Dataset
from modal_ntk.bench.reports import figures, page, sections, wording
from modal_ntk.bench.reports.queried import find_data
from modal_ntk.bench.storage.store import Row, Store
from modal_ntk.writing import replacing

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """A comparison summarised.

    Parameters
    ----------
    table : str
        Mean and standard deviation of the score for each number of labels and strategy.
    curves : Path or None
        The picture of the curves; None where matplotlib is not installed.
    page : Path
        The page with everything, to be opened in a browser.
    files : tuple of Path
        All that was written: the page, pictures and tables.
    doubts : tuple of str
        What the number of seeds cannot support.
    """

    table: str
    curves: Path | None
    page: Path
    files: tuple[Path, ...]
    doubts: tuple[str, ...]


def report(
    out: str | os.PathLike[str],
    *,
    dataset: str | os.PathLike[str] | Dataset | None = None,
    baseline: str | None = None,
    target: float | None = None,
) -> Report:
    """Summarise the results in a folder and write ``report.html``, pictures and tables there.

    Parameters
    ----------
    out : str or path
        Folder of a comparison.
    dataset : str, path or Dataset, optional
        The comparison's data, from which the report shows classes and images that were queried; by default the
        one of that name, if it is at hand.
    baseline : str, optional
        The strategy that gains and speed-ups are against; by default random sampling, if it is there.
    target : float, optional
        Score up to which labels are counted; by default the baseline's last mean.

    Returns
    -------
    Report
        Table, files and doubts.

    Raises
    ------
    InvalidInputError
        If the folder holds no results, or the data set or baseline is none of the comparison's.

    Notes
    -----
    Without matplotlib the page has no pictures, and says so. Pictures and tables of an earlier report that this one has
    not are deleted.
    """
    store = Store.open(Path(out))
    # A store may come from anywhere, and its names go to a terminal.
    rows = [dataclasses.replace(row, strategy=checks.one_line(row.strategy)) for row in store.rows()]
    if not rows:
        raise checks.expected(f"finished runs in {out}", "none", "Let `modal-ntk bench` finish at least one.")
    protocol = store.protocol()
    found = curves(rows)
    baseline = find_baseline(found) if baseline is None else checks.check_choice("baseline", baseline, found)
    if target is None and baseline is not None:
        target = float(found[baseline].mean[-1])
    data = find_data(protocol, dataset)
    name = checks.one_line(str(protocol.get("dataset", "unnamed")))
    doubtful, metric = doubts(found), wording.metric(protocol)
    written = figures.Written(store.folder)
    parts = [
        page.listing("Before you conclude", doubtful),
        sections.curves_section(found, name, written, baseline, metric),
        sections.summary_section(found, written, baseline, target, metric),
        sections.budgets_section(found, written, metric),
        sections.tests_section(found, written),
        sections.ranks_section(found, written, metric),
        sections.times_section(found),
        sections.queried_section(rows, data, written),
        sections.protocol_section(protocol, store.manifests()),
    ]
    sections.write_rounds(rows, written)
    written.drop_former()
    target_file = store.folder / PAGE
    with replacing(target_file) as draft:
        draft.write_text(page.page(f"Active learning on {name}", parts), encoding="utf-8")
    files = (target_file, *written.files)
    picture = store.folder / "curves.png" if figures.can_draw() else None
    return Report(_table(rows), picture, target_file, files, tuple(doubtful))


def _table(rows: list[Row]) -> str:
    scores: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        scores[row.strategy][row.n_labels].append(row.score)
    names, budgets = sorted(scores), sorted({row.n_labels for row in rows})
    cells = [[str(n), *(_cell(scores[name].get(n)) for name in names)] for n in budgets]
    seeds = ["seeds", *(wording.span([len(values) for values in scores[name].values()]) for name in names)]
    return wording.aligned([["labels", *names], *cells, seeds])


def _cell(values: list[float] | None) -> str:
    return wording.spread(float(np.mean(values)), float(deviation(np.array(values)))) if values else "-"
