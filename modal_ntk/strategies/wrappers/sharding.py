"""Pools read shard by shard, by several workers at once where joblib is told of some.

A strategy that scores samples one by one hands `over_pool` a function of a view and some rows. Shards are the same
whoever reads them, so the picks are too.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
Rows = slice | np.ndarray
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
    return _over(query, read, _shards(query), "scores")


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
    return _over(query, read, parts, "shards")


def _over(query: Query, read: Reader[T], parts: Sequence[Rows], stage: str) -> list[T]:
    view, X = query.view, query.X_pool
    if len(parts) == 1 or not _workers_wanted():
        numbers = progress.steps(range(len(parts)), stage, "shard")
        return [read(view, _taken(X, parts[number]), number) for number in numbers]
    # As many tasks as workers, each of several parts in a row: what all parts share is sent once to each.
    runs = np.array_split(np.arange(len(parts)), min(joblib.effective_n_jobs(None), len(parts)))

    def task(numbers: np.ndarray) -> Any:
        return joblib.delayed(_read)(view.estimator, read, [(n, _sendable(X, parts[n])) for n in numbers.tolist()])

    with progress.stage(stage):
        found = joblib.Parallel(batch_size=1)(task(numbers) for numbers in runs)
    return [value for values in found for value in values]


def _workers_wanted() -> bool:
    backend = get_active_backend()[0]
    return joblib.effective_n_jobs(None) > 1 and not getattr(backend, "supports_sharedmem", False)


def _shards(query: Query) -> list[slice]:
    # Whole batches, so that a net sees the very batches that it would see of the whole pool.
    net, n = query.view.net, query.n_pool
    size = 1 if net is None else int(getattr(net, "iterator_valid__batch_size", net.batch_size))
    rows = n if size < 1 else -(-ROWS // size) * size  # skorch's -1: everything is one batch
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def _taken(X: Any, part: Rows) -> Any:
    if isinstance(part, np.ndarray):
        return nets.take_rows(X, part)
    if part == slice(0, checks.n_rows(X)):
        return X
    if isinstance(X, Mapping):
        return {name: _taken(values, part) for name, values in X.items()}
    if isinstance(X, np.ndarray) or hasattr(X, "detach"):
        return X[part]
    return nets.take_rows(X, np.arange(part.start, part.stop))


@dataclass(frozen=True)
class _Mapped:
    # Rows of a memory-mapped file, as their place in it.
    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    part: Rows

    def open(self) -> np.ndarray:
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)[self.part]


def _sendable(X: Any, part: Rows) -> Any:
    if isinstance(X, Mapping):
        return {name: _sendable(values, part) for name, values in X.items()}
    return _mapped(X, part) or _taken(X, part)


def _mapped(X: Any, part: Rows) -> _Mapped | None:
    root: Any = X
    while isinstance(root, np.ndarray) and isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap) or root.filename is None:
        return None
    if root.mode == "c" or not X.flags.c_contiguous:  # changes to a private copy are not in the file
        return None
    offset = root.offset + X.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return _Mapped(str(root.filename), X.dtype, X.shape, offset, part)


def _opened(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _opened(values) for name, values in part.items()}
    return part.open() if isinstance(part, _Mapped) else part


_lock = threading.Lock()


def _read(estimator: Any, read: Reader[T], parts: list[tuple[int, Any]]) -> list[T]:
    view = nets.NetView(estimator)
    # Workers of Dask may be threads of one process, whose random generators they would share.
    with _lock, view.no_trace():
        return [read(view, _opened(part), number) for number, part in parts]
