"""The files of a report: what is written into its folder, and what an earlier one has left there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_ntk.bench.reports import figures
from modal_ntk.writing import write_csv

# Not in every report: without data, baseline, matplotlib or anything to rank.
_AT_TIMES = ("balance.png", "classes.csv", "curves.png", "gain.png", "images_[0-9]*.png", "ranks.csv", "ranks.png")


@dataclass
class Written:
    """The folder of a report, and what has been written there.

    Parameters
    ----------
    folder : Path
        Where pictures and tables go.
    files : list of Path
        Those that are there.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)

    def drop_former(self) -> None:
        """Delete what an earlier report wrote and this one did not."""
        for path in (path for name in _AT_TIMES for path in self.folder.glob(name) if path not in self.files):
            path.unlink()

    def picture(self, draw: Callable[[], Any], name: str, text: str, read: str) -> list[tuple[bytes, str, str]]:
        """Draw and write a picture; return it, its caption and what is read in it; nothing without matplotlib."""
        if not figures.can_draw():
            return []
        self.files.append(self.folder / name)
        return [(figures.save(draw(), self.files[-1]), text, read)]

    def table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table."""
        self.files.append(self.folder / name)
        write_csv(self.files[-1], header, rows)
