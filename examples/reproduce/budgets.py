"""What studies over several data sets share: rows that fit into a repository, differences, ranks by labels a class."""

import csv
from types import SimpleNamespace

import numpy as np
from scipy.stats import rankdata

from modal_ntk.bench.reports.figures import styles
from modal_ntk.bench.storage.store import Store

BINS = {"1-2": (1, 2), "3-5": (3, 5), "6-10": (6, 10), "20-30": (20, 30), "40-50": (40, 50), "100": (100, 100)}


def write_rows(path, stores, keep=lambda _: True):
    """Write the rows of stores, by the names of their data sets, without what was queried."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "strategy", "seed", "n_labels", "score", "query_seconds"])
        for name, folder in stores:
            for row in Store.open(folder).rows():
                if keep(row.strategy):
                    kept = row.strategy, row.seed, row.n_labels, f"{row.score:.4f}", f"{row.query_seconds:.2f}"
                    writer.writerow([name, *kept])


def read_rows(path):
    """Rows by data set, as `modal_ntk.bench.analysis.statistics.curves` takes them."""
    rows = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            kept = SimpleNamespace(strategy=row["strategy"], fit_seconds=0.0)
            kept.seed, kept.n_labels = int(row["seed"]), int(row["n_labels"])
            kept.score, kept.query_seconds = float(row["score"]), float(row["query_seconds"])
            rows.setdefault(row["data"], []).append(kept)
    return rows


def difference(curve, baseline, inside):
    """Mean and standard error over the seeds of the difference of means over some budgets, in per cent."""
    if len(curve.seeds) < 2 or not inside.any():
        return ""
    paired = 100 * (curve.scores - baseline.scores)[:, inside].mean(axis=1)
    return f"{paired.mean():+.1f} ± {paired.std(ddof=1) / len(paired) ** 0.5:.1f}"


def ranks_by_budget(sets, n_classes):
    """Ranks (sets and seeds, strategies) for each bin of labels a class, and the strategies that all sets have."""
    names = sorted(set.intersection(*(set(found) for found in sets.values())))
    ranks = {name: [] for name in BINS}
    for data, found in sets.items():
        by_budget = rankdata(-np.array([found[name].scores for name in names]), axis=0)
        a_class = found[names[0]].budgets / n_classes[data]
        for name, (least, most) in BINS.items():
            inside = (a_class >= least) & (a_class <= most)
            if inside.any():
                ranks[name].extend(by_budget[:, :, inside].mean(axis=2).T)
    return {name: np.array(values) for name, values in ranks.items() if len(values) > 1}, names


def draw_ranks(axes, ranks, names, looks=None, shown=lambda name: name):
    """Draw mean ranks with their standard errors; where looks are given, what has none is a thin grey line."""
    looks = styles(names) if looks is None else looks
    for place, name in enumerate(names):
        mean = np.array([values[:, place].mean() for values in ranks.values()])
        error = np.array([values[:, place].std(ddof=1) / len(values) ** 0.5 for values in ranks.values()])
        if name in looks:
            axes.errorbar(range(len(ranks)), mean, error, label=shown(name), capsize=2, **looks[name])
        else:
            axes.plot(range(len(ranks)), mean, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xticks(range(len(ranks)), labels=list(ranks))
    axes.set(xlabel="labels a class", ylabel="mean rank of the accuracy (1 is best)")
    axes.invert_yaxis()
