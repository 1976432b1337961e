"""Files written whole, inside their folder."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modal_ntk.errors import ModalNTKError, StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move what was written into place.

    Parameters
    ----------
    path : Path
        The file; a link of that name is replaced, not followed out of the folder.

    Yields
    ------
    Path
        A new file's, which is gone after an error.

    Raises
    ------
    StorageError
        If it cannot be written: no space, no permission, no such folder, or a folder of that name. What was there is
        still there then.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            yield written
            written.replace(path)
    except ModalNTKError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "Free space, or name a file in a folder that is there and can be written."
        raise StorageError(f"{path} could not be written: {reason}. What was there is kept. {remedy}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table for spreadsheets.

    Parameters
    ----------
    path : Path
        The file.
    header : sequence of str
        Names of the columns.
    rows : iterable of sequences
        Cells; NaN is written as nothing.
    """
    with replacing(path) as written, written.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([_cell(name) for name in header])
        writer.writerows([[_cell(value) for value in row] for row in rows])


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return marked(value)
    return "" if value != value else value


def marked(text: str) -> str:
    r"""Return a text as a cell that no spreadsheet takes for a formula.

    Parameters
    ----------
    text : str
        Any.

    Returns
    -------
    str
        With an apostrophe in front where it, or what is left of it without white space and unprintable characters in
        front, begins like a formula, or where it begins with an apostrophe itself.

    Examples
    --------
    >>> marked("=1+1"), marked(" =1+1"), marked("1 = 1")
    ("'=1+1", "' =1+1", '1 = 1')
    """
    # Programs differ in what they pass over in front, and some take the wide forms for the narrow ones.
    rest = text.lstrip("".join({c for c in text if c.isspace() or not c.isprintable()}))
    starts = rest.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    return f"'{text}" if starts or text.startswith(("\t", "\r", "\n", "'")) else text
