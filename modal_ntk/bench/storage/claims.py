"""Which process runs which cell of a store that several work on, so that none is run twice."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Literal

from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import StorageError

Cell = tuple[str, int]
Outcome = Literal["ours", "taken", "done"]

BEAT = 15.0
"""Seconds between two signs of life."""

LEASE = 120.0
"""Seconds without a sign after which a claim made elsewhere counts no more."""

PAUSE = 1.0
"""Seconds between two looks where all that is left is claimed by others."""

_OF_CELL = "WHERE strategy = ? AND seed = ?"


class Claims:
    """Cells of a store that this call has claimed; entered, it gives signs of life, and at the end it lets all go.

    Parameters
    ----------
    store : Store
        The store that several processes share.
    n_rounds : int
        Rounds that a finished cell has.

    Notes
    -----
    A claim is a row of the store, made in the transaction that finds the cell neither finished nor claimed. It holds as
    long as its process: one on this machine is asked for by its number and the time it began, so that after a kill the
    next call need not wait. Of one that runs elsewhere only the signs in the store are seen, a number that it raises
    every ``BEAT`` seconds; after ``LEASE`` seconds without a new one, by the clock of who looks, its claims are free.
    No two clocks are compared. A process that was only halted finds its cell stored by another, and its own rows, which
    are the same, are left out.
    """

    def __init__(self, store: Store, n_rounds: int) -> None:
        self._store, self._n_rounds = store, n_rounds
        self._owner = f"{_place()} {os.getpid()} {_began(os.getpid())} {uuid.uuid4().hex}"
        self._seen: dict[str, tuple[int, float]] = {}
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beating.join()
        # Where nothing can be written, the claims expire.
        with suppress(StorageError), self._store.writing() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))

    def passes(self, cells: Sequence[Cell], done: Callable[[Cell], None]) -> Iterator[Iterator[Cell]]:
        """Yield cells to run, each claimed when its turn comes, until all are finished by whomever.

        Parameters
        ----------
        cells : sequence of (str, int)
            What is asked for.
        done : callable
            Is told the cells that others have finished.

        Yields
        ------
        iterator of (str, int)
            At least one cell; to be gone through to its end. What others were at is in a later one if they leave it.
        """
        waiting = list(cells)
        while waiting:
            taken: list[Cell] = []
            free = self._free(waiting, taken, done)
            # Workers are started for a cell only, never to wait.
            first = next(free, None)
            if first is not None:
                yield chain([first], free)
            elif taken:
                time.sleep(PAUSE)
            waiting = taken

    def _free(self, cells: list[Cell], taken: list[Cell], done: Callable[[Cell], None]) -> Iterator[Cell]:
        for cell in cells:
            outcome = self.take(cell)
            if outcome == "ours":
                yield cell
            elif outcome == "taken":
                taken.append(cell)
            else:
                done(cell)

    def take(self, cell: Cell) -> Outcome:
        """Claim a cell.

        Parameters
        ----------
        cell : (str, int)
            Strategy and seed.

        Returns
        -------
        {"ours", "taken", "done"}
            Whether it is this call's now, another's, or finished.
        """
        with self._store.writing() as connection:
            ((n_stored,),) = connection.execute(f"SELECT COUNT(*) FROM rounds {_OF_CELL}", cell).fetchall()
            if n_stored >= self._n_rounds:
                return "done"
            held = connection.execute(f"SELECT owner, beat FROM claims {_OF_CELL}", cell).fetchone()
            if held is not None and held[0] != self._owner and not self._is_gone(*held):
                return "taken"
            connection.execute(f"DELETE FROM claims {_OF_CELL}", cell)
            connection.execute("INSERT INTO claims VALUES (?, ?, ?, 0)", (*cell, self._owner))
            return "ours"

    def free(self, cell: Cell) -> None:
        """Let a cell go that could not be run.

        Parameters
        ----------
        cell : (str, int)
            Strategy and seed.
        """
        with self._store.writing() as connection:
            connection.execute(f"DELETE FROM claims {_OF_CELL} AND owner = ?", (*cell, self._owner))

    def _is_gone(self, owner: str, beat: int) -> bool:
        place, pid, began, _ = (*owner.split(" "), "", "", "", "")[:4]
        alive = _is_alive(int(pid), began) if place == _place() and pid.isdigit() else None
        if alive is not None:
            return not alive
        now = monotonic()
        last, since = self._seen.get(owner, (None, now))
        self._seen[owner] = (beat, since if last == beat else now)
        return now - self._seen[owner][1] > LEASE

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            # What keeps this from being written keeps the cells' rows from it too, where it is an error.
            with suppress(StorageError), self._store.writing() as connection:
                connection.execute("UPDATE claims SET beat = beat + 1 WHERE owner = ?", (self._owner,))


def _place() -> str:
    # Process numbers mean something within one boot of one system, and there within one container.
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return "".join(platform.node().split()) or "unknown"


def _began(pid: int) -> str:
    # Numbers of processes come again: by the time of its beginning one is told from a later one.
    state = _state(pid)
    return "-" if state is None else state[1]


def _state(pid: int) -> tuple[str, str] | None:
    # Whether it runs or is only not yet buried, and when it began; None where there is none, or the system is silent.
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return values[0], values[19]


def _is_alive(pid: int, began: str) -> bool | None:
    # Whether a process of this machine runs; None where that cannot be told.
    if _state(os.getpid()) is not None:
        state = _state(pid)
        return state is not None and state[0] not in "ZX" and state[1] == began
    if sys.platform == "win32":  # there a signal of number zero is no question
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None
