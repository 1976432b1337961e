"""What comes back from strategies and models, checked before anybody goes on with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modal_ntk.checks.wording import expected
from modal_ntk.errors import ContractError


def check_picks(name: str, indices: Any, n_instances: int, n_pool: int) -> np.ndarray:
    """Return what a strategy chose as int64, after checking that it is what was asked for.

    Parameters
    ----------
    name : str
        Of the strategy.
    indices : array-like
        What it returned.
    n_instances : int
        How many it was asked for.
    n_pool : int
        Number of samples in the pool.

    Returns
    -------
    numpy.ndarray (n_instances,), int64
        The positions.

    Raises
    ------
    ContractError
        If they are not `n_instances` different positions in the pool: a batch is never shortened silently.

    Examples
    --------
    >>> check_picks("Margin", [3, 1], 2, 5)
    array([3, 1])
    """
    picks = np.asarray(indices)
    if picks.ndim != 1 or len(picks) != n_instances or picks.dtype.kind not in "iu":
        got = f"{picks.dtype} of shape {picks.shape}"
    elif picks.min() < 0 or picks.max() >= n_pool:
        got = f"positions from {picks.min()} to {picks.max()}"
    elif len(np.unique(picks)) < n_instances:
        values, counts = np.unique(picks, return_counts=True)
        got = f"position {values[counts.argmax()]} {counts.max()} times"
    else:
        return picks.astype(np.int64)
    raise ContractError(f"Expected {name} to choose {n_instances} different positions below {n_pool}, got {got}.")


def check_outputs(what: str, values: Any, bad: np.ndarray) -> Any:
    """Return what a model gave for samples, after checking that none of it is out of bounds.

    Parameters
    ----------
    what : str
        What it is, such as "outputs of the net".
    values : array or Tensor (n, ...)
        The values.
    bad : numpy.ndarray (n,), bool
        Which rows hold what they must not: NaN, or infinity.

    Returns
    -------
    array or Tensor (n, ...)
        `values`, unchanged.

    Raises
    ------
    InvalidInputError
        If any does; says from which row on.
    """
    if not bad.any():
        return values
    first = int(bad.argmax())
    kind = "NaN" if np.isnan(np.asarray(values[first].tolist(), dtype=np.float64)).any() else "infinity"
    where = f"from row {first} on" if bad[first:].all() else f"in {int(bad.sum())} of {len(bad)} rows, first in {first}"
    remedy = "Its training has diverged: lower the learning rate or scale the inputs, and fit again."
    raise expected(f"finite {what}", f"{kind} {where}", remedy)
