"""Pools read shard by shard, by several workers at once where joblib is told of some.

A strategy that scores samples one by one hands `over_pool` a function of a view and some rows. Shards are the same
whoever reads them, so the picks are too.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
from joblib.parallel import get_active_backend

from modal_ntk import checks, nets, progress

if TYPE_CHECKING:
    from modal_ntk.nets import NetView
    from modal_ntk.strategies.base import Query

ROWS = 4096
"""Least number of rows in a shard; it is rounded up to whole batches of the net."""

T = TypeVar("T")
Reader = Callable[["NetView", Any, int], T]


def over_pool(query: Query, read: Reader[T]) -> list[T]:
    """Return what a function gives for each shard of the pool, in order.

    Parameters
    ----------
    query : Query
        What the strategy was asked.
    read : callable
        ``read(view, X, number)`` for the rows of one shard, whose number counts from zero. What it returns for a
        sample must depend on that sample (and, for seeds, the shard's number) alone. It may be a closure.

    Returns
    -------
    list
        One entry for each shard.

    Notes
    -----
    Under ``joblib.parallel_config`` with more than one job, shards are read by joblib's workers: processes, or those
    of a cluster. Each is sent the net once. Rows of a memory-mapped file are sent as their place in the file, which
    workers on other machines must find under the same path; other rows are sent to the worker that reads them, a
    torch Dataset to each. With threads for workers the pool is read by this one alone, as a torch module in use
    cannot be shared.
    """
    shards = _shards(query)
    return _over(
        query.view,
        read,
        len(shards),
        lambda number: _slice(query.X_pool, *shards[number]),
        lambda number: _sendable(query.X_pool, *shards[number]),
        "scores",
    )


def over_parts(query: Query, read: Reader[T], parts: Sequence[np.ndarray]) -> list[T]:
    """Return what a function gives for some parts of the pool, in order, as `over_pool` does for shards of its own.

    Parameters
    ----------
    query : Query
        What the strategy was asked.
    read : callable
        ``read(view, X, number)`` for the rows of one part. What it returns must depend on these, and on the number.
    parts : sequence of numpy.ndarray, int64
        The row numbers of each part.

    Returns
    -------
    list
        One entry for each part.

    Notes
    -----
    Workers are sent the rows of their part; of a memory-mapped pool its place in the file and the row numbers.
    """
    mapped = _mapped(query.X_pool) if isinstance(query.X_pool, np.ndarray) else None
    return _over(
        query.view,
        read,
        len(parts),
        lambda number: nets.take_rows(query.X_pool, parts[number]),
        lambda number: nets.take_rows(query.X_pool, parts[number]) if mapped is None else mapped.rows(parts[number]),
        "shards",
    )


def _over(
    view: NetView,
    read: Reader[T],
    n_parts: int,
    taken: Callable[[int], Any],
    sendable: Callable[[int], Any],
    stage: str,
) -> list[T]:
    if n_parts == 1 or not _workers_wanted():
        numbered = progress.steps(range(n_parts), stage, "shard")
        return [read(view, taken(number), number) for number in numbered]
    # As many tasks as workers, each of several parts in a row: what all parts share is sent once to each.
    runs = np.array_split(np.arange(n_parts), min(joblib.effective_n_jobs(None), n_parts))

    def task(numbers: np.ndarray) -> Any:
        return joblib.delayed(_read)(view.estimator, read, [(int(n), sendable(int(n))) for n in numbers])

    with progress.stage(stage):
        found = joblib.Parallel(batch_size=1)(task(numbers) for numbers in runs)
    return [value for values in found for value in values]


def _workers_wanted() -> bool:
    backend = get_active_backend()[0]
    return joblib.effective_n_jobs(None) > 1 and not getattr(backend, "supports_sharedmem", False)


def _shards(query: Query) -> list[tuple[int, int]]:
    # Whole batches, so that a net sees the very batches that it would see of the whole pool.
    net, n = query.view.net, query.n_pool
    size = 1 if net is None else int(getattr(net, "iterator_valid__batch_size", net.batch_size))
    rows = n if size < 1 else -(-ROWS // size) * size  # skorch's -1: everything is one batch
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]


def _slice(X: Any, start: int, stop: int) -> Any:
    if (start, stop) == (0, checks.n_rows(X)):
        return X
    if isinstance(X, Mapping):
        return {name: _slice(part, start, stop) for name, part in X.items()}
    if isinstance(X, np.ndarray) or hasattr(X, "detach"):
        return X[start:stop]
    return nets.take_rows(X, np.arange(start, stop))


@dataclass(frozen=True)
class _Mapped:
    # Rows of a memory-mapped file, as their place in it.
    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    taken: np.ndarray | None = None

    def rows(self, taken: np.ndarray) -> _Mapped:
        return replace(self, taken=taken)

    def open(self) -> np.ndarray:
        found = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)
        return found if self.taken is None else found[self.taken]


def _sendable(X: Any, start: int, stop: int) -> Any:
    if isinstance(X, Mapping):
        return {name: _sendable(part, start, stop) for name, part in X.items()}
    part = _slice(X, start, stop)
    return _mapped(part) or part if isinstance(part, np.ndarray) else part


def _mapped(part: np.ndarray) -> _Mapped | None:
    root: Any = part
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap) or root.filename is None:
        return None
    if root.mode == "c" or not part.flags.c_contiguous:  # changes to a private copy are not in the file
        return None
    offset = root.offset + part.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return _Mapped(str(root.filename), part.dtype, part.shape, offset)


def _opened(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _opened(value) for name, value in part.items()}
    return part.open() if isinstance(part, _Mapped) else part


_lock = threading.Lock()


def _read(estimator: Any, read: Reader[T], parts: list[tuple[int, Any]]) -> list[T]:
    view = nets.NetView(estimator)
    # Workers of Dask may be threads of one process, whose random generators they would share.
    with _lock, view.no_trace():
        return [read(view, _opened(part), number) for number, part in parts]
