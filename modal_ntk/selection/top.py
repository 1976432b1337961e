"""The best of a vector of scores, ties broken by seed."""

from __future__ import annotations

import numpy as np

from modal_ntk import checks


def top_b(scores: np.ndarray, n_instances: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of the largest scores, best first.

    Parameters
    ----------
    scores : numpy.ndarray (n,)
        Acquisition values; infinite ones are the largest or smallest.
    n_instances : int
        How many to take, at most n.
    rng : numpy.random.Generator
        Orders equal scores.

    Returns
    -------
    numpy.ndarray (b,), int64
        Unique positions in order of falling score.

    Raises
    ------
    InvalidInputError
        If a score is NaN.

    Examples
    --------
    >>> top_b(np.array([0.1, 0.7, 0.3]), 2, rng=np.random.default_rng(0)).tolist()
    [1, 2]
    """
    _check(scores)
    keys = rng.random(len(scores))
    # Only what can be chosen is sorted: on large pools that is most of the time.
    least = np.partition(scores, len(scores) - n_instances)[len(scores) - n_instances]
    above, tied = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    n_tied = n_instances - len(above)
    if n_tied < len(tied):
        tied = tied[np.argpartition(keys[tied], n_tied)[:n_tied]]
    chosen = np.concatenate([above, tied])
    return chosen[np.lexsort((keys[chosen], -scores[chosen]))].astype(np.int64)


def best(scores: np.ndarray) -> np.ndarray:
    """Return the positions of all scores equal to the largest.

    Parameters
    ----------
    scores : numpy.ndarray (n,)
        Acquisition values; infinite ones are the largest or smallest.

    Returns
    -------
    numpy.ndarray (t,), int64
        In rising order.

    Raises
    ------
    InvalidInputError
        If a score is NaN.

    Examples
    --------
    >>> best(np.array([2.0, 1.0, 2.0])).tolist()
    [0, 2]
    """
    _check(scores)
    return np.flatnonzero(scores == scores.max()).astype(np.int64)


def _check(scores: np.ndarray) -> None:
    # NaN is no largest and no equal: without this a choice would be short or empty.
    if (bad := np.isnan(scores)).any():
        got = f"NaN for {int(bad.sum())} of {len(scores)} rows, first for row {int(bad.argmax())}"
        raise checks.expected("scores without NaN", got, "Check the model's outputs for that row.")
