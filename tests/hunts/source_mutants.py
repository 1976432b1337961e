"""Changes single characters of the library's source, and counts the changes that no test sees.

Run by hand, on a copy of the package: ``python tests/hunts/source_mutants.py 100`` draws a hundred changes over
kernels, structure, selection, strategies, pruning, nets, statistics and labelling; it runs the tests beside each.
What survives is printed with its line, to be explained or to become a test, as in ``tests/test_small_laws.py``.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = [str(ROOT / "tests" / name) for name in ("oracles", "shared", "hunts")]
PLACES = ("kernels", "structure", "selection", "strategies", "pruning", "nets", "labeling", "bench")
FILES_OF_BENCH = ("statistics", "significance", "stopping", "splits")
SWAPS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any"}


def changes(source: str) -> list[tuple[int, int, str, str]]:
    """Return every change: line, column, what stands there and what comes instead."""
    found = []
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            found += _between(lines, node.left, node.comparators[0], node.ops[0])
        elif isinstance(node, ast.BinOp):
            found += _between(lines, node.left, node.right, node.op)
        elif isinstance(node, ast.BoolOp):
            found += _between(lines, node.values[0], node.values[1], node.op)
        elif isinstance(node, ast.Constant) and type(node.value) is int and node.value in (0, 1, 2):
            old = str(node.value)
            if lines[node.lineno - 1].encode()[node.col_offset :].startswith(old.encode()):
                found.append((node.lineno, node.col_offset, old, str(node.value + 1)))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in NAMES and node.end_lineno is not None:
                found.append((node.end_lineno, (node.end_col_offset or 0) - len(name), name, NAMES[name]))
    return sorted(set(found))


def _between(lines: list[str], left: ast.expr, right: ast.expr, op: ast.AST) -> list[tuple[int, int, str, str]]:
    # The sign stands between its two sides; where brackets or line ends do as well, it is left alone.
    if type(op) not in SWAPS or left.end_lineno != right.lineno:
        return []
    start, end = left.end_col_offset or 0, right.col_offset
    between = lines[right.lineno - 1].encode()[start:end].decode()
    sign = between.strip().strip("() ")
    return [(right.lineno, start + between.index(sign), sign, SWAPS[type(op)])] if sign else []


def changed(source: str, change: tuple[int, int, str, str]) -> str:
    """Return the source with one change."""
    line, column, old, new = change
    lines = source.splitlines(keepends=True)
    data = lines[line - 1].encode()
    assert data[column:].startswith(old.encode())
    lines[line - 1] = (data[:column] + new.encode() + data[column + len(old.encode()) :]).decode()
    return "".join(lines)


def tests_of(path: Path) -> list[str]:
    """Return the tests beside a file: those of its name, else those of its folder."""
    place = ROOT / "tests" / path.relative_to(ROOT / "modal_ntk").parent
    place = next(folder for folder in (place, *place.parents) if any(folder.glob("test_*.py")))
    named = [found for found in place.glob("test_*.py") if path.stem.split("_")[0] in found.stem]
    return [str(found) for found in named or place.glob("test_*.py")] + [str(ROOT / "tests" / "test_small_laws.py")]


def survives(path: Path, change: tuple[int, int, str, str]) -> bool:
    """Say whether the tests pass with a change, made in a copy of the package."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "modal_ntk", Path(folder) / "modal_ntk", ignore=shutil.ignore_patterns("__pycache__"))
        target = Path(folder) / path.relative_to(ROOT)
        target.write_text(changed(target.read_text(encoding="utf-8"), change), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *HELPERS])}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests_of(path)]
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=900)
        except subprocess.TimeoutExpired:
            return False  # a loop without end is seen
        return done.returncode == 0


def drawn(n: int, seed: int = 0) -> list[tuple[Path, tuple[int, int, str, str]]]:
    """Draw changes, as many from each part of the library as can be."""
    rng = random.Random(seed)
    by_place: dict[str, list] = {}
    for place in PLACES:
        for path in sorted((ROOT / "modal_ntk" / place).rglob("*.py")):
            if place != "bench" or path.stem in FILES_OF_BENCH:
                by_place.setdefault(place, []).extend((path, c) for c in changes(path.read_text(encoding="utf-8")))
    for found in by_place.values():
        rng.shuffle(found)
    return [found[i] for i in range(n // len(by_place) + 1) for found in by_place.values() if i < len(found)][:n]


if __name__ == "__main__":
    survivors = 0
    chosen = drawn(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for file, what in chosen:
        alive = survives(file, what)
        survivors += alive
        line = file.read_text(encoding="utf-8").splitlines()[what[0] - 1].strip()
        verdict = "SURVIVED" if alive else "seen"
        print(f"{verdict:9}{file.relative_to(ROOT)}:{what[0]}  {what[2]} -> {what[3]}  in  {line}", flush=True)
    print(f"{survivors} of {len(chosen)} survived")
