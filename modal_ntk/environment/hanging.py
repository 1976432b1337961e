"""Imports of foreign code that may never end: whoever waits is told for what, and then they are ended."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from contextlib import suppress
from types import FrameType
from typing import Any

from modal_ntk.errors import ModalNTKWarning

HANGING_SECONDS = 10.0
"""What is still being imported after so long is named at once, for it may never end."""

IDLE_SECONDS = 20.0
"""If it then imports no module for so long, it is given up; what is slow alone, as torch on a slow disk, goes on."""


class Hangs(BaseException):
    """Raised in an import that does not end; no `Exception`, which what is imported might catch."""


class Watch:
    """Looks after one import: names who hangs, ends that, and tells a Ctrl-C from an error of the plugin's own.

    All it can do about an import is to raise in it, from the handler of Ctrl-C, which only the main thread runs; in
    others a plugin that hangs is named and waited for.

    Parameters
    ----------
    what : str
        What is imported, for whoever waits.
    remedy : str
        What to do about it.

    Attributes
    ----------
    interrupted : bool
        Whether somebody pressed Ctrl-C.
    finished : bool
        Set by the caller when the import has ended, which is not broken off from then on.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self.interrupted = self.finished = False
        self._what, self._remedy, self._ends, self._over = what, remedy, False, threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._handler: Any = None

    def __enter__(self) -> Watch:
        """Begin, in the place of whoever handles Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            # None is a handler that Python did not set and could not put back.
            self._handler = signal.getsignal(signal.SIGINT)
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and put the handler back."""
        self._over.set()
        self._thread.join()
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._ends:
            self._ends = False
            if not self.finished:
                raise Hangs
        elif callable(self._handler):
            self.interrupted = True
            self._handler(number, frame)
        elif self._handler == signal.SIG_DFL:  # the system's own way, which ends the process
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _wait(self) -> None:
        if self._over.wait(HANGING_SECONDS):
            return
        self._tell()
        n_modules = len(sys.modules)
        while not self._over.wait(IDLE_SECONDS):
            before, n_modules = n_modules, len(sys.modules)
            if self._handler is not None and n_modules == before and not _half_imported("torch"):
                self._ends = True
                if hasattr(signal, "pthread_kill"):  # wakes a thread that sleeps
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                else:
                    signal.raise_signal(signal.SIGINT)

    def _tell(self) -> None:
        text = f"{self._what} is still being imported after {HANGING_SECONDS:g} s. {self._remedy}"
        try:
            warnings.warn(text, ModalNTKWarning, stacklevel=2)
        except ModalNTKWarning:  # an error here would reach nobody
            with suppress(Exception):
                sys.stderr.write(f"{text}\n")


def _half_imported(name: str) -> bool:
    # Broken off, torch could not be imported again in this process.
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)
