"""What the documentation's method pages and reference name is there."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
CARDS = [page for page in PAGES if page.stem != "index"]
HEADER = ["equation or claim", "test", "paper's default and ours", "deviation", "reproduced figure"]
PACKAGES = ["modal_ntk", *(f"modal_ntk.{name}" for name in (
    "nets", "features", "kernels", "structure", "selection", "pruning", "bench", "labeling", "testing"
))]  # fmt: skip


def cells(line):
    """Split a row of a Markdown table; a bar inside code or escaped does not split."""
    bare = re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), line.strip().strip("|"))
    return [cell.strip().replace("\0", "|") for cell in re.split(r"(?<!\\)\|", bare)]


def card(page):
    """Read the rows of a page's fidelity card."""
    _, found, text = page.read_text(encoding="utf-8").partition("## Fidelity card\n")
    assert found, f"{page.name} has no fidelity card"
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert cells(lines[0]) == HEADER
    return [cells(line) for line in lines[2:]]


def defines(path, name):
    """Say whether a test file defines a test of this name, in a class or not."""
    return re.search(rf"^\s*def {re.escape(name)}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def missing_tests(text):
    """Name the tests of a text, `tests/….py::name`, that no file defines."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    return [f"{p}::{n}" for p, n in named if not (ROOT / p).is_file() or (n and not defines(p, n))]


def public_names(package):
    """List what a package hands out, but for the strategies' default instances."""
    module = importlib.import_module(package)
    return {name for name in module.__all__ if callable(getattr(module, name))} - instances(module)


def instances(module):
    return {
        name for name in module.__all__ if getattr(getattr(module, name), "needs", None) is not None and name.islower()
    }


@pytest.mark.parametrize("page", CARDS, ids=lambda page: page.stem)
def test_a_card_names_a_test_for_every_claim(page):
    """Each row of a fidelity card has five cells, and its second names at least one test."""
    for row in card(page):
        assert len(row) == len(HEADER), row
        assert re.search(r"`tests/[\w/]+\.py::\w+`", row[1]), row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tests_that_a_page_names_exist(page):
    """Every `tests/….py::name` on a method's page is defined in that file."""
    assert missing_tests(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", CARDS, ids=lambda page: page.stem)
def test_a_reproduced_figure_names_its_file(page):
    """A figure in the last column stands beside the file of results that holds it."""
    for row in card(page):
        assert not re.search(r"\d", re.sub(r"`[^`]*`", "", row[4])) or "`examples/reproduce/results/" in row[4], row


def test_a_test_that_is_missing_is_seen(tmp_path):
    """A page that names a test which no file defines does not pass."""
    assert missing_tests("`tests/docs/test_fidelity.py::test_of_nothing` and `tests/no_such.py::test_x`") == [
        "tests/docs/test_fidelity.py::test_of_nothing",
        "tests/no_such.py::test_x",
    ]


def test_the_reference_lists_every_public_name():
    """What the packages export is listed under docs/reference, once; what several export, under one of them."""
    listed = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.rst")):
        for part in page.read_text(encoding="utf-8").split("currentmodule:: ")[1:]:
            module = importlib.import_module(part.split()[0])
            blocks = re.findall(r":nosignatures:\n\n((?:   \w+\n?)+)", part)
            listed += [getattr(module, name) for name in " ".join(blocks).split()]
    assert len(listed) == len({id(entry) for entry in listed})
    for package in PACKAGES:
        module = importlib.import_module(package)
        unlisted = {name for name in public_names(package) if all(getattr(module, name) is not e for e in listed)}
        assert unlisted == set(), package


def test_files_that_the_architecture_names_are_there():
    """Every module that ARCHITECTURE.md names ends the path of one that exists."""
    named = re.findall(r"`([\w/]+\.(?:pyi?|toml|md))`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    files = [str(path) for folder in ("modal_ntk", "tests") for path in (ROOT / folder).rglob("*.py*")]
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists() and not any(f.endswith(f"/{name}") for f in files)]


def _documented_defaults():
    seen = set()
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            found = getattr(package, name)
            if not (inspect.isclass(found) or inspect.isfunction(found)) or found in seen:
                continue
            seen.add(found)
            inside = {name: found}
            if inspect.isclass(found):
                methods = {key: value for key, value in vars(found).items() if inspect.isfunction(value)}
                inside |= {f"{name}.{key}": value for key, value in methods.items() if not key.startswith("_")}
            for key, value in inside.items():
                told = re.findall(r"^ *(\w+) : .*default=(.+?)$", inspect.getdoc(value) or "", re.MULTILINE)
                for parameter, default in told:
                    yield f"{key}({parameter})", default, inspect.signature(value).parameters.get(parameter)


def test_documented_defaults_are_the_signatures():
    """What a docstring gives as a default is the default: a number, a word, or the name of a class."""
    wrong, n = [], 0
    for where, told, parameter in _documented_defaults():
        if parameter is None or parameter.default is inspect.Parameter.empty or "factory" in repr(parameter.default):
            continue
        n += 1
        default = getattr(parameter.default, "__name__", parameter.default)
        if told not in (default, repr(default)) and eval(told, {"__builtins__": {}}) != default:
            wrong.append(f"{where}: {told}, not {default!r}")
    assert not wrong
    assert n > 400
