"""SIGTERM, which a scheduler sends: it ends a command as Ctrl-C does, and what was begun is cleared away."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminating() -> Iterator[None]:
    """Context in which SIGTERM ends workers as Ctrl-C does, says how to go on, and exits with status 143.

    Yields
    ------
    None
        Nothing. Outside of the main thread, and where somebody handles the signal already, nothing changes.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break off the ending
        sys.stderr.write("modal-ntk: terminated; the same command goes on where this one stopped.\n")
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
