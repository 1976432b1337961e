"""Work on many samples in parts that a device has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TypeVar

from modal_ntk import progress
from modal_ntk.environment.late import torch

T = TypeVar("T")


def in_parts(
    work: Callable[[int, int], T], n: int, step: int, *, start: int = 0, stage: str | None = None
) -> Iterator[T]:
    """Yield what is made of samples, part by part, in smaller parts from where the device runs out of memory.

    Parameters
    ----------
    work : callable
        Is given the numbers of the first sample of a part and of the one after its last. A part that did not fit is
        worked on again, so the work must not add to what it has begun.
    n : int
        Samples.
    step : int
        Samples of a part, at least one.
    start : int, default=0
        The first sample.
    stage : str, optional
        Under which progress counts the parts, as chunks.

    Yields
    ------
    object
        What `work` returned, in the order of the samples.

    Raises
    ------
    torch.cuda.OutOfMemoryError
        If there is no room for one sample.

    Examples
    --------
    >>> list(in_parts(range, 5, 2))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    with progress.stage(stage, -(-(n - start) // step), "chunk") if stage else nullcontext():
        while start < n:
            stop = min(start + step, n)
            try:
                found = work(start, stop)
            except torch.cuda.OutOfMemoryError:
                if stop - start == 1:
                    raise
                step = (stop - start) // 2
            else:
                yield found
                if stage:
                    progress.advance(1, "chunk")
                start = stop
                continue
            torch.cuda.empty_cache()  # once the error no longer holds what was made
