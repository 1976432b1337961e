"""What studies of many runs share: rows in files, cells that several processes do, each once, and a table of both."""

import csv
import fcntl
import json
import os
import re
import statistics
from pathlib import Path


def rows(path):
    """Rows of a file of lines; none where it is not there yet."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def add(path, row):
    """Append a row in one write, so that rows of several processes do not mix."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(row) + "\n").encode())
    finally:
        os.close(file)


def claimed(folder, cells):
    """Go through cells and leave out those that another process has in hand.

    A claim ends with its process: what was killed on the way is taken up by the next call. The same command may so
    be started as often as there are cores, on several devices at once.
    """
    folder = Path(folder, "locks")
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        name = re.sub(r"\W+", "_", " ".join(map(str, cell)))
        with open(folder / name, "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cell


def missing(path, cells, *names):
    """Go through cells that are neither in another process's hand nor rows of a file; `names` are a cell's in a row."""
    for cell in claimed(Path(path).parent, cells):
        if not any(tuple(r[name] for name in names) == cell for r in rows(path)):
            yield cell


def paired(ours, theirs, digits=4):
    """Mean difference and its standard error, as text, over the seeds that two dicts of numbers share."""
    gaps = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    error = f" ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.{digits}f}" if len(gaps) > 1 else ""
    return f"{statistics.fmean(gaps):+.{digits}f}{error}" if gaps else ""


def rounds(path):
    """Curves of a benchmark's ``rounds.csv``, as `curve_table` takes them."""
    curves = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curve = curves.setdefault(row["strategy"], {}).setdefault(int(row["seed"]), {})
            curve[int(row["n_labels"])] = float(row["score"])
    return curves


def curve_table(curves, against, shown=None):
    """Lines of a table: means by labels, the area (mean over all rounds) and its paired differences.

    `curves` has scores by arm, seed and number of labels. Means are over the seeds that an arm has at a budget, areas
    over the seeds that have every budget.
    """
    budgets = sorted({n for of_arm in curves.values() for curve in of_arm.values() for n in curve})
    shown = budgets if shown is None else shown
    areas = {
        arm: {seed: statistics.fmean(c.values()) for seed, c in of_arm.items() if len(c) == len(budgets)}
        for arm, of_arm in curves.items()
    }
    heads = ["strategy", *(f"{n:,}" for n in shown), "area", *(f"minus {name}" for name in against), "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for arm, of_arm in curves.items():
        at = {n: [curve[n] for curve in of_arm.values() if n in curve] for n in shown}
        line = [arm, *(f"{statistics.fmean(found):.3f}" if found else "" for found in at.values())]
        line.append(f"{statistics.fmean(areas[arm].values()):.4f}" if areas[arm] else "")
        line += [paired(areas[arm], areas[name]) if arm != name else "" for name in against]
        lines.append(f"| {' | '.join([*line, str(len(areas[arm]))])} |")
    return lines
