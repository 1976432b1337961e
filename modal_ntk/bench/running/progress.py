"""How far a comparison is: all of it and each run under way, with the time that is left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TextIO

from tqdm import tqdm

from modal_ntk import checks

MODES = ("bar", "plain", "quiet")
Cell = tuple[str, int]


def mode_of(progress: bool | str, stream: TextIO) -> str:
    """Return how progress is shown.

    Parameters
    ----------
    progress : bool or {"bar", "plain", "quiet"}
        True is a bar on a terminal and plain lines elsewhere, so that a log stays readable; False is quiet.
    stream : file
        Where to.

    Returns
    -------
    {"bar", "plain", "quiet"}
        The mode.

    Raises
    ------
    InvalidInputError
        If there is no such mode.
    """
    if isinstance(progress, bool):
        return ("bar" if stream.isatty() else "plain") if progress else "quiet"
    return str(checks.check_choice("progress", progress, (True, False, *MODES)))


@dataclass
class Tally:
    """Rounds done, and the time that the others will take at the same pace.

    Parameters
    ----------
    n_cells, n_rounds : int
        Runs to do, and rounds of each, the fit on the initial labels counted.
    started : float
        When it began, in seconds.
    finished : int
        Runs done.
    under_way : dict of (str, int) to int
        Rounds done of the others.
    """

    n_cells: int
    n_rounds: int
    started: float
    finished: int = 0
    under_way: dict[Cell, int] = field(default_factory=dict)
    _first: dict[Cell, tuple[float, int]] = field(default_factory=dict)
    _before: int | None = None

    @property
    def done(self) -> int:
        """Rounds done in all."""
        return self.finished * self.n_rounds + sum(self.under_way.values())

    @property
    def total(self) -> int:
        """Rounds there are in all."""
        return self.n_cells * self.n_rounds

    def look(self, now: float, under_way: Mapping[Cell, int]) -> None:
        """Take the rounds of the runs under way into account.

        Parameters
        ----------
        now : float
            The time.
        under_way : dict of (str, int) to int
            Rounds done.
        """
        self.under_way = dict(under_way)
        for cell, rounds in under_way.items():
            self._first.setdefault(cell, (now, rounds))
        if self._before is None:  # rounds of an earlier call say nothing about the pace of this one
            self._before = self.done

    def left(self, now: float) -> float | None:
        """Return the seconds left for everything; None before there is a pace."""
        return _left(self.done - (self._before or 0), self.total - self.done, now - self.started)

    def left_of(self, cell: Cell, now: float) -> float | None:
        """Return the seconds left for a run under way; None before there is a pace."""
        since, rounds = self._first[cell]
        return _left(self.under_way[cell] - rounds, self.n_rounds - self.under_way[cell], now - since)

    def runs(self, now: float) -> str:
        """Describe the runs under way."""
        return "; ".join(
            f"{checks.one_line(label)} {seed}: {rounds}/{self.n_rounds}{_in_words(self.left_of((label, seed), now))}"
            for (label, seed), rounds in sorted(self.under_way.items())
        )


def _left(done: int, remaining: int, seconds: float) -> float | None:
    return None if done <= 0 else remaining * seconds / done


def _in_words(seconds: float | None) -> str:
    return "" if seconds is None else f", {tqdm.format_interval(seconds)} left"


class Progress:
    """Shows a `Tally` while runs are done, looking at those under way from time to time.

    Parameters
    ----------
    name : str
        What is run.
    n_cells, n_rounds : int
        As for `Tally`.
    under_way : callable
        Returns the rounds done of the runs under way, by strategy and seed.
    mode : {"bar", "plain", "quiet"}
        A bar; a line for each run that is done and one about the others every `every` seconds; or nothing.
    stream : file, optional
        Where to; standard error by default.
    interval, every : float, default=1.0 and 60.0
        Seconds from look to look, and from line to line.
    """

    def __init__(
        self,
        name: str,
        n_cells: int,
        n_rounds: int,
        under_way: Callable[[], Mapping[Cell, int]],
        *,
        mode: str,
        stream: TextIO | None = None,
        interval: float = 1.0,
        every: float = 60.0,
    ) -> None:
        self.name, self.mode, self.interval, self.every = checks.one_line(name), mode, interval, every
        self.tally = Tally(n_cells, n_rounds, monotonic())
        self._under_way = under_way
        self._stream = sys.stderr if stream is None else stream
        self._said = monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.mode == "bar":
            self._bar = tqdm(total=self.tally.total, desc=self.name, unit="round", file=self._stream)
        if self.mode != "quiet":
            self.tally.look(monotonic(), self._under_way())
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self._bar is not None:
            self._bar.close()

    def done(self, label: str, seed: int) -> None:
        """Count a run as done.

        Parameters
        ----------
        label : str
            Name of the strategy.
        seed : int
            Its seed.
        """
        with self._lock:
            self.tally.finished += 1
            self.tally.under_way.pop((label, seed), None)
            self._show(f"{checks.one_line(label)} {seed} done")

    def _watch(self) -> None:
        while not self._over.wait(self.interval):
            with self._lock:  # a run that is done meanwhile must not be counted as under way as well
                now = monotonic()
                self.tally.look(now, self._under_way())
                if self.mode == "bar" or now - self._said >= self.every:
                    self._show(self.tally.runs(now))

    def _show(self, what: str) -> None:
        tally, self._said = self.tally, monotonic()
        if self._bar is not None:
            self._bar.n = tally.done
            self._bar.set_postfix_str(tally.runs(self._said))
        elif self.mode == "plain":
            left = _in_words(tally.left(self._said))
            counts = f"{tally.finished}/{tally.n_cells} runs, {tally.done}/{tally.total} rounds{left}"
            self._stream.write(f"{self.name}: {counts}{'; ' if what else ''}{what}\n")
            self._stream.flush()
