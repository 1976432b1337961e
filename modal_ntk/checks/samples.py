"""The one check of samples, whatever holds them: rows, real numbers, finite."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp

from modal_ntk.checks.wording import expected


def n_rows(X: Any) -> int:
    """Count the samples of whatever a skorch net accepts.

    Parameters
    ----------
    X : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples.

    Returns
    -------
    int
        The number of samples.

    Raises
    ------
    InvalidInputError
        If the entries of a dict differ in length, or X has no length.

    Examples
    --------
    >>> n_rows({"ids": np.zeros((3, 2)), "mask": np.ones(3)})
    3
    """
    if isinstance(X, Mapping):
        lengths = {key: n_rows(value) for key, value in X.items()}
        if len(set(lengths.values())) != 1:
            raise expected("all entries of a dict of inputs to have the same length", lengths, "Align them.")
        return next(iter(lengths.values()))
    shape = getattr(X, "shape", None)
    if shape is not None:
        if len(shape) == 0:
            raise expected("samples in rows", "a scalar", "Pass an array with one row per sample.")
        return int(shape[0])
    if not hasattr(X, "__len__"):
        raise expected("samples with a length", type(X).__name__, "Pass an array, a frame, a dict or a Dataset.")
    return len(X)


def is_dataset(X: Any) -> bool:
    """Tell whether samples are a torch ``Dataset``, without importing torch for users who have none.

    Parameters
    ----------
    X : object
        Whatever was passed as samples.

    Returns
    -------
    bool
        Whether it is one, skorch's ``SliceDataset`` and torch's ``Subset`` included.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> import torch
    >>> is_dataset(TensorDataset(torch.zeros(3, 2))), is_dataset([[1.0]])
    (True, False)
    """
    places = (("torch.utils.data", "Dataset"), ("skorch.helper", "SliceDataset"))
    return any(place in sys.modules and isinstance(X, getattr(sys.modules[place], name)) for place, name in places)


def check_samples(name: str, X: Any, *, finite: bool = True) -> Any:
    """Return `X` as an array of real numbers where it can be one, after checking that it is finite.

    Lists, and objects that are all numbers, become arrays; what torch has no type for becomes one that it has: long
    double float64, booleans float32, byte orders the machine's own; sparse formats without rows become CSR.

    Parameters
    ----------
    name : str
        The argument's name.
    X : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples; never changed. Text and other objects are left for a Pipeline to read, a Dataset for the net.
    finite : bool, default=True
        Whether NaN and infinity are refused.

    Returns
    -------
    object
        `X` itself where nothing had to be changed.

    Raises
    ------
    InvalidInputError
        If rows are ragged, or a value is not finite, masked, or complex.

    Examples
    --------
    >>> check_samples("X", np.array([[1, 2.5]], dtype=object)).dtype
    dtype('float64')
    """
    if sp.issparse(X):
        if X.format not in ("csr", "csc", "lil"):
            X = X.tocsr()  # the other formats have no rows to take
        _refuse_complex(name, X.dtype, X.dtype.kind == "c")
        if X.dtype.kind == "f" and X.dtype.itemsize > 8:
            X = X.astype(np.float64)
    if isinstance(X, Mapping):
        # A mask of booleans is an input of its own.
        return {key: _checked(f"{name}[{key!r}]", value, finite, booleans=True) for key, value in X.items()}
    return _checked(name, X, finite)


def _checked(name: str, X: Any, finite: bool, *, booleans: bool = False) -> Any:
    if is_dataset(X):
        _check_dataset(name, X)
        return X
    if isinstance(X, (list, tuple)):
        X = _list_to_array(name, X)
    elif not hasattr(X, "shape") and hasattr(X, "__array__"):
        X = np.asarray(X)
    if isinstance(X, np.ndarray):
        X = _cast(name, X, booleans)
    elif hasattr(X, "is_complex"):  # a tensor, without importing torch for users who have none
        _refuse_complex(name, X.dtype, X.is_complex())
        X = X.float() if not booleans and str(X.dtype) == "torch.bool" else X
    n_rows(X)
    if finite and (bad := _first_non_finite_row(X)) is not None:
        remedy = "Impute or drop such samples before querying."
        raise expected(f"finite values in {name}", f"NaN or infinity, first in row {bad}", remedy)
    return X


def _check_dataset(name: str, X: Any) -> None:
    iterable = isinstance(X, sys.modules["torch.utils.data"].IterableDataset)
    if iterable or not hasattr(X, "__len__"):
        remedy = "Pass a map-style Dataset, with __len__ and __getitem__."
        raise expected(f"{name} with rows that can be taken by their number", type(X).__name__, remedy)


def _cast(name: str, X: np.ndarray, booleans: bool) -> np.ndarray:
    if isinstance(X, np.ma.MaskedArray):
        if np.ma.is_masked(X):
            row = int(np.ma.getmaskarray(X).reshape(len(X), -1).any(axis=1).argmax())
            remedy = "Fill or drop such samples: X.filled(value)."
            raise expected(f"values in {name} that are all there", f"masked ones, first in row {row}", remedy)
        X = X.data
    if isinstance(X, np.matrix):
        X = X.view(np.ndarray)  # whose rows are matrices, too
    _refuse_complex(name, X.dtype, X.dtype.kind == "c")
    if X.dtype.names is not None:
        remedy = "Pass a plain array or a frame: numpy.lib.recfunctions.structured_to_unstructured(X)."
        raise expected(f"{name} to be an array of one type", f"a structured array of {X.dtype}", remedy)
    if X.dtype == object:
        return _objects(name, X)
    if X.dtype.kind == "b":
        return X if booleans else X.astype(np.float32)
    if X.dtype.kind == "f" and X.dtype.itemsize > 8:
        return X.astype(np.float64)
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))


def _refuse_complex(name: str, dtype: Any, is_complex: bool) -> None:
    if is_complex:
        # The words that scikit-learn's own checks of estimators look for.
        remedy = "Complex data not supported: pass real and imaginary parts, numpy.hstack([X.real, X.imag])."
        raise expected(f"real numbers in {name}", f"an array of {dtype}", remedy)


def _objects(name: str, X: np.ndarray) -> np.ndarray:
    if X.ndim == 1 and len(X) and all(isinstance(row, np.ndarray) for row in X):
        return _cast(name, _list_to_array(name, list(X)), booleans=False)
    values = X.ravel().tolist()
    if any(isinstance(value, complex) for value in values):
        _refuse_complex(name, np.dtype(complex), True)
    # Missing values beside numbers are found as NaN. Text stays: only a Pipeline knows what to make of it.
    if values and all(value is None or isinstance(value, (Real, np.bool_)) for value in values):
        return np.array(values, dtype=np.float64).reshape(X.shape)
    return X


def _list_to_array(name: str, X: list[Any] | tuple[Any, ...]) -> np.ndarray:
    try:
        rows = [row if isinstance(row, str) else np.asarray(row) for row in X]
        return np.asarray(rows)
    except ValueError as error:
        raise expected(f"all samples of {name} to have one shape", str(error), "Pad them or pass an array.") from error


def _first_non_finite_row(X: Any) -> int | None:
    if hasattr(X, "isfinite"):  # a tensor, without importing torch for users who have none
        bad = ~X.detach().isfinite().reshape(len(X), -1).all(dim=1)
        return int(bad.int().argmax()) if bool(bad.any()) else None
    if sp.issparse(X):
        entries = X.tocoo()
        rows = entries.row[~np.isfinite(entries.data)]
        return int(rows.min()) if len(rows) else None
    if hasattr(X, "select_dtypes"):
        X = X.select_dtypes("number").to_numpy(dtype=float, na_value=np.nan)
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "fc":
        return None
    # In blocks, so that a memory map of the whole pool is never held at once.
    step = max(1, 2**24 // max(1, X[:1].size))
    for start in range(0, len(X), step):
        block = X[start : start + step]
        finite = np.isfinite(block)
        if not finite.all():
            return start + int((~finite.reshape(len(block), -1).all(axis=1)).argmax())
    return None


def check_same_features(X_pool: Any, X_labeled: Any) -> None:
    """Check that samples have rows of one shape with those that are labelled.

    Parameters
    ----------
    X_pool, X_labeled : samples
        As users pass them: a pool, or samples to be taught, and those that are labelled.

    Raises
    ------
    InvalidInputError
        If the shapes of a row differ.
    """
    pool, labeled = (_row_shape(X) for X in (X_pool, X_labeled))
    if pool is not None and labeled is not None and pool != labeled:
        remedy = "Pass all samples through the same preparation."
        got = f"shape {pool}" if pool else "single numbers"
        raise expected(f"samples of shape {labeled}, as the training set has", got, remedy)


def _row_shape(X: Any) -> tuple[int, ...] | None:
    shape = None if is_dataset(X) else getattr(X, "shape", None)
    return None if shape is None or len(shape) == 0 else tuple(int(n) for n in shape[1:])
