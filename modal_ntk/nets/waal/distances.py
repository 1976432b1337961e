"""Distances between two samples on the line: how well a query covers what it was drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from modal_ntk import checks


def wasserstein_1d(x: Any, y: Any) -> float:
    """Return the Wasserstein-1 distance between two samples on the line.

    Parameters
    ----------
    x, y : array-like (n,), (m,)
        Numbers.

    Returns
    -------
    float
        The area between the two distribution functions, in units of the data.

    Examples
    --------
    >>> wasserstein_1d([0.0, 1.0], [2.0, 3.0])
    2.0
    """
    return float(stats.wasserstein_distance(_on_the_line("x", x), _on_the_line("y", y)))


def h_divergence_1d(x: Any, y: Any, *, balanced: bool = False) -> float:
    """Return the divergence that the best threshold sees between two samples on the line.

    Parameters
    ----------
    x, y : array-like (n,), (m,)
        Numbers.
    balanced : bool, default=False
        False: every sample weighs the same, as in the paper's example, where the smaller set is the rarer
        one. True: each set weighs one half.

    Returns
    -------
    float
        1 - 2 e in [0, 1], e being the least error with which a threshold, in either direction, tells the
        sets apart.

    Notes
    -----
    Ben-David et al. (2010), with thresholds as the class of classifiers; compared with `wasserstein_1d` in
    Shui et al., section 2.3 and appendix C, where it fails to see which query is the more diverse. That
    failure is one of the unbalanced form: it comes from the constant classifier being the best one.

    Examples
    --------
    >>> h_divergence_1d([0.0, 1.0], [2.0, 3.0]), h_divergence_1d([0.0, 1.0], [0.0, 1.0])
    (1.0, 0.0)
    """
    x, y = _on_the_line("x", x), _on_the_line("y", y)
    weights = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))]) / 2
    if not balanced:
        weights[:] = 1 / len(weights)
    values = np.concatenate([x, y])
    from_y = np.repeat([False, True], [len(x), len(y)])
    order = np.argsort(values, kind="stable")
    steps = np.where(from_y, weights, -weights)[order]
    # Error of calling "y" all from a threshold on: before the first value, then between any two unequal ones.
    errors = weights[~from_y].sum() + np.concatenate([[0.0], np.cumsum(steps)])
    errors = errors[np.concatenate([[True], np.diff(values[order]) > 0, [True]])]
    return float(1 - 2 * min(errors.min(), 1 - errors.max()))


def _on_the_line(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        got = f"an array of shape {array.shape}" + ("" if np.isfinite(array).all() else " with NaN or infinity")
        raise checks.expected(f"{name} to be a sample of finite numbers (n,)", got, "Pass one column at a time.")
    return array
