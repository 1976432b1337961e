"""What studies of many runs share: rows of JSON in a file, and cells that any number of processes do, each once."""

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


def paired(ours, theirs, digits=4):
    """Mean difference and its standard error, as text, over the seeds that two dicts of numbers share."""
    gaps = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    error = f" ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.{digits}f}" if len(gaps) > 1 else ""
    return f"{statistics.fmean(gaps):+.{digits}f}{error}" if gaps else ""
