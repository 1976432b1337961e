"""Pages that write files do so in a folder of their own; only pages are collected, not how the site is made."""

from pathlib import Path

import pytest
import torch

collect_ignore = ["conf.py", "_build", "_ext", "auto_examples", "reference/generated"]


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
