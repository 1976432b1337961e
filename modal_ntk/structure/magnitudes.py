"""Rows in a type that holds the squares of their distances, whatever the rows' own size."""

from __future__ import annotations

from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.environment.late import torch
from modal_ntk.errors import InvalidInputError

# Exponents of the largest entry. Squared differences, summed over columns and rows, then stay far from the ends of the
# type, and differences in the last digit do not vanish when squared.
_SINGLE, _MOST = (-40, 40), 400


def measurable(*matrices: Any) -> Any:
    """Return matrices whose squared distances neither overflow nor vanish: float64 where float32 is too narrow.

    Parameters
    ----------
    *matrices : numpy.ndarray or Tensor (n, d), float32 or float64
        Rows that are compared with one another.

    Returns
    -------
    list of numpy.ndarray or Tensor, or one of them
        As given, in one type: that of the first, but float64 where the largest entry is beyond 2**40 or below 2**-40.

    Raises
    ------
    InvalidInputError
        If an entry is NaN or infinite, or the largest is too large or too small even for float64.

    Notes
    -----
    One pass over the entries. In float32, rows that differ by less than some 1e-19 of the largest are at distance zero.

    Examples
    --------
    >>> measurable(np.array([[3e38], [1.0]], np.float32)).dtype, measurable(np.ones((2, 2), np.float32)).dtype
    (dtype('float64'), dtype('float32'))
    """
    largest = max(largest_entry(matrix) for matrix in matrices)
    if largest > 0 and np.frexp(largest)[1] < -_MOST:
        raise _beyond_float64(largest)
    name = "float64" if needs_double(largest) else str(matrices[0].dtype).removeprefix("torch.")
    found = [_as_type(matrix, name) for matrix in matrices]
    return found[0] if len(found) == 1 else found


def needs_double(largest: float) -> bool:
    """Say whether float32 is too narrow for the squared distances of rows with this largest entry.

    Parameters
    ----------
    largest : float
        The largest absolute value.

    Returns
    -------
    bool
        Whether it is.

    Raises
    ------
    InvalidInputError
        If it is too large for float64 as well.
    """
    exponent = int(np.frexp(largest)[1])
    if exponent > _MOST:
        raise _beyond_float64(largest)
    return largest > 0 and not _SINGLE[0] <= exponent <= _SINGLE[1]


def _beyond_float64(largest: float) -> InvalidInputError:
    remedy = "Scale the features: divide them by their largest."
    return checks.expected("rows whose distances float64 can square", f"a largest entry of {largest:.3g}", remedy)


def largest_entry(matrix: Any) -> float:
    """Return the largest absolute value of a matrix, after checking that all are finite.

    Parameters
    ----------
    matrix : numpy.ndarray or Tensor (n, d)
        Numbers.

    Returns
    -------
    float
        Zero for a matrix without entries.

    Raises
    ------
    InvalidInputError
        If an entry is NaN or infinite; names the first such row.
    """
    if 0 in tuple(matrix.shape):
        return 0.0
    is_tensor = isinstance(matrix, torch.Tensor)
    low, high = (float(x) for x in (matrix.detach().aminmax() if is_tensor else (matrix.min(), matrix.max())))
    if not np.isfinite([low, high]).all():
        finite = (matrix.isfinite().cpu().numpy() if is_tensor else np.isfinite(matrix)).all(axis=1)
        remedy = "Check the net's weights, or impute or drop such rows."
        raise checks.expected("rows of finite numbers", f"NaN or infinity, first in row {finite.argmin()}", remedy)
    return max(-low, high)


def _as_type(matrix: Any, name: str) -> Any:
    return matrix.to(getattr(torch, name)) if isinstance(matrix, torch.Tensor) else matrix.astype(name, copy=False)


def unit_rows(X: Any) -> Any:
    """Return rows scaled to length one, however long or short they are; a row of zeros stays.

    Parameters
    ----------
    X : numpy.ndarray (n, d), float32 or float64
        Rows of finite numbers; not changed.

    Returns
    -------
    numpy.ndarray (n, d)
        In their type.

    Examples
    --------
    >>> unit_rows(np.array([[3e38, 0.0], [3e-30, 4e-30], [0.0, 0.0]], np.float32)).round(3).tolist()
    [[1.0, 0.0], [0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    # By the largest entry first, so that no square overflows or vanishes; by a power of two, which changes no digit.
    exponents = np.frexp(np.abs(X).max(axis=1, keepdims=True, initial=0))[1]
    scaled = np.ldexp(X, -exponents)
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    return scaled / np.where(lengths > 0, lengths, 1)
