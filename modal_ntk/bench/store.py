"""One SQLite file per comparison: what was asked, and a row for every round of every finished cell."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from modal_ntk import checks
from modal_ntk.bench.rounds import Round, details_of, round_of, row_from, text_of
from modal_ntk.bench.rounds import Row as Row
from modal_ntk.errors import InvalidInputError, ModalNTKError, StorageError

FILE_NAME = "results.sqlite"

SCHEMA = 1
"""Version of the tables, kept in the file as SQLite's ``user_version``; stores from before it was kept have zero."""

_TABLES = frozenset({"protocol", "rounds", "details", "unfinished", "runs"})
_MOST_NESTED = 30  # levels of a manifest's or a protocol's values

_SCHEMA = """
CREATE TABLE IF NOT EXISTS protocol (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
    strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL,
    n_labels INTEGER NOT NULL, score REAL NOT NULL, query_seconds REAL NOT NULL, fit_seconds REAL NOT NULL,
    indices TEXT NOT NULL,
    PRIMARY KEY (strategy, seed, round)
);
CREATE TABLE IF NOT EXISTS details (
    strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL,
    scores TEXT NOT NULL, metrics TEXT NOT NULL, fit_seed INTEGER NOT NULL,
    peak_memory INTEGER, peak_gpu_memory INTEGER,
    PRIMARY KEY (strategy, seed, round)
);
CREATE TABLE IF NOT EXISTS unfinished (
    strategy TEXT NOT NULL, seed INTEGER NOT NULL, round INTEGER NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (strategy, seed, round)
);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL);
PRAGMA user_version = 1;
"""
# Details have a table of their own so that stores from before there were any stay as they are.

_ROWS = """
SELECT strategy, seed, round, n_labels, score, query_seconds, fit_seconds, indices,
    scores, metrics, fit_seed, peak_memory, peak_gpu_memory
FROM rounds LEFT JOIN details USING (strategy, seed, round) ORDER BY strategy, seed, round
"""

_CELLS = "SELECT DISTINCT strategy, seed FROM rounds"

