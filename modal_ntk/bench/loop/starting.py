"""Where a replay of labelling starts: from the first labels, or after rounds that were run before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.loop.rounds import Round


def initial_rows(
    y: np.ndarray, classes: np.ndarray, initial: str, n_initial: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Draw the rows that are labelled before the first query.

    Parameters
    ----------
    y : numpy.ndarray (n,) or (n, K)
        Labels of the whole pool.
    classes : numpy.ndarray (C,)
        Those there are.
    initial : str
        As for `SimulatedActiveLearning`.
    n_initial : int
        How many.
    rng : numpy.random.Generator
        What draws; as much of it is used whatever `initial` is.

    Returns
    -------
    numpy.ndarray (n_initial,), int64, or None
        The rows; None where the strategy chooses them.
    """
    order = rng.permutation(len(y))
    if initial == "query":
        return None
    if initial == "stratified" and y.ndim > 1:
        raise checks.expected("one label per sample to stratify by", "labels in a matrix", 'Use initial="random".')
    if initial == "stratified":
        # Each row's rank within its class, in shuffled order: all firsts come before all seconds.
        ranks = np.empty(len(y), np.int64)
        for label in classes:
            members = order[y[order] == label]
            ranks[members] = np.arange(len(members))
        order = order[np.argsort(ranks[order], kind="stable")]
    return order[:n_initial].astype(np.int64)


def belongs(past: Sequence[Round], steps: list[int], n: int, seeds: np.ndarray, first_rows: np.ndarray | None) -> bool:
    """Tell whether rounds that were run before are the first ones of a replay.

    Parameters
    ----------
    past : sequence of Round
        The rounds.
    steps : list of int
        Labels added by each round of the replay.
    n : int
        Size of the pool.
    seeds : numpy.ndarray (r, 2)
        The replay's seeds, the fit's of each round first.
    first_rows : numpy.ndarray or None
        Its first rows, where no strategy chooses them.

    Returns
    -------
    bool
        Whether sizes, seeds and rows are those.
    """
    if not past or len(past) > len(steps):
        return False
    rows = np.concatenate([entry.indices for entry in past])
    return (
        [len(entry.indices) for entry in past] == steps[: len(past)]
        and [entry.fit_seed for entry in past] == seeds[: len(past), 0].tolist()
        and len(np.unique(rows)) == len(rows)
        and rows.min() >= 0
        and rows.max() < n
        and (first_rows is None or np.array_equal(past[0].indices, first_rows))
    )


def has_state(strategy: Any) -> bool:
    """Tell whether a strategy keeps what no round tells, so that rounds run before do not bring it to where it was.

    Parameters
    ----------
    strategy : callable
        Any strategy.

    Returns
    -------
    bool
        True where it has attributes beside its parameters and its latest choice, as a bandit has its weights; those do
        not count that it could make again, as DDAL its graph.

    Examples
    --------
    >>> from modal_ntk import Margin
    >>> has_state(Margin())
    False
    """
    known = set(strategy.get_params(deep=False)) if hasattr(strategy, "get_params") else set()
    remade = getattr(strategy, "_remade", frozenset[str]())
    return bool(set(getattr(strategy, "__dict__", {})) - known - remade - {"last_selection_"})
