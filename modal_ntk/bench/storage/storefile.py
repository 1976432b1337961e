"""What a file of results may look like: version, tables, values; whatever else it holds is an error about it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modal_ntk import checks
from modal_ntk.bench.loop.rounds import Row, row_from
from modal_ntk.checks import files

SCHEMA = 2
"""Version of the tables, kept in the file as SQLite's ``user_version``; stores from before it was kept have zero, and
those of version one no claims."""

TABLES = {
    "protocol": "(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "rounds": """(
        strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL,
        n_labels INTEGER NOT NULL, score REAL NOT NULL, query_seconds REAL NOT NULL, fit_seconds REAL NOT NULL,
        indices TEXT NOT NULL,
        PRIMARY KEY (strategy, seed, round)
    )""",
    # Details have a table of their own so that stores from before there were any stay as they are.
    "details": """(
        strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL,
        scores TEXT NOT NULL, metrics TEXT NOT NULL, fit_seed INTEGER NOT NULL,
        peak_memory INTEGER, peak_gpu_memory INTEGER,
        PRIMARY KEY (strategy, seed, round)
    )""",
    "unfinished": """(
        strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL, entry TEXT NOT NULL,
        PRIMARY KEY (strategy, seed, round)
    )""",
    "runs": "(id INTEGER PRIMARY KEY, manifest TEXT NOT NULL)",
    "claims": """(
        strategy TEXT NOT NULL, seed INTEGER NOT NULL, owner TEXT NOT NULL, beat INTEGER NOT NULL,
        PRIMARY KEY (strategy, seed)
    )""",
}
"""The columns of every table."""

_MOST_NESTED = 30  # levels of a manifest's or a protocol's values


def reading(place: Any) -> AbstractContextManager[None]:
    """Context in which whatever a file from elsewhere holds is an error about it, never a traceback."""
    return files.reading(f"{place} to be a store of results", "Name a folder that `modal-ntk bench` has written.")


def opened_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that makes no file and leaves none, also where the folder cannot be written."""
    uri = path.absolute().as_uri()
    # Not "mode=ro", after which SQLite leaves its log's two files behind.
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=60)
    try:
        connection.execute("PRAGMA schema_version")
        return connection
    except sqlite3.OperationalError:
        connection.close()
        # The log cannot be made here. What one may hold that is there would be missed, so it must not be there.
        if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
            raise
        return sqlite3.connect(f"{uri}?immutable=1", uri=True)


def is_longer(stored: dict[str, str], wanted: dict[str, str]) -> bool:
    """Say whether a schedule begins with the one that is stored, and goes on."""
    sizes = [json.loads(values.get("batch_sizes", "[]")) for values in (stored, wanted)]
    return (
        all(isinstance(s, list) for s in sizes)
        and len(sizes[0]) < len(sizes[1])
        and sizes[1][: len(sizes[0])] == sizes[0]
    )


def check_schema(connection: sqlite3.Connection, folder: Path) -> set[str]:
    """Return the tables of a store, after checking that it has none but its own, of a version that is known."""
    # Views, triggers and tables that are computed could take for ever: a store has none.
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA:
        what = f"a store of version {SCHEMA} or before in {folder}"
        raise checks.expected(what, f"version {version}", "It is a newer modal-ntk's: upgrade this one.")
    found = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    tables = {str(name) for kind, name, _ in found if kind == "table"}
    odd = [str(name) for kind, name, _ in found if kind not in ("table", "index")]
    odd += [str(name) for kind, name, sql in found if kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL")]
    if odd or (tables and not tables <= TABLES.keys() | {"sqlite_sequence", "sqlite_stat1"}):
        names = ", ".join(sorted(odd) or sorted(tables))
        raise ValueError(f"a database with other tables: {checks.one_line(names)}")
    return tables


def parsed(text: Any, place: str) -> Any:
    """Return JSON that is not nested too deep; errors name the place."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{place}: {error}") from error
    level = [value]
    for _ in range(_MOST_NESTED):
        level = [inner for outer in level for inner in _entries(outer)]
        if not level:
            return value
    raise ValueError(f"{place}: nested more than {_MOST_NESTED} deep")


def _entries(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def rows_of(found: Iterable[tuple[Any, ...]]) -> list[Row]:
    """Return rows from their columns; errors name the cell and the round."""
    return [_row_of(values) for values in found]


def _row_of(values: tuple[Any, ...]) -> Row:
    try:
        return row_from(values)
    except Exception as error:
        cell = ", ".join(
            f"{name} {value!r}" for name, value in zip(("strategy", "seed", "round"), values, strict=False)
        )
        raise ValueError(f"{checks.one_line(cell)}: {error or type(error).__name__}") from error


_SHARED = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "fuse", "gpfs", "lustre", "beegfs", "ocfs", "gfs", "virtiofs")


def journal_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return SQLite's way to keep a file whole: a log, or where machines may share the folder the older journal.

    Parameters
    ----------
    folder : Path
        Where the file is.
    mounts : Path, optional
        The system's table of what is mounted; other systems than Linux have none.

    Returns
    -------
    {"WAL", "DELETE"}
        A log lets others read while one writes, but all must be on one machine, as its index is in their memory. The
        journal needs nothing but the file system's locks, which a network's carry.
    """
    try:
        lines = [line.split(" ")[1:3] for line in mounts.read_text().splitlines()]
    except (OSError, ValueError):
        return "WAL"
    place = folder.resolve()
    places = {Path(point.encode().decode("unicode_escape")): kind for point, kind in lines}
    kind = next((places[part] for part in (place, *place.parents) if part in places), "")
    return "DELETE" if kind.startswith(_SHARED) else "WAL"


def use_journal(connection: sqlite3.Connection, folder: Path) -> None:
    """Keep a store's file whole as `journal_of` says."""
    # Two processes that make one store at once: SQLite refuses the later switch instead of waiting for the first.
    for attempt in range(100):
        try:
            connection.execute(f"PRAGMA journal_mode={journal_of(folder)}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 99:
                raise
            time.sleep(0.05)


def check_paired(strategy: str, seed: int, started_from: list[int], others: tuple[str] | None) -> None:
    """Check that a cell starts from the labels that another of its seed started from."""
    if others is not None and json.loads(others[0]) != started_from:
        got = f"other ones under {strategy!r}"
        remedy = "Whatever chooses them must depend on the seed alone; the cell was not stored."
        raise checks.expected(f"the initial labels of seed {seed} to be those of every strategy", got, remedy)


def as_text(protocol: dict[str, Any]) -> dict[str, str]:
    """Return a protocol as it is stored: the value of each key as JSON."""
    return wherever({key: json.dumps(value) for key, value in protocol.items()})


def wherever(texts: dict[str, str]) -> dict[str, str]:
    """Return stored values without our modules: a class is the same one in whichever of them a version has it."""
    return {key: re.sub(r"\bmodal_ntk(?:\.\w+)*\.(?=\w+['\",)\s])", "modal_ntk.", text) for key, text in texts.items()}
