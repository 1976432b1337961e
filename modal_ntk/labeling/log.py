"""The log of a labelling session: one SQLite file that is only ever added to."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modal_ntk import checks
from modal_ntk.checks import files
from modal_ntk.errors import InvalidInputError, StorageError

FORMAT = 1
"""Version of the log, kept in the file under the key ``format``."""

KINDS = ("ask", "label", "skip", "undo")

_SESSION = "CREATE TABLE session (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
_EVENTS = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL, row INTEGER, value TEXT NOT NULL
)
"""
# These hold whoever opens the file to adding.
_STAY = "CREATE TRIGGER stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are not changed'); END"
_REMAIN = "CREATE TRIGGER remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are not deleted'); END"

_ADD = "INSERT INTO events (time, kind, row, value) VALUES (?, ?, ?, ?)"

_OURS = frozenset({"stay", "remain"})


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Parameters
    ----------
    id : int
        Its place in the log, from one.
    time : str
        When, in UTC.
    kind : {"ask", "label", "skip", "undo"}
        What.
    row : int or None
        Of the pool; None for "ask".
    value : object
        The label; for "ask" a dict with the rows and who chose them; for "undo" the event undone.
    """

    id: int
    time: str
    kind: str
    row: int | None
    value: Any


class EventLog:
    """Events in a file.

    Parameters
    ----------
    path : str or path
        The file; made if it is not there.
    about : dict
        What the session is about; must agree with what the file says.

    Raises
    ------
    InvalidInputError
        If the file is no log, belongs to another session, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
        self.path = Path(path)
        wanted = {key: json.dumps(value) for key, value in about.items()}
        with self._reading(), self._writing() as connection:
            found = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
            tables = {name for kind, name in found if kind == "table"}
            if not found:
                # One by one, inside the transaction: a script would commit before it begins.
                connection.execute(_SESSION)
                connection.execute(_EVENTS)
                connection.execute(_STAY)
                connection.execute(_REMAIN)
                connection.executemany("INSERT INTO session VALUES (?, ?)", wanted.items())
                return
            others = {name for kind, name in found if kind == "view" or (kind == "trigger" and name not in _OURS)}
            if others or not {"session", "events"} <= tables:
                raise ValueError("a database with other tables")
            stored = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM session")}
        self._agree(stored, wanted)

    def _agree(self, stored: dict[str, str], wanted: dict[str, str]) -> None:
        if stored.get("format", "").isdecimal() and int(stored["format"][:9]) > FORMAT:
            got = f"format {checks.one_line(stored['format'])}"
            remedy = "It is a newer modal-ntk's: upgrade this one."
            raise checks.expected(f"a log of format {FORMAT} or before at {self.path}", got, remedy)
        if found := files.differences(stored, wanted):
            remedy = "Pass the pool and options of that session, or another path."
            raise InvalidInputError(f"{self.path} holds another session: {found}. {remedy}")

    def append(self, decide: Callable[[list[Event]], tuple[str, int | None, Any] | None], *, after: int) -> list[Event]:
        """Add an event, with nobody else adding in between.

        Parameters
        ----------
        decide : callable
            Is given the events since `after`, and returns kind, row and value, or None for no event; or raises.
        after : int
            The last event that the caller knows; zero for none.

        Returns
        -------
        list of Event
            The new one, or none.
        """
        with self._reading(), self._writing() as connection:
            decided = decide(self._since(connection, after))
            if decided is None:
                return []
            kind, row, value = decided
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            entry = (time, kind, row, json.dumps(value))
            added = connection.execute(_ADD, entry).lastrowid
        return [Event(int(added or 0), time, kind, row, value)]

    def since(self, after: int = 0) -> list[Event]:
        """Return the events after one.

        Parameters
        ----------
        after : int, default=0
            The last event that the caller knows.

        Returns
        -------
        list of Event
            In the order in which they happened.
        """
        with self._reading(), self._connected() as connection:
            return self._since(connection, after)

    @staticmethod
    def _since(connection: sqlite3.Connection, after: int) -> list[Event]:
        rows = connection.execute("SELECT id, time, kind, row, value FROM events WHERE id > ? ORDER BY id", (after,))
        return [_event(values) for values in rows]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # One file and no companions, so that it can be carried to another machine by itself; and each event is on
        # the disk before the call returns.
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA synchronous=FULL")
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        remedy = "Name a file that a LabelingSession has written, or a new one in a folder that is there."
        with files.reading(f"{self.path} to be the log of a labelling session", remedy):
            try:
                yield
            except sqlite3.OperationalError as error:
                if not re.search("full|readonly|disk I/O", str(error)):
                    raise
                remedy = "Free space, or make it writable, and answer again."
                message = f"{self.path} could not be written: {error}. Every answer up to now is kept. {remedy}"
                raise StorageError(message) from error


def _event(values: tuple[Any, ...]) -> Event:
    # SQLite keeps values of any type in any column.
    number, time, kind, row, value = values
    if kind not in KINDS:
        raise ValueError(f"an event of kind {kind!r}")
    return Event(int(number), str(time), str(kind), None if row is None else int(row), json.loads(value))
