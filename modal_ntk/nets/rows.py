"""Some rows of samples, whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from torch import Tensor
from torch.utils.data import Dataset, Subset


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Return some rows of samples in the container that holds them all.

    Parameters
    ----------
    X : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples.
    rows : numpy.ndarray (k,), int64
        Positions from zero.

    Returns
    -------
    samples (k, ...)
        Of the same kind; a ``torch.utils.data.Subset`` of a Dataset.

    Examples
    --------
    >>> take_rows({"ids": np.array([5, 6, 7])}, np.array([2, 0]))
    {'ids': array([7, 5])}
    """
    if isinstance(X, Mapping):
        return {name: take_rows(part, rows) for name, part in X.items()}
    if isinstance(X, Tensor):
        return X[rows.tolist()]
    if isinstance(X, Dataset):
        return Subset(X, rows.tolist())
    return _safe_indexing(X, rows)
