"""Rows of samples, whatever holds them: some of them, and how to know them again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing
from torch import Tensor
from torch.utils.data import Dataset, Subset

from modal_ntk import checks


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


def row_digests(X: Any) -> list[bytes]:
    """Return a digest of every row by its values, so that a sample can be found again in another container.

    Parameters
    ----------
    X : array, tensor, frame, sparse matrix, list, or dict of these
        The samples. Numbers are compared as float64, so the type of float that holds them does not matter.

    Returns
    -------
    list of bytes
        Equal for equal rows.

    Raises
    ------
    InvalidInputError
        If `X` is a torch Dataset, whose values cannot be told.

    Examples
    --------
    >>> first, second, third = row_digests(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> first == third, first == second, row_digests([[1, 2]]) == [first]
    (True, False, True)
    """
    if isinstance(X, Mapping):
        parts = [row_digests(X[name]) for name in sorted(X)]
        return [_digest(b"".join(row)) for row in zip(*parts, strict=True)]
    if isinstance(X, Dataset):
        remedy = "Pass the samples themselves."
        raise checks.expected("samples in an array, a frame or a dict of these", type(X).__name__, remedy)
    if issparse(X):
        return row_digests(X.toarray())
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    return [_digest(_bytes_of(row)) for row in np.asarray(X)]


def _bytes_of(row: Any) -> bytes:
    values = np.asarray(row)
    if values.dtype.kind not in "fiub":
        return repr(values.tolist()).encode()
    # Adding zero makes one of the two zeros that are equal and differ in their bits.
    return (values.astype(np.float64) + 0.0).tobytes()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
