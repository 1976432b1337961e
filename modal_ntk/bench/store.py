"""One SQLite file per comparison: what was asked, and a row for every round of every finished cell."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_ntk import checks
from modal_ntk.bench.simulation import Round
from modal_ntk.errors import InvalidInputError

FILE_NAME = "results.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS protocol (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL,
    n_labels INTEGER NOT NULL, score REAL NOT NULL, query_seconds REAL NOT NULL, fit_seconds REAL NOT NULL,
    indices TEXT NOT NULL,
    PRIMARY KEY (strategy, seed, round)
);
"""

_ROWS = """
SELECT strategy, seed, round, n_labels, score, query_seconds, fit_seconds, indices
FROM rounds ORDER BY strategy, seed, round
"""


@dataclass(frozen=True)
class Row:
    """One round of one cell, as stored.

    Parameters
    ----------
    strategy : str
        Name and parameters of the strategy.
    seed : int
        Seed of the cell.
    round : int
        Zero is the fit on the initial labels.
    n_labels : int
        Labels after the round's query.
    score : float
        Score on the test set.
    query_seconds, fit_seconds : float
        Times.
    indices : tuple of int
        Rows of the pool labelled in the round.
    """

    strategy: str
    seed: int
    round: int
    n_labels: int
    score: float
    query_seconds: float
    fit_seconds: float
    indices: tuple[int, ...]


class Store:
    """The results of one comparison, in a folder.

    Parameters
    ----------
    folder : Path
        Holds ``results.sqlite``; made if it is not there.

    Raises
    ------
    InvalidInputError
        If the folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            remedy = "Choose another folder."
            raise checks.expected(
                f"an output folder that can be written at {self.folder}", str(error), remedy
            ) from error

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store that is there already.

        Parameters
        ----------
        folder : str or Path
            Its folder.

        Returns
        -------
        Store
            The store.

        Raises
        ------
        InvalidInputError
            If there is none, or the file of that name is something else, which is left as it is.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            remedy = "Run `modal-ntk bench --out DIR` first."
            raise checks.expected(f"a folder with {FILE_NAME}", f"{folder}, which has none", remedy)
        with _reading(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if not {("protocol",), ("rounds",)} <= set(tables):
                raise ValueError("a database with other tables")
        return cls(folder)

    def agree(self, protocol: dict[str, Any]) -> None:
        """Write the protocol into a new store, or check that it is the one of an old store.

        Parameters
        ----------
        protocol : dict
            What all cells of the store share; values that JSON can hold.

        Raises
        ------
        InvalidInputError
            If it differs, showing where; nothing is changed then.
        """
        wanted = {key: json.dumps(value) for key, value in protocol.items()}
        with closing(self._connect()) as connection, connection:
            stored = dict(connection.execute("SELECT key, value FROM protocol"))
            if not stored:
                connection.executemany("INSERT INTO protocol VALUES (?, ?)", wanted.items())
                return
        differences = [
            f"{key} is {stored.get(key, 'absent')} there and {wanted.get(key, 'absent')} here"
            for key in sorted(stored.keys() | wanted.keys())
            if stored.get(key) != wanted.get(key)
        ]
        if differences:
            remedy = "Use another folder, or ask for the same protocol."
            raise InvalidInputError(f"{self.folder} holds another comparison: {'; '.join(differences)}. {remedy}")

    def protocol(self) -> dict[str, Any]:
        """Return what all cells share.

        Returns
        -------
        dict
            As given to `agree`.
        """
        with _reading(self.folder / FILE_NAME), closing(self._connect()) as connection:
            rows = connection.execute("SELECT key, value FROM protocol").fetchall()
            return {key: json.loads(value) for key, value in rows}

    def add(self, strategy: str, seed: int, curve: Iterable[Round]) -> None:
        """Store a finished cell, all of its rounds or none.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed : int
            Seed of the cell.
        curve : iterable of Round
            Its rounds.
        """
        rows = [
            (strategy, seed, i, r.n_labels, r.score, r.query_seconds, r.fit_seconds, json.dumps(r.indices.tolist()))
            for i, r in enumerate(curve)
        ]
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def finished(self) -> set[tuple[str, int]]:
        """Return the cells that need not be run again.

        Returns
        -------
        set of (str, int)
            Strategy and seed.
        """
        with closing(self._connect()) as connection:
            return set(connection.execute("SELECT DISTINCT strategy, seed FROM rounds"))

    def rows(self) -> list[Row]:
        """Return everything stored.

        Returns
        -------
        list of Row
            By strategy, seed and round.
        """
        with _reading(self.folder / FILE_NAME), closing(self._connect()) as connection:
            found = connection.execute(_ROWS).fetchall()
            return [_row(values) for values in found]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / FILE_NAME, timeout=60)
        # A file from elsewhere may hold views and triggers: none of them may call a function.
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    # Whatever a file from elsewhere holds, the reader is told that it is no store, never shown a traceback.
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
        remedy = "Name a folder that `modal-ntk bench` has written."
        raise checks.expected(f"{path} to be a store of results", checks.one_line(str(error)), remedy) from error


def _row(values: tuple[Any, ...]) -> Row:
    # SQLite keeps values of any type in any column.
    strategy, *numbers, indices = values
    seed, round_, n_labels = (int(n) for n in numbers[:3])
    score, query_seconds, fit_seconds = (float(x) for x in numbers[3:])
    labelled = tuple(int(i) for i in json.loads(indices))
    return Row(str(strategy), seed, round_, n_labels, score, query_seconds, fit_seconds, labelled)
