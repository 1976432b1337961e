"""How many threads compiled loops run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def threads_of_torch() -> Iterator[int]:
    """Run numba's parallel loops on as many threads as torch computes with.

    Yields
    ------
    int
        How many that are.

    Notes
    -----
    Left to itself numba takes every core, whatever OMP_NUM_THREADS or `torch.set_num_threads` say; and as both share
    one OpenMP runtime, starting numba's threads changes the number of torch's, for the rest of the process. Here
    both numbers are afterwards what they were.

    Examples
    --------
    >>> before = torch.get_num_threads()
    >>> with threads_of_torch() as n_threads:
    ...     numba.get_num_threads() == n_threads <= before
    True
    >>> torch.get_num_threads() == before
    True
    """
    wanted = torch.get_num_threads()  # first: to ask numba is to start its threads
    before = numba.get_num_threads()
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_threads = min(wanted, most)
    numba.set_num_threads(n_threads)
    try:
        torch.set_num_threads(wanted)
        yield n_threads
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(wanted)
