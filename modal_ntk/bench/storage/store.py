"""One SQLite file per comparison: what was asked, and a row for every round of every finished cell."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from modal_ntk import checks
from modal_ntk.bench.loop.rounds import Round, columns_of, round_from, round_of, text_of
from modal_ntk.bench.loop.rounds import Row as Row
from modal_ntk.bench.storage import storefile
from modal_ntk.bench.storage.storefile import SCHEMA, TABLES
from modal_ntk.checks import files
from modal_ntk.errors import InvalidInputError, StorageError

FILE_NAME = "results.sqlite"

_SCHEMA = "".join(f"CREATE TABLE IF NOT EXISTS {name} {columns};\n" for name, columns in TABLES.items())
_VERSION = f"PRAGMA user_version = {SCHEMA};"

_DETAILED = """
SELECT strategy, seed, round, n_labels, score, query_seconds, fit_seconds, indices,
    scores, metrics, fit_seed, peak_memory, peak_gpu_memory
FROM rounds LEFT JOIN details USING (strategy, seed, round)
"""

_ROWS = f"{_DETAILED} ORDER BY strategy, seed, round"
_OF_CELL = f"{_DETAILED} WHERE strategy = ? AND seed = ? ORDER BY round"
_COUNTS = "SELECT strategy, seed, COUNT(*) FROM rounds GROUP BY strategy, seed"
_STARTED_FROM = "SELECT indices FROM rounds WHERE seed = ? AND round = 0"
_LENGTHEN = "UPDATE protocol SET value = ? WHERE key = 'batch_sizes'"

# Not of a round that another process, which took the cell over, has stored meanwhile.
_NOTE = """
INSERT INTO unfinished SELECT ?, ?, ?, ? WHERE ? >= (SELECT COUNT(*) FROM rounds WHERE strategy = ? AND seed = ?)
ON CONFLICT (strategy, seed, round) DO UPDATE SET entry = excluded.entry
"""

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

    is_reached_from_afar = False  # by workers on other machines
    _lacking: tuple[str, ...] | None = None  # of a store that is read only, the tables that it has not

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        with files.reading(f"an output folder that can be written at {self.folder}", "Choose another folder."):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection, connection:
                storefile.check_schema(connection, self.folder)
                storefile.use_journal(connection, self.folder)
                connection.executescript(_SCHEMA + _VERSION)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store that is there already, to read it: nothing in its folder changes, which may be read-only.

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
        store = cls.__new__(cls)
        store.folder, store._lacking = Path(folder), ()
        with storefile.reading(path), store._connected() as connection:
            tables = storefile.check_schema(connection, store.folder)
            if not {"protocol", "rounds"} <= tables:
                raise ValueError("a database with other tables")
        # What an early version did not have is empty.
        store._lacking = tuple(name for name in TABLES if name not in tables)
        return store

    def agree(self, protocol: dict[str, Any]) -> None:
        """Write the protocol into a new store, or check that it is the one of an old store.

        Parameters
        ----------
        protocol : dict
            What all cells of the store share; values that JSON can hold.

        Raises
        ------
        InvalidInputError
            If it differs, showing where; nothing is changed then. Only rounds may be added to the schedule.
        """
        wanted = storefile.as_text(protocol)
        with storefile.reading(self.place), self.writing() as connection:
            stored = storefile.wherever(dict(connection.execute("SELECT key, value FROM protocol")))
            if not stored:
                connection.executemany("INSERT INTO protocol VALUES (?, ?)", wanted.items())
                return
            if storefile.is_longer(stored, wanted):
                stored["batch_sizes"] = wanted["batch_sizes"]
                if stored == wanted:
                    connection.execute(_LENGTHEN, (wanted["batch_sizes"],))
        self._refuse_another(stored, wanted)

    def check_same(self, protocol: dict[str, Any]) -> None:
        """Check that the store is of this protocol, of which it may hold more rounds or fewer; nothing is written.

        Parameters
        ----------
        protocol : dict
            As for `agree`.

        Raises
        ------
        InvalidInputError
            If it differs, showing where.
        """
        wanted = storefile.as_text(protocol)
        with storefile.reading(self.place), self._connected() as connection:
            stored = storefile.wherever(dict(connection.execute("SELECT key, value FROM protocol")))
            if storefile.is_longer(stored, wanted) or storefile.is_longer(wanted, stored):
                stored["batch_sizes"] = wanted["batch_sizes"]
        self._refuse_another(stored, wanted)

    def _refuse_another(self, stored: dict[str, str], wanted: dict[str, str]) -> None:
        if found := files.differences(stored, wanted):
            remedy = "Use another folder, or ask for the same protocol."
            raise InvalidInputError(f"{self.folder} holds another comparison: {found}. {remedy}")

    def protocol(self) -> dict[str, Any]:
        """Return what all cells share.

        Returns
        -------
        dict
            As given to `agree`.
        """
        with storefile.reading(self.place), self._connected() as connection:
            rows = connection.execute("SELECT key, value FROM protocol").fetchall()
            return {str(key): storefile.parsed(value, f"protocol, key {key!r}") for key, value in rows}

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
        rows = [columns_of(strategy, seed, i, r) for i, r in enumerate(curve)]
        details = [(*row[:3], *row[8:]) for row in rows]
        with self.writing() as connection:
            known = storefile.rows_of(connection.execute(_OF_CELL, (strategy, seed)).fetchall())
            if len(known) >= len(curve):
                return False
            if [row.indices for row in known] != [tuple(r.indices.tolist()) for r in curve[: len(known)]]:
                got = f"others for {checks.one_line(strategy)}, seed {seed}"
                raise checks.expected("the rounds that are stored to be the first", got, "Use another folder.")
            # A cell to which rounds are added is stored anew as a whole.
            for table in ("rounds", "details", "unfinished", "claims"):
                connection.execute(f"DELETE FROM {table} WHERE strategy = ? AND seed = ?", (strategy, seed))
            if paired:
                found = connection.execute(_STARTED_FROM, (seed,)).fetchone()
                storefile.check_paired(strategy, seed, curve[0].indices.tolist(), found)
            connection.executemany("INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row[:8] for row in rows])
            connection.executemany("INSERT INTO details VALUES (?, ?, ?, ?, ?, ?, ?, ?)", details)
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
        values = (strategy, seed, number, text_of(entry))
        with self.writing() as connection:
            connection.execute(_NOTE, (*values, number, strategy, seed))

    def noted(self, strategy: str, seed: int, first: int = 0) -> list[Round]:
        """Return the rounds kept of a cell that is not finished yet.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed : int
            Seed of the cell.
        first : int, default=0
            How many rounds of it are stored already, where more are asked for.

        Returns
        -------
        list of Round
            From this one on, without gaps.
        """
        with storefile.reading(self.place), self._connected() as connection:
            found = connection.execute(_NOTED, (strategy, seed)).fetchall()
            # Those after a gap cannot be gone on from.
            return [round_of(text) for i, (number, text) in enumerate(found, first) if i == number]

    def under_way(self) -> dict[tuple[str, int], int]:
        """Return how many rounds are done of the cells that are not finished yet, those stored before counted.

        Returns
        -------
        dict of (str, int) to int
            By strategy and seed.
        """
        with storefile.reading(self.place), self._connected() as connection:
            found = connection.execute("SELECT strategy, seed, MAX(round) + 1 FROM unfinished GROUP BY strategy, seed")
            return {(str(strategy), int(seed)): int(n) for strategy, seed, n in found}

    def begin(self, manifest: dict[str, Any]) -> None:
        """Note that a run begins.

        Parameters
        ----------
        manifest : dict
            Under what; values that JSON can hold.
        """
        with self.writing() as connection:
            connection.execute("INSERT INTO runs (manifest) VALUES (?)", (json.dumps(manifest),))

    def manifests(self) -> list[dict[str, Any]]:
        """Return under what the runs on this store were made.

        Returns
        -------
        list of dict
            As given to `begin`, in order; empty for stores of early versions.
        """
        with storefile.reading(self.place), self._connected() as connection:
            found = connection.execute("SELECT id, manifest FROM runs ORDER BY id").fetchall()
            manifests = [storefile.parsed(text, f"runs, id {number}") for number, text in found]
            if not all(isinstance(manifest, dict) for manifest in manifests):
                raise ValueError("a manifest that is no table of values")
            return manifests

    def stored(self, strategy: str, seed: int) -> list[Round]:
        """Return the rounds of a finished cell, from which it can go on where more are asked for.

        Parameters
        ----------
        strategy : str
            Name and parameters of the strategy.
        seed : int
            Seed of the cell.

        Returns
        -------
        list of Round
            From the first on; none in stores of early versions, which kept no details.
        """
        with storefile.reading(self.place), self._connected() as connection:
            rows = storefile.rows_of(connection.execute(_OF_CELL, (strategy, seed)).fetchall())
        return [round_from(row) for row in rows] if all(row.fit_seed is not None for row in rows) else []

    def finished(self, n_rounds: int = 1) -> set[tuple[str, int]]:
        """Return the cells that need not be run again.

        Parameters
        ----------
        n_rounds : int, default=1
            How many rounds are asked for, the one on the initial labels counted.

        Returns
        -------
        set of (str, int)
            Strategy and seed.
        """
        with storefile.reading(self.place), self._connected() as connection:
            return {(str(label), int(seed)) for label, seed, n in connection.execute(_COUNTS) if n >= n_rounds}

    def rows(self) -> list[Row]:
        """Return everything stored.

        Returns
        -------
        list of Row
            By strategy, seed and round.
        """
        with storefile.reading(self.place), self._connected() as connection:
            return storefile.rows_of(connection.execute(_ROWS).fetchall())

    @property
    def place(self) -> Any:
        """Where the rows are, in words."""
        return self.folder / FILE_NAME

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Context with a connection for one change: all of it is written, or none.

        Yields
        ------
        connection
            With an ``execute``. It has the store to itself: what is read stays true until it is acted on.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        try:
            with self._connected() as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.OperationalError as error:
            remedy = "Free space, or make it writable, and run the same again: it goes on where it stopped."
            raise StorageError(
                f"{self.place} could not be written: {checks.one_line(str(error))}. What it held is kept. {remedy}"
            ) from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / FILE_NAME
        reads_only = self._lacking is not None
        with closing(
            storefile.opened_for_reading(path) if reads_only else sqlite3.connect(path, timeout=60)
        ) as connection:
            # A file from elsewhere may hold views and triggers: none of them may call a function.
            connection.execute("PRAGMA trusted_schema=OFF")
            for name in self._lacking or ():
                connection.execute(f"CREATE TEMP TABLE {name} {TABLES[name]}")
            connection.execute(f"PRAGMA query_only={'ON' if reads_only else 'OFF'}")
            yield connection
