"""Pages that write files do so in a folder of their own; only pages are collected, not how the site is made."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch

collect_ignore = ["conf.py", "_build", "_ext", "auto_examples", "reference/generated"]


# What a page, or a module's examples, need beside the library.
NEEDED = {"transformers.md": "transformers", "files.md": "pyarrow", "arrow_rows.py": "pyarrow"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, in sight, what needs a library that is not there or does not load."""
    for item in items:
        if item.path.name in NEEDED and (reason := _missing(NEEDED[item.path.name])):
            item.add_marker(pytest.mark.skip(reason=reason))


@cache
def _missing(library: str) -> str:
    if importlib.util.find_spec(library) is None:
        return f"{library} is not installed"
    try:
        if library == "transformers":
            from transformers import BertForSequenceClassification  # noqa: F401
    except Exception as error:  # noqa: BLE001 - whatever keeps it from loading is not ours
        return f"{library} does not load: {error}"
    return ""


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