_NOTED = "SELECT round, entry FROM unfinished WHERE strategy = ? AND seed = ? ORDER BY round"


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
            with self._connected() as connection, connection:
                _check_schema(connection, self.folder)
                _use_wal(connection)
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error, ValueError) as error:
            if isinstance(error, ModalNTKError):
                raise
            remedy = "Choose another folder."
            what = f"an output folder that can be written at {self.folder}"
            raise checks.expected(what, checks.one_line(str(error)), remedy) from error

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
            if not {"protocol", "rounds"} <= _check_schema(connection, Path(folder)):
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
        with _reading(self.folder / FILE_NAME), self._writing() as connection:
            stored = dict(connection.execute("SELECT key, value FROM protocol"))
            if not stored:
                connection.executemany("INSERT INTO protocol VALUES (?, ?)", wanted.items())
                return
        differences = [
            checks.one_line(f"{key} is {stored.get(key, 'absent')} there and {wanted.get(key, 'absent')} here")
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
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            rows = connection.execute("SELECT key, value FROM protocol").fetchall()
            return {str(key): _parsed(value, f"protocol, key {key!r}") for key, value in rows}

    def add(self, strategy: str, seed: int, curve: Iterable[Round], *, paired: bool = False) -> bool:
        """Store a finished cell, all of its rounds or none; a cell that is there already stays as it is.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed : int
            Seed of the cell.
        curve : iterable of Round
            Its rounds.
        paired : bool, default=False
            Whether all cells of a seed must start from the same labels.

        Returns
        -------
        bool
            Whether it was stored; not if another process has done so.

        Raises
        ------
        InvalidInputError
            If `paired` and a cell of the seed started from other labels; nothing is stored then.
        """
        curve = list(curve)
        rows = [
            (strategy, seed, i, r.n_labels, r.score, r.query_seconds, r.fit_seconds, json.dumps(r.indices.tolist()))
            for i, r in enumerate(curve)
        ]
        details = [(strategy, seed, i, *details_of(r)) for i, r in enumerate(curve)]
        with self._writing() as connection:
            if connection.execute("SELECT 1 FROM rounds WHERE strategy = ? AND seed = ?", (strategy, seed)).fetchone():
                return False
            if paired:
                found = connection.execute(
                    "SELECT indices FROM rounds WHERE seed = ? AND round = 0", (seed,)
                ).fetchone()
                _check_paired(strategy, seed, curve[0].indices.tolist(), found)
            connection.executemany("INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("INSERT INTO details VALUES (?, ?, ?, ?, ?, ?, ?, ?)", details)
            connection.execute("DELETE FROM unfinished WHERE strategy = ? AND seed = ?", (strategy, seed))
        return True

    def note(self, strategy: str, seed: int, number: int, entry: Round) -> None:
        """Keep a round of a cell that is not finished yet, so that it need not be run again after a crash.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed, number : int
            Seed of the cell, and place of the round in it.
        entry : Round
            The round.
        """
        text = text_of(entry)
        with self._writing() as connection:
            values = (strategy, seed, number, text)
            connection.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?)", values)

    def noted(self, strategy: str, seed: int) -> list[Round]:
        """Return the rounds kept of a cell that is not finished yet.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed : int
            Seed of the cell.

        Returns
        -------
        list of Round
            From the first on, without gaps.
        """
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            found = connection.execute(_NOTED, (strategy, seed)).fetchall()
            # Those after a gap cannot be gone on from.
            return [round_of(text) for i, (number, text) in enumerate(found) if i == number]

    def under_way(self) -> dict[tuple[str, int], int]:
        """Return how many rounds are kept of the cells that are not finished yet.

        Returns
        -------
        dict of (str, int) to int
            By strategy and seed.
        """
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            found = connection.execute("SELECT strategy, seed, COUNT(*) FROM unfinished GROUP BY strategy, seed")
            return {(str(strategy), int(seed)): int(n) for strategy, seed, n in found}

    def begin(self, manifest: dict[str, Any]) -> None:
        """Note that a run begins.

        Parameters
        ----------
        manifest : dict
            Under what; values that JSON can hold.
        """
        with self._writing() as connection:
            connection.execute("INSERT INTO runs (manifest) VALUES (?)", (json.dumps(manifest),))

    def manifests(self) -> list[dict[str, Any]]:
        """Return under what the runs on this store were made.

        Returns
        -------
        list of dict
            As given to `begin`, in order; empty for stores of early versions.
        """
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            found = connection.execute("SELECT id, manifest FROM runs ORDER BY id").fetchall()
            manifests = [_parsed(text, f"runs, id {number}") for number, text in found]
            if not all(isinstance(manifest, dict) for manifest in manifests):
                raise ValueError("a manifest that is no table of values")
            return manifests

    def finished(self) -> set[tuple[str, int]]:
        """Return the cells that need not be run again.

        Returns
        -------
        set of (str, int)
            Strategy and seed.
        """
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            return {(str(strategy), int(seed)) for strategy, seed in connection.execute(_CELLS)}

    def rows(self) -> list[Row]:
        """Return everything stored.

        Returns
        -------
        list of Row
            By strategy, seed and round.
        """
        with _reading(self.folder / FILE_NAME), self._connected() as connection:
            return [_row(values) for values in connection.execute(_ROWS).fetchall()]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # The lock is taken before the first look: what is read stays true until it is acted on.
        try:
            with self._connected() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.OperationalError as error:
            remedy = "Free space, or make it writable, and run the same again: it goes on where it stopped."
            raise StorageError(
                f"{self.folder / FILE_NAME} could not be written: {checks.one_line(str(error))}. What it held is kept. "
                f"{remedy}"
            ) from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.folder / FILE_NAME, timeout=60)) as connection:
            # A file from elsewhere may hold views and triggers: none of them may call a function.
            connection.execute("PRAGMA trusted_schema=OFF")
            yield connection


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    # Whatever a file from elsewhere holds, the reader is told that it is no store, never shown a traceback.
    try:
        yield
    except ModalNTKError:
        raise
    except Exception as error:
        remedy = "Name a folder that `modal-ntk bench` has written."
        got = checks.one_line(str(error) or type(error).__name__)
        raise checks.expected(f"{path} to be a store of results", got, remedy) from error


def _check_schema(connection: sqlite3.Connection, folder: Path) -> set[str]:
    # Views, triggers and tables that are computed could take for ever: a store has none.
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA:
        what = f"a store of version {SCHEMA} or before in {folder}"
        raise checks.expected(what, f"version {version}", "It is a newer modal-ntk's: upgrade this one.")
    found = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    tables = {str(name) for kind, name, _ in found if kind == "table"}
    odd = [str(name) for kind, name, _ in found if kind not in ("table", "index")]
    odd += [str(name) for kind, name, sql in found if kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL")]
    if odd or (tables and not tables <= _TABLES | {"sqlite_sequence", "sqlite_stat1"}):
        names = ", ".join(sorted(odd) or sorted(tables))
        raise ValueError(f"a database with other tables: {checks.one_line(names)}")
    return tables


def _parsed(text: Any, place: str) -> Any:
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


def _row(values: tuple[Any, ...]) -> Row:
    try:
        return row_from(values)
    except Exception as error:
        cell = ", ".join(
            f"{name} {value!r}" for name, value in zip(("strategy", "seed", "round"), values, strict=False)
        )
        raise ValueError(f"{checks.one_line(cell)}: {error or type(error).__name__}") from error


def _use_wal(connection: sqlite3.Connection) -> None:
    # Two processes that make one store at once: SQLite refuses the later switch instead of waiting for the first.
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 99:
                raise
            time.sleep(0.05)


def _check_paired(strategy: str, seed: int, started_from: list[int], others: tuple[str] | None) -> None:
    if others is not None and json.loads(others[0]) != started_from:
        got = f"other ones under {strategy!r}"
        remedy = "Whatever chooses them must depend on the seed alone; the cell was not stored."
        raise checks.expected(f"the initial labels of seed {seed} to be those of every strategy", got, remedy)
