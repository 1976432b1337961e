"""Rows of samples, whatever holds them: some of them, and how to know them again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse, vstack
from sklearn.utils import _safe_indexing
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from modal_ntk import checks
from modal_ntk.nets.datasets import as_pairs, samples_of


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
    if checks.is_dataset(X):
        return Subset(X, rows.tolist())
    return _safe_indexing(X, rows)


def stack_rows(parts: Sequence[Any]) -> Any:
    """Return samples, or labels, one part after another, in the container that holds the first.

    Parameters
    ----------
    parts : sequence of arrays, tensors, frames, series, sparse matrices, lists, dicts of these, or torch Datasets
        At least one, of one kind; an array is taken into any other. Numbers with a fraction take the first one's type,
        so that one float64 part does not widen the rest.

    Returns
    -------
    samples
        Of the same kind; a ``torch.utils.data.ConcatDataset`` of Datasets.

    Raises
    ------
    InvalidInputError
        If the parts do not fit together.

    Examples
    --------
    >>> stack_rows([np.zeros((1, 2), "float32"), np.ones((2, 2))]).dtype
    dtype('float32')
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    try:
        if isinstance(first, Mapping):
            return {name: stack_rows([part[name] for part in parts]) for name in first}
        if checks.is_dataset(first):
            return ConcatDataset([as_pairs(part) for part in parts])
        if isinstance(first, Tensor):
            return torch.cat([torch.as_tensor(part).to(first.device, _common(first.dtype, part)) for part in parts])
        if issparse(first):
            return vstack(parts, format="csr")
        if hasattr(first, "iloc"):
            import pandas as pd

            same = all(type(part) is type(first) for part in parts)
            return pd.concat(parts) if same else pd.concat([first, *(_like_frame(first, p) for p in parts[1:])])
        if isinstance(first, list):
            return [row for part in parts for row in part]
        arrays = [np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part) for part in parts]
        fractions = all(array.dtype.kind == "f" for array in arrays)
        return np.concatenate([array.astype(arrays[0].dtype, copy=False) if fractions else array for array in arrays])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        kinds = ", then ".join(type(part).__name__ for part in parts)
        remedy = "Pass new samples as the first ones were passed."
        raise checks.expected("samples that fit together", f"{kinds}: {error}", remedy) from error


def _common(dtype: torch.dtype, part: Any) -> torch.dtype:
    other = torch.as_tensor(part).dtype
    return dtype if dtype.is_floating_point and other.is_floating_point else torch.promote_types(dtype, other)


def _like_frame(frame: Any, part: Any) -> Any:
    # Rows without names are named as the frame's.
    named = {"columns": frame.columns} if hasattr(frame, "columns") else {"name": frame.name}
    return type(frame)(np.asarray(part), **named)


def for_a_net(X: Any) -> Any:
    """Return samples as skorch reads them.

    Parameters
    ----------
    X : samples (n, ...)
        As users pass them.

    Returns
    -------
    samples (n, ...)
        Frames as arrays, objects that are numbers as such, anything else itself.

    Raises
    ------
    InvalidInputError
        If no tensor can hold them.

    Examples
    --------
    >>> for_a_net(np.array([[1, 2.5]], dtype=object)).dtype
    dtype('float64')
    """
    if isinstance(X, Mapping):
        return {name: for_a_net(part) for name, part in X.items()}
    framed = hasattr(X, "to_numpy")
    if framed:
        X = np.array(X.to_numpy())  # skorch would make a dict of columns of a frame
    if not isinstance(X, np.ndarray):
        return X
    X = checks.check_samples("the samples", X, finite=False) if framed or X.dtype == object else X
    if X.dtype.kind not in "fiub":
        remedy = "Put the steps that make numbers of them before the net: make_pipeline(encoder, net)."
        raise checks.expected("numbers for the net", f"an array of {X.dtype}", remedy)
    return X


def row_digests(X: Any) -> list[bytes]:
    """Return a digest of every row by its values, so that a sample can be found again in another container.

    Parameters
    ----------
    X : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples. Numbers are compared as float64, so the type of float that holds them does not matter.

    Returns
    -------
    list of bytes
        Equal for equal rows.

    Examples
    --------
    >>> first, second, third = row_digests(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> first == third, first == second, row_digests([[1, 2]]) == [first]
    (True, False, True)
    """
    if isinstance(X, Mapping):
        parts = [row_digests(X[name]) for name in sorted(X)]
        return [_digest(b"".join(row)) for row in zip(*parts, strict=True)]
    if checks.is_dataset(X):
        return row_digests(samples_of(X))
    if issparse(X):
        return row_digests(X.toarray())
    if isinstance(X, Tensor):
        X = X.detach().cpu().double().numpy()  # NumPy has no bfloat16
    return [_digest(_bytes_of(row)) for row in np.asarray(X)]


def _bytes_of(row: Any) -> bytes:
    values = np.asarray(row)
    if values.dtype.kind not in "fiub":
        return repr(values.tolist()).encode()
    # Adding zero makes one of the two zeros that are equal and differ in their bits.
    return (values.astype(np.float64) + 0.0).tobytes()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
