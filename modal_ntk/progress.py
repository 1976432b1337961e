"""Long work by stage: the seconds of each, and a bar where one is wanted.

Whoever is called from outside (a query, a pruner, a simulation) opens a `work`; what it is made of marks its `stage`,
and loops `advance`. The latter two do nothing where no work is open, so that any function may use them. A bar is drawn
from a thread of its own: a stage that is one long call is seen as well.
"""

from __future__ import annotations

import contextvars
import multiprocessing
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter, time
from typing import Any, TypeVar

from modal_ntk.config import get_config

DELAY = 1.0
"""Seconds after which work is shown."""

INTERVAL = 0.2
"""Seconds from one drawing to the next where a bar is drawn in place."""

LOG_INTERVAL = 10.0
"""Seconds from one drawing to the next where every drawing adds to a log."""

T = TypeVar("T")


@dataclass(eq=False)
class _Stage:
    name: str
    total: int | None
    unit: str
    since: float
    done: int = 0

    def counted(self) -> str:
        return "" if self.total is None else f" {min(self.done, self.total)}/{self.total}"


class Work:
    """One piece of work.

    Parameters
    ----------
    name : str
        What is done.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each stage so far, those of stages within it left out.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds: dict[str, float] = {}
        self.inner: Work | None = None
        self._open: list[_Stage] = []
        self._started = self._since = perf_counter()

    @property
    def total(self) -> float:
        """Seconds since it was opened."""
        return perf_counter() - self._started

    def summary(self) -> str:
        """Return a line with the seconds of the whole and of each stage."""
        parts = [f"{_word(name)} {_short(seconds)}" for name, seconds in self.seconds.items()]
        return f"{self.name}: {_short(self.total)} s" + (f" ({', '.join(parts)})" if parts else "")

    def enter(self, stage: _Stage) -> None:
        """Begin a stage; one that is open waits for its end."""
        self._lap()
        self.seconds.setdefault(stage.name, 0.0)
        self._open.append(stage)

    def leave(self, stage: _Stage) -> None:
        """End a stage, and those within it that an error has left open."""
        self._lap()
        if stage in self._open:
            del self._open[self._open.index(stage) :]

    def advance(self, n: int, unit: str) -> None:
        """Count something done in the stage that began last, if that is what it counts."""
        if self._open and self._open[-1].unit == unit:
            self._open[-1].done += n

    def stages(self) -> list[tuple[str, _Stage]]:
        """Return the stages that are open, with the name of their work, from the outermost to the innermost."""
        return [(self.name, stage) for stage in list(self._open)] + (self.inner.stages() if self.inner else [])

    def _lap(self) -> None:
        now = perf_counter()
        if self._open:
            self.seconds[self._open[-1].name] += now - self._since
        self._since = now


_current: contextvars.ContextVar[Work | None] = contextvars.ContextVar("modal_ntk_work", default=None)


@contextmanager
def work(name: str, verbose: int = 0) -> Iterator[Work]:
    """Open a piece of work.

    Parameters
    ----------
    name : str
        What is done, such as the class that does it.
    verbose : int, default=0
        Whether it is shown wherever its output goes, with a line about its seconds at the end; else the setting
        ``progress`` decides, see ``modal_ntk.set_config``. Within other work that is shown, it is shown there.

    Yields
    ------
    Work
        Whose ``seconds`` grow.

    Examples
    --------
    >>> with work("reading") as done, stage("pages"):
    ...     pass
    >>> sorted(done.seconds)
    ['pages']
    """
    outer, own = _current.get(), Work(name)
    asked, shown = _wanted(verbose)
    alone = shown and not _is_shown.get()
    token, shown_token = _current.set(own), _is_shown.set(shown or _is_shown.get())
    if outer is not None:
        outer.inner = own
    try:
        with _Bar(own) if alone else nullcontext():
            yield own
        if alone and asked:
            _write(own.summary())
    finally:
        if outer is not None:
            outer.inner = None
        _is_shown.reset(shown_token)
        _current.reset(token)


@contextmanager
def stage(name: str, total: int | None = None, unit: str = "pick") -> Iterator[None]:
    """Mark a stage of the work that is open, if any.

    Parameters
    ----------
    name : str
        Such as "features"; stages of one name add up.
    total : int, optional
        How many `advance` will count.
    unit : str, default="pick"
        What is counted.

    Yields
    ------
    None
    """
    open_work = _current.get()
    if open_work is None:
        yield
        return
    entered = _Stage(name, total, unit, perf_counter())
    open_work.enter(entered)
    try:
        yield
    finally:
        open_work.leave(entered)


def advance(n: int = 1, unit: str = "pick") -> None:
    """Count something done, in the stage that began last if that is what it counts.

    Parameters
    ----------
    n : int, default=1
        How much.
    unit : str, default="pick"
        Of what.
    """
    open_work = _current.get()
    if open_work is not None:
        open_work.advance(n, unit)


def steps(values: Sequence[T], name: str, unit: str) -> Iterator[T]:
    """Yield from a sequence within a stage that counts them.

    Parameters
    ----------
    values : sequence
        What is gone through.
    name, unit : str
        As for `stage`.

    Yields
    ------
    object
        Each in turn.
    """
    with stage(name, len(values), unit):
        for value in values:
            yield value
            advance(1, unit)


_is_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("modal_ntk_work_is_shown", default=False)


def _wanted(verbose: int) -> tuple[bool, bool]:
    # Whether it was asked for, and whether it is shown.
    setting = get_config()["progress"]
    asked = setting is not False and (bool(verbose) or setting is True)
    return asked, asked or (setting == "auto" and _somebody_looks())


def _somebody_looks() -> bool:
    if multiprocessing.current_process().name != "MainProcess":  # one of many that would all draw
        return False
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _write(line: str) -> None:
    # Through tqdm, so that a bar of somebody else stays whole.
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stderr)


def _word(stage: str) -> str:
    return stage.replace("_", "-")


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


class _Bar:
    # Looks at a work from time to time, and draws the outermost of its stages that counts, the others beside it.
    def __init__(self, shown: Work) -> None:
        self._work, self._over = shown, threading.Event()
        # A notebook finds the cell that output belongs to by its context.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._watch,), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(DELAY):
            return
        from tqdm.auto import tqdm

        every = INTERVAL if sys.stderr.isatty() or _in_notebook() else LOG_INTERVAL
        bar, drawn = tqdm(desc=self._work.name, leave=False, file=sys.stderr, bar_format=_PLAIN), None
        try:
            while True:
                drawn = self._draw(bar, drawn)
                if self._over.wait(every):
                    return
        finally:
            bar.close()

    def _draw(self, bar: Any, drawn: _Stage | None) -> _Stage | None:
        stages = self._work.stages()
        entries = [entry for _, entry in stages]
        main = next((entry for entry in entries if entry.total is not None), entries[0] if entries else None)
        words = [self._work.name, *(_word(entry.name) for entry in entries[:1])]
        bar.set_description_str(": ".join(words), refresh=False)
        if main is not None and main is not drawn:
            bar.reset(main.total)
            bar.start_t = time() - (perf_counter() - main.since)
            bar.unit, bar.bar_format = f" {main.unit}", _PLAIN if main.total is None else None
        bar.n = 0 if main is None else min(main.done, main.total or 0)
        inner = ""
        if stages and entries[-1] is not main:
            name, entry = stages[-1]
            of = "" if name == self._work.name else f"{name}: "
            inner = f"{of}{_word(entry.name)}{entry.counted()}"
        bar.set_postfix_str(inner, refresh=False)
        bar.refresh()
        return main


_PLAIN = "{desc} [{elapsed}{postfix}]"
