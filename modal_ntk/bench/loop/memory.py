"""The most memory that a stretch of work holds, on the host and on the GPU."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_PROC = Path("/proc/self")


class Peak(NamedTuple):
    """Most memory held, in bytes.

    Parameters
    ----------
    host : int or None
        Resident memory of the whole process; None where the system does not tell.
    gpu : int or None
        What torch held on the current GPU; None without one.
    """

    host: int | None = None
    gpu: int | None = None


class PeakMemory:
    """Measures from its making on.

    On Linux the kernel's own high-water mark is set back at the start; where that is not allowed, and on other
    systems, the mark is the process's since it began. Other threads of the process count too.

    Examples
    --------
    >>> peak = PeakMemory().peak()
    >>> peak.host is None or peak.host > 0
    True
    """

    def __init__(self) -> None:
        # Neither on other systems nor in a container without the right: the mark then covers more than asked.
        with suppress(OSError):
            (_PROC / "clear_refs").write_text("5")
        if (torch := _torch_on_gpu()) is not None:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> Peak:
        """Return the most memory held so far."""
        torch = _torch_on_gpu()
        return Peak(_resident(), None if torch is None else int(torch.cuda.max_memory_allocated()))


def _resident() -> int | None:
    try:
        lines = (_PROC / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def _torch_on_gpu() -> Any:
    # Only a GPU already in use is asked: starting one costs seconds and memory.
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None
