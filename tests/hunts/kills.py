"""Kills comparisons, labelling sessions and reports at random moments, goes on, and looks whether anything is lost.

Run by hand: ``python tests/hunts/kills.py 10 --of loky dask session report``; "one" is a comparison without workers,
"ray" one on Ray. Each kill is one of SIGKILL and SIGTERM, now and then after one of the workers was killed. After it
the store is whole and holds what it held before, and a run that was terminated has said how to go on and left no
process behind. In the end rows, log or page are those of a run in peace. The status is 1 if anything was lost.

Whatever is killed is forked from this process, which has the libraries already.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
from sklearn.linear_model import LogisticRegression

from modal_ntk import LabelingSession, Margin
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.cli import main as command

sys.path += [str(Path(__file__).resolve().parents[1] / place) for place in ("labeling", "shared")]
import killed_session
from slow_study import write_study

BENCHMARKS = ("one", "loky", "dask", "ray")
LIMIT = 600.0
"""Seconds after which what has not ended never will."""

FACTORY = """
import time
from sklearn.linear_model import LogisticRegression

class Slow(LogisticRegression):
    def fit(self, X, y):
        time.sleep(0.03)
        return super().fit(X, y)
"""


def forked(folder: Path, work: Callable[[], object]) -> int:
    """Do some work in a process of its own, the leader of its group, in a folder; return its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        with (folder / "said").open("w") as said:
            for number in (1, 2):
                os.dup2(said.fileno(), number)
        code = int(work() or 0)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, limit: float = LIMIT) -> int:
    """Wait for a process and return how it ended: its status, or minus the signal; kill its group where it does not."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"did not end within {limit:g} s")


def in_peace(folder: Path, work: Callable[[], object]) -> None:
    """Do some work to its end."""
    code = ended(forked(folder, work))
    assert code == 0, f"ended with {code}: {(folder / 'said').read_text()[-2000:]}"


def killed(child: int, folder: Path, draw: random.Random) -> str:
    """Kill a process, perhaps one of its workers first; check that one that was terminated left no process behind."""
    workers = psutil.Process(child).children(recursive=True) if draw.random() < 0.3 else []
    if workers:
        with suppress(psutil.NoSuchProcess):
            draw.choice(workers).kill()
        time.sleep(draw.uniform(0, 1))
    number = draw.choice((signal.SIGKILL, signal.SIGTERM))
    with suppress(ProcessLookupError):  # it may have ended with its worker
        os.kill(child, number)
    code = ended(child)
    if code == 128 + signal.SIGTERM:
        assert "goes on where this one stopped" in (folder / "said").read_text()
        until = time.monotonic() + 60
        while left := [p for p in psutil.process_iter(["pid"]) if _group(p.pid) == child]:
            assert time.monotonic() < until, f"left behind: {[p.cmdline() for p in left]}"
            time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    known = {-signal.SIGKILL: "SIGKILL", -signal.SIGTERM: "SIGTERM early", 128 + signal.SIGTERM: "SIGTERM"}
    return known.get(code, f"ended with {code}")


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None


def make_study(folder: Path, seeds: int) -> Path:
    """Write a protocol beside its data and an estimator that takes its time."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 5)).astype(np.float32), np.arange(90) % 3
    x[:, 0] += 2 * y
    write_study(folder, FACTORY, seeds, x, y)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])  # for the workers
    sys.path.insert(0, str(folder))
    return folder


