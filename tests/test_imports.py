"""Imports stand at the top of a module, but for those that have a reason not to."""

import ast
import sys
from pathlib import Path

import pytest

import modal_ntk
from modal_ntk.environment.late import Late

ROOT = Path(modal_ntk.__file__).parent
# What may be missing: an extra, a test's tool, a platform's module, a name of later scikit-learn.
MAY_BE_MISSING = {
    "distributed",
    "matplotlib",
    "pandas",
    "psycopg",
    "pyarrow",
    "pynndescent",
    "pytest",
    "ray",
    "resource",
}
MAY_BE_MISSING |= {"sklearn.frozen", "joblib._dask"}  # the latter imports distributed
# What is slow to load, or speaks when it is loaded, and seldom wanted.
SELDOM = {
    "backpack": "one route of several",
    "tqdm": "looks for a notebook's widgets, and warns without",
    "modal_ntk.bench.experiment.estimators": "a protocol is read without torch",
    "modal_ntk.bench.running.plan": "the command line lists strategies without torch",
}


def inside_functions(tree):
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inner = {id(node): node for function in functions for node in ast.walk(function)}
    for node in inner.values():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_imports_inside_functions_are_those_with_a_reason():
    """Each is of what may be missing or is seldom wanted, and every reason is still needed."""
    allowed, used = MAY_BE_MISSING | set(SELDOM), set()
    for path in ROOT.rglob("*.py"):
        if "plugin_template" in path.parts:
            continue
        for name in inside_functions(ast.parse(path.read_text(encoding="utf-8"))):
            reason = {one for one in allowed if name == one or name.startswith(f"{one}.")}
            assert reason, f"{path.relative_to(ROOT)} imports {name} inside a function"
            used |= reason
    assert used == allowed


def test_a_late_module_is_loaded_by_its_first_attribute(monkeypatch):
    """Naming it loads nothing; its attributes are the module's own, and one it lacks is an AttributeError."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    late = Late("colorsys")
    assert "colorsys" not in sys.modules
    assert late.rgb_to_hsv is sys.modules["colorsys"].rgb_to_hsv
    with pytest.raises(AttributeError, match="colorsys"):
        _ = late.nothing
