"""Samples in a torch ``Dataset``: read by their number, x alone, and fed to a net together with labels of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch.helper import SliceDataset
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset

from modal_ntk import checks


class LabeledDataset(Dataset):  # type: ignore[type-arg]
    """The samples of a data set with given labels in place of its own targets.

    Parameters
    ----------
    data : torch Dataset (n,)
        Its items are samples, pairs of a sample and a target, or a sample alone in a tuple.
    y : array-like (n,), optional
        The labels; without them zero stands for each, as skorch wants a pair.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> LabeledDataset(TensorDataset(torch.eye(2), torch.tensor([7, 7])), [0, 1])[1]
    (tensor([0., 1.]), 1)
    """

    def __init__(self, data: Any, y: Any = None) -> None:
        self.data = data
        self.y = y
        self._bare = _holds_bare_samples(data)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.data)

    def __getitem__(self, i: Any) -> tuple[Any, Any]:
        """Return a sample and its label."""
        return _sample_of(self.data[i], self._bare), 0 if self.y is None else self.y[i]


def _holds_bare_samples(data: Any) -> bool:
    # What skorch slices out of a data set is the sample itself, which may be a tuple of inputs.
    while isinstance(data, Subset):
        data = data.dataset
    return isinstance(data, SliceDataset)


def _sample_of(item: Any, bare: bool) -> Any:
    if bare or not isinstance(item, (tuple, list)):
        return item
    if len(item) > 2:
        remedy = "Let several inputs be one dict by argument of the module's forward: return {...}, y."
        raise checks.expected("items of a Dataset that are (x, y) or x", f"tuples of {len(item)}", remedy)
    return item[0]


def as_pairs(X: Any) -> Any:
    """Return a data set whose items are what skorch takes: pairs of sample and target.

    Parameters
    ----------
    X : torch Dataset
        As users pass it.

    Returns
    -------
    torch Dataset
        `X` itself where it has such items, so that it is read as its own author wrote it.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> as_pairs(TensorDataset(torch.eye(2)))[0]
    (tensor([1., 0.]), 0)
    """
    if checks.n_rows(X) == 0 or isinstance(X, LabeledDataset):
        return X
    first = X[0]
    paired = isinstance(first, (tuple, list)) and len(first) == 2 and not _holds_bare_samples(X)
    return X if paired else LabeledDataset(X)


def samples_of(X: Any, name: str = "the Dataset") -> Any:
    """Return the samples of a data set in one array, or in a dict of arrays.

    Parameters
    ----------
    X : torch Dataset (n,)
        Read once, by its length; targets are not looked at.
    name : str, default="the Dataset"
        What it is, for the message.

    Returns
    -------
    numpy.ndarray (n, ...), or dict of them
        All samples.

    Raises
    ------
    InvalidInputError
        If the samples are no arrays of one shape.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> samples_of(TensorDataset(torch.eye(2), torch.tensor([7, 7]))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    bare = _holds_bare_samples(X)
    rows = [_sample_of(X[i], bare) for i in range(checks.n_rows(X))]
    if rows and isinstance(rows[0], Mapping):
        return {key: _stacked([row[key] for row in rows], name) for key in rows[0]}
    return _stacked(rows, name)


def _stacked(rows: list[Any], name: str) -> np.ndarray:
    arrays = [row.detach().cpu().numpy() if isinstance(row, torch.Tensor) else np.asarray(row) for row in rows]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or any(array.dtype == object for array in arrays):
        got = f"samples of shapes {sorted(shapes)[:3]}" if len(shapes) > 1 else f"{type(rows[0]).__name__} objects"
        remedy = "Name a layer or pass a callable as features, or let the Dataset return arrays of one shape."
        raise checks.expected(f"{name} to hold arrays of one shape", got, remedy)
    return np.stack(arrays) if arrays else np.zeros((0, 0), np.float32)


def in_order(loader: Any) -> Any:
    """Return a loader that yields every sample once and in order, whatever its own settings.

    skorch hands ``iterator_valid__shuffle`` and ``iterator_valid__drop_last`` through to the loader; picks are named
    by position, so neither may hold here.

    Parameters
    ----------
    loader : iterable
        What ``net.get_iterator`` returned.

    Returns
    -------
    iterable
        `loader` itself unless it is a torch loader that shuffles, samples or drops.
    """
    if not isinstance(loader, DataLoader) or (loader.batch_size is None and loader.batch_sampler is None):
        return loader
    batches = loader.batch_sampler
    if type(batches) is BatchSampler and type(batches.sampler) is SequentialSampler and not batches.drop_last:
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or 128,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )
