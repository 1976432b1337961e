"""Changes single characters of the library's source, and counts the changes that no test sees.

Run by hand: ``python tests/hunts/source_mutants.py 100 --jobs 16 --out mutants.jsonl`` draws a hundred changes over
kernels, structure, selection, strategies, pruning, nets, statistics and labelling. Each is made in a copy of the tree,
where the tests of the changed file's name run first, and then, while nobody has seen it, the others of its folder. What
survives is printed with its line, to be explained or to become a test, as in ``tests/test_small_laws.py``. Each run is
forked from a process that has loaded torch and its like, which take longer to load than most tests to run.

The tests that are needed run once on the unchanged tree, and those that fail there judge nothing. What is known is kept
in the file of ``--out``: the same command goes on where it stopped, on the same tree.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import queue
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("kernels", "structure", "selection", "strategies", "pruning", "nets", "labeling", "bench")
FILES_OF_BENCH = ("statistics", "significance", "stopping", "splits")
SWAPS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any"}
LIBRARIES = ["torch", "sklearn", "skorch", "modAL.models", "pandas", "numba"]  # nothing that pytest rewrites
WORKERS = multiprocessing.get_context("forkserver")
HELPERS = ("oracles", "shared", "hunts", "benchmarks")
FAILED, BROKEN_OFF = 1, 2  # pytest's exit codes: a test failed; the file could not even be imported
BROKEN, NO_TESTS = 3, 5


class Mutant(NamedTuple):
    """A change: in which file, line and column, what stands there, and what comes instead."""

    path: str
    line: int
    column: int
    old: str
    new: str


def changes(path: Path) -> list[Mutant]:
    """Return every change of a file."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    # Where a warning points to is nobody's result.
    spared = {k.value for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords
              if k.arg == "stacklevel"}  # fmt: skip
    found: set[tuple[int, int, str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            found |= _between(lines, node.left, node.comparators[0], node.ops[0])
        elif isinstance(node, ast.BinOp):
            found |= _between(lines, node.left, node.right, node.op)
        elif isinstance(node, ast.BoolOp):
            found |= _between(lines, node.values[0], node.values[1], node.op)
        elif isinstance(node, ast.Constant) and type(node.value) is int and node.value in (0, 1, 2):
            if node not in spared:
                found.add((node.lineno, node.col_offset, str(node.value), str(node.value + 1)))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in NAMES:
                found.add((node.end_lineno or 0, (node.end_col_offset or 0) - len(name), name, NAMES[name]))
    mutants = [Mutant(path.relative_to(ROOT).as_posix(), *change) for change in sorted(found)]
    return [mutant for mutant in mutants if changed(source, mutant) is not None]


def _between(lines: list[str], left: ast.expr, right: ast.expr, op: ast.AST) -> set[tuple[int, int, str, str]]:
    # The sign stands between its two sides; where brackets or line ends do as well, it is left alone.
    if type(op) not in SWAPS or left.end_lineno != right.lineno:
        return set()
    start, end = left.end_col_offset or 0, right.col_offset
    between = lines[right.lineno - 1].encode()[start:end].decode(errors="replace")
    sign = between.strip().strip("() ")
    return {(right.lineno, start + between.index(sign), sign, SWAPS[type(op)])} if sign else set()


def changed(source: str, mutant: Mutant) -> str | None:
    """Return the source with a change; none where the place of a part of an f-string is not told right."""
    lines = source.splitlines(keepends=True)
    data, column = lines[mutant.line - 1].encode(), mutant.column
    if not data[column:].startswith(mutant.old.encode()):
        return None
    lines[mutant.line - 1] = (data[:column] + mutant.new.encode() + data[column + len(mutant.old.encode()) :]).decode()
    return "".join(lines)


def drawn(n: int, seed: int = 0) -> list[Mutant]:
    """Draw changes, as many from each part of the library as can be."""
    rng = random.Random(seed)
    by_place: dict[str, list[Mutant]] = {}
    for place in PLACES:
        for path in sorted((ROOT / "modal_ntk" / place).rglob("*.py")):
            if place != "bench" or path.stem in FILES_OF_BENCH:
                by_place.setdefault(place, []).extend(changes(path))
    for found in by_place.values():
        rng.shuffle(found)
    return [found[i] for i in range(n) for found in by_place.values() if i < len(found)][:n]


def tests_of(path: str) -> tuple[list[str], list[str]]:
    """Return the tests that bear a file's name, its own examples among them, and the others of its folder."""
    parts = Path(path).parts
    folder = ROOT.joinpath("tests", *parts[1:-1])
    # Some folders of the library share one of the tests.
    folder = next(place for place in (folder, *folder.parents) if any(place.glob("test_*.py")))
    beside = sorted(folder.glob("test_*.py"))
    named = [found for found in beside if parts[-1].removesuffix(".py") in found.stem]
    laws = ROOT / "tests" / "test_small_laws.py"
    rest = [found for found in beside if found not in named]
    return [path, *map(_relative, (*named, laws))], list(map(_relative, rest))


def _left_out(folder: str, names: list[str]) -> set[str]:
    # Beside what is hidden, data and products that lie in the root; tests/shared is what the tests share.
    beside = {"shared", "build"} if Path(folder) == ROOT else {"_build"}
    return {name for name in names if name.startswith(".") or name in beside}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


class Bench:
    """Copies of the tree in which tests run, and what came of them.

    Parameters
    ----------
    folder : Path
        Of the copies.
    out : Path
        File of what is known, a line of JSON each.
    jobs : int
        How many run at once.
    """

    def __init__(self, folder: Path, out: Path, jobs: int) -> None:
        self.out, self.jobs = out, jobs
        self.copies: queue.Queue[Path] = queue.Queue()
        for i in range(jobs):
            self.copies.put(Path(shutil.copytree(ROOT, folder / str(i), ignore=_left_out)))
        self.known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    @property
    def seconds(self) -> dict[str, float]:
        """How long each file of tests took on the unchanged tree."""
        return {entry["file"]: entry["seconds"] for entry in self.known if "file" in entry}

    @property
    def failing(self) -> list[str]:
        """Tests that fail on the unchanged tree."""
        return sorted({name for entry in self.known for name in entry.get("failing", ())})

    def keep(self, entry: dict) -> None:
        """Put down what is known."""
        self.known.append(entry)
        with self.out.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def run(self, copy: Path, tests: list[str], *options: str, limit: float) -> tuple[int | None, str]:
        """Run tests in a copy; return pytest's exit code, None where the time is over, and what it wrote."""
        output = copy.with_suffix(".txt")
        process = WORKERS.Process(target=_pytest, args=(copy, [*options, *tests], output))
        process.start()
        process.join(limit)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            return None, ""
        text = output.read_text(errors="replace")
        if process.exitcode not in (0, FAILED, BROKEN_OFF, NO_TESTS):
            raise RuntimeError(f"pytest ended with {process.exitcode}: {text[-2000:]}")
        return process.exitcode, text

    def try_unchanged(self, test: str) -> None:
        """Note how long a file of tests takes, and which of them fail, on the unchanged tree."""
        copy = self.copies.get()
        try:
            started = time.perf_counter()
            code, output = self.run(copy, [test], limit=900)
            if code == BROKEN_OFF:
                raise RuntimeError(f"{test} cannot be imported on the unchanged tree:\n{output[-2000:]}")
            # A file that hangs here judges nothing as a whole.
            failing = [test] if code is None else re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
            self.keep({"file": test, "seconds": round(time.perf_counter() - started, 1), "failing": failing})
        finally:
            self.copies.put(copy)

    def try_mutant(self, mutant: Mutant, stage: int) -> None:
        """Make a change in a copy, and note who of one of the two groups of its tests sees it."""
        copy = self.copies.get()
        target = copy / mutant.path
        source, stamp = target.read_text(encoding="utf-8"), target.stat().st_mtime
        tests = [test for test in tests_of(mutant.path)[stage] if test not in self.failing]
        tests.sort(key=self.seconds.__getitem__)
        options = ["-x", *(f"--deselect={name}" for name in self.failing)]
        limit = 60 + 5 * sum(self.seconds[test] for test in tests)
        started = time.perf_counter()
        try:
            target.write_text(changed(source, mutant) or "", encoding="utf-8")
            # Compiled files are told apart by whole seconds and length: no two changes may share both.
            os.utime(target, (mutant.line * 1000 + mutant.column,) * 2)
            code, output = self.run(copy, tests, *options, limit=limit) if tests else (0, "")
        finally:
            target.write_text(source, encoding="utf-8")
            os.utime(target, (stamp, stamp))
            self.copies.put(copy)
        seen_by = None
        if code in (None, FAILED, BROKEN_OFF):
            named = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
            seen_by = named[0] if named else "the time limit" if code is None else "its import"
        seconds = round(time.perf_counter() - started, 1)
        self.keep({"mutant": mutant, "stage": stage, "seen_by": seen_by, "seconds": seconds})
        if seen_by is not None or stage == 1:
            _print(mutant, seen_by)

    def judge(self, mutants: list[Mutant]) -> int:
        """Try every change that is not known yet, print each, and return how many survived."""
        tried = [entry for entry in self.known if "mutant" in entry]
        known = {(Mutant(*entry["mutant"]), entry["stage"]): entry["seen_by"] for entry in tried}
        left = mutants
        with ThreadPoolExecutor(self.jobs) as pool:
            for stage in (0, 1):
                needed = sorted({test for mutant in left for test in tests_of(mutant.path)[stage]})
                list(pool.map(self.try_unchanged, [test for test in needed if test not in self.seconds]))
                for mutant in left:
                    if (mutant, stage) in known and (stage == 1 or known[mutant, stage] is not None):
                        _print(mutant, known[mutant, stage])
                todo = [mutant for mutant in left if (mutant, stage) not in known]
                list(pool.map(lambda mutant, stage=stage: self.try_mutant(mutant, stage), todo))
                seen = {Mutant(*entry["mutant"]) for entry in self.known if entry.get("seen_by") is not None}
                left = [mutant for mutant in left if mutant not in seen]
        if self.failing:
            print("These fail on the unchanged tree, and judged nothing:", *self.failing, sep="\n  ")
        return len(left)


def _pytest(copy: Path, arguments: list[str], output: Path) -> None:
    # In a process of its own, which has the large libraries already.
    os.setsid()
    os.chdir(copy)
    with output.open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    paths = [str(copy), *(str(copy / "tests" / name) for name in HELPERS)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    code = BROKEN
    try:
        import pytest

        code = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments]))
        if (library := sys.modules.get("modal_ntk")) and not str(library.__file__).startswith(str(copy)):
            print(f"another copy of the library is imported: {library.__file__}")
            code = BROKEN
    finally:
        sys.stdout.flush()
        os._exit(code)


def _print(mutant: Mutant, seen_by: str | None) -> None:
    line = (ROOT / mutant.path).read_text(encoding="utf-8").splitlines()[mutant.line - 1].strip()
    verdict = "SURVIVED" if seen_by is None else "seen    "
    told = "" if seen_by is None else f"  by {seen_by}"
    place = f"{mutant.path}:{mutant.line}:{mutant.column}"
    print(f"{verdict} {place}  {mutant.old} -> {mutant.new}  in  {line}{told}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, help="how many changes")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="what is known; read and added to")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    mutants = drawn(asked.n, asked.seed)
    os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "NUMBA")} | {"CUDA_VISIBLE_DEVICES": ""}
    WORKERS.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as place:
        survivors = Bench(Path(place), asked.out, asked.jobs).judge(mutants)
    print(f"{survivors} of {len(mutants)} survived")