def rows(store: Path) -> dict[tuple[str, int, int], object]:
    """Return what every row of a store holds beside its times; nothing where no table is yet."""
    if not (store / FILE_NAME).exists():
        return {}
    with closing(sqlite3.connect(store / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'rounds'").fetchall():
            return {}
    found = Store(store).rows()
    kept = {(row.strategy, row.seed, row.round): row.result for row in found}
    assert len(kept) == len(found), "a row is there twice"
    return kept


def kill_benchmark(folder: Path, backend: str, n_kills: int, draw: random.Random) -> Counter[str]:
    """Kill a comparison again and again; return how often what ended how."""
    seeds = 4 + 4 * n_kills  # enough that the last kill comes before the end, too
    make_study(folder, seeds)
    workers = [] if backend == "one" else ["--backend", backend, "--jobs", "2"]

    def run(out: str, *options: str) -> Callable[[], object]:
        return lambda: command(["bench", "study.toml", "--quiet", "--out", out, *options])

    in_peace(folder, run("calm"))
    out, kept, ends = folder / "rough", rows(folder / "rough"), Counter[str]()
    for i in range(n_kills):
        child = forked(folder, run("rough", *workers))
        # Every fifth kill comes as the run begins, the others after it has stored more than there was.
        while i % 5 != 4 and len(rows(out)) <= len(kept) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 2.0 if i % 5 == 4 else 0.4))
        ends[killed(child, folder, draw)] += 1
        before, kept = kept, rows(out)
        assert before.items() <= kept.items(), "rows were lost or changed"
    in_peace(folder, run("rough", *workers))
    assert kept.items() <= rows(out).items(), "rows were lost or changed"
    assert rows(out) == rows(folder / "calm"), "rows are not those of a run in peace"
    assert len(rows(out)) == 2 * seeds * 3
    return ends


def kill_session(folder: Path, n_kills: int, draw: random.Random) -> Counter[str]:
    """Kill a labelling session again and again."""
    folder.mkdir()
    started = time.monotonic()
    in_peace(folder, lambda: killed_session.work("calm.sqlite"))
    seconds, ends = time.monotonic() - started, Counter[str]()
    for _ in range(n_kills):
        child = forked(folder, lambda: killed_session.work("rough.sqlite"))
        time.sleep(draw.uniform(0, seconds / 10))
        ends[killed(child, folder, draw)] += 1
    in_peace(folder, lambda: killed_session.work("rough.sqlite"))
    logs = []
    for name in ("calm", "rough"):
        session = LabelingSession(
            folder / f"{name}.sqlite", killed_session.X, LogisticRegression(), Margin(), classes=killed_session.CLASSES
        )
        logs.append([(event.id, event.kind, event.row, event.value) for event in session.events])
    assert logs[0] == logs[1], "the log is not that of a session in peace"
    return ends


def kill_report(folder: Path, n_kills: int, draw: random.Random) -> Counter[str]:
    """Kill the writing of a report again and again: every file is whole or not there."""
    make_study(folder, 3)
    in_peace(folder, lambda: command(["bench", "study.toml", "--quiet", "--out", "calm"]))
    calm, ends = folder / "calm", Counter[str]()
    started, held = time.monotonic(), rows(calm)
    in_peace(folder, lambda: command(["report", "calm"]))
    seconds = time.monotonic() - started
    page = _files(calm)
    for name in page:
        (calm / name).unlink()
    for _ in range(n_kills):
        child, before = forked(folder, lambda: command(["report", "calm"])), set(calm.iterdir())
        time.sleep(draw.uniform(0, seconds))
        ends[how := killed(child, folder, draw)] += 1
        left = [path for path in calm.iterdir() if path.is_dir() and path not in before]
        assert how != "SIGTERM" or not left, f"left behind: {left}"
        assert _files(calm).items() <= page.items(), "a file is not that of a report in peace"
    in_peace(folder, lambda: command(["report", "calm"]))
    assert _files(calm) == page
    assert rows(calm) == held
    return ends


def _files(folder: Path) -> dict[str, bytes]:
    # What a report writes; where it was killed, folders that it was about to move files out of are left.
    written = [path for path in sorted(folder.iterdir()) if path.suffix in (".html", ".png", ".csv")]
    return {path.name: path.read_bytes() for path in written}


def main() -> int:
    """Kill what was asked for and print how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, help="how many kills of each")
    parser.add_argument("--of", nargs="+", default=["loky", "session", "report"],
                        choices=[*BENCHMARKS, "session", "report"], help="what to kill")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked, lost = parser.parse_args(), 0
    for what in asked.of:
        draw = random.Random(f"{asked.seed} {what}")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "study"
            try:
                if what in BENCHMARKS:
                    ends = kill_benchmark(folder, what, asked.n, draw)
                else:
                    ends = {"session": kill_session, "report": kill_report}[what](folder, asked.n, draw)
                print(f"{what}: {asked.n} kills ({dict(ends)}), nothing lost", flush=True)
            except AssertionError as error:
                lost += 1
                print(f"{what}: {error}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
