"""Pages that write files do so in a folder of their own; only pages are collected, not how the site is made."""

import importlib.util
from pathlib import Path

import pytest
import torch

collect_ignore = ["conf.py", "_build", "_ext", "auto_examples", "reference/generated"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, in sight, the page of a library that is not there or does not load."""
    for item in items:
        if item.path.name == "transformers.md" and (reason := _missing()):
            item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> str:
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed"
    try:
        from transformers import BertForSequenceClassification  # noqa: F401
    except Exception as error:  # noqa: BLE001 - whatever keeps it from loading is not ours
        return f"transformers does not load: {error}"
    return ""


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
