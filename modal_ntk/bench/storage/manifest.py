"""Under what a run was made: versions, hardware, threads, commit."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import modal_ntk
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.storage.commits import commit_of
from modal_ntk.environment import compatibility
from modal_ntk.environment.late import torch


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
    """Return the commits of the working directory and of this library's folder, as `commit_of` finds them.

    Returns
    -------
    dict of str to str or None
        By place.
    """
    folders = {"working_directory": Path.cwd(), "modal_ntk": Path(modal_ntk.__file__).parent}
    return {name: commit_of(folder) for name, folder in folders.items()}
