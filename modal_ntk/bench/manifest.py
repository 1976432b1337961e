"""Under what a run was made: versions, hardware, threads, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import modal_ntk
from modal_ntk import compatibility
from modal_ntk.bench.protocol import Protocol


def manifest(protocol: Protocol, how: dict[str, Any]) -> dict[str, Any]:
    """Describe a run that is about to begin.

    Parameters
    ----------
    protocol : Protocol
        What is run.
    how : dict
        Jobs, backend, threads: what must not change the rows.

    Returns
    -------
    dict
        What JSON can hold.

    Examples
    --------
    >>> sorted(manifest(Protocol(strategies=["margin"]), {"jobs": 1}))
    ['commits', 'hardware', 'how', 'protocol', 'protocol_hash', 'started', 'versions']
    """
    return {
        "protocol": protocol.to_dict(),
        "protocol_hash": protocol.digest,
        "how": how,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"Python": platform.python_version(), **compatibility.installed_versions()},
        "hardware": hardware(),
        "commits": commits(),
    }


def hardware() -> dict[str, Any]:
    """Return what this machine computes on.

    Returns
    -------
    dict
        System, processor, number of cores, bytes of memory (None where the system does not tell), GPUs.
    """
    import torch

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": memory,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commits() -> dict[str, str | None]:
    """Return the git commits of the working directory and of this library's folder, None outside of a checkout.

    Returns
    -------
    dict of str to str or None
        Ends in ``+changes`` where files that git follows differ from the commit.
    """
    folders = {"working_directory": Path.cwd(), "modal_ntk": Path(modal_ntk.__file__).parent}
    return {name: _commit(folder) for name, folder in folders.items()}


def _commit(folder: Path) -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
