"""One round of a simulation, and the row that it is in a store."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modal_ntk.bench.loop.memory import Peak

DRAWN = ("random", "stratified")
"""How the first labels of a replay are chosen without asking the strategy."""
INITIAL = (*DRAWN, "query", "query_or_random")
"""How they can be chosen."""


@dataclass(frozen=True)
class Round:
    """One round of a simulation.

    Parameters
    ----------
    n_labels : int
        Labels after the round's query.
    score : float
        Score of the estimator fitted to them.
    query_seconds, fit_seconds : float
        Time of the query (zero for the initial labels) and of the fit.
    indices : numpy.ndarray (b,), int64
        Rows labelled in this round.
    scores : numpy.ndarray (b,) or None
        The strategy's scores of these rows; None for initial labels and for strategies that keep none.
    metrics : dict of str to float
        Further scores, by name.
    fit_seed : int
        Seed of the fit.
    peak : Peak
        Most memory held while querying and fitting.
    """

    n_labels: int
    score: float
    query_seconds: float
    fit_seconds: float
    # A list of rounds is printed in a notebook: the rows would bury the rest.
    indices: np.ndarray = field(repr=False)
    scores: np.ndarray | None = field(default=None, repr=False)
    metrics: dict[str, float] = field(default_factory=dict)
    fit_seed: int = 0
    peak: Peak = field(default=Peak(), repr=False)


@dataclass(frozen=True)
class Row:
    """One round of one cell, as stored.

    Parameters
    ----------
    strategy : str
        Name and parameters of the strategy.
    seed : int
        Seed of the cell.
    round : int
        Zero is the fit on the initial labels.
    n_labels : int
        Labels after the round's query.
    score : float
        Score on the test set.
    query_seconds, fit_seconds : float
        Times.
    indices : tuple of int
        Rows of the pool labelled in the round.
    scores : tuple of float or None
        The strategy's scores of these; None where there are none.
    metrics : dict of str to float
        Further scores, by name.
    fit_seed : int or None
        Seed of the fit; None in stores of early versions, which kept no details.
    peak_memory, peak_gpu_memory : int or None
        Most bytes held by the process and by torch on its GPU; None where unknown.
    """

    strategy: str
    seed: int
    round: int
    n_labels: int
    score: float
    query_seconds: float
    fit_seconds: float
    indices: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    fit_seed: int | None = None
    peak_memory: int | None = None
    peak_gpu_memory: int | None = None

    @property
    def result(self) -> tuple[Any, ...]:
        """All that the same cell run again must equal: everything but times and memory."""
        cell = (self.strategy, self.seed, self.round, self.n_labels)
        return (*cell, self.score, self.indices, self.scores, self.metrics, self.fit_seed)


def row_of(strategy: str, seed: int, number: int, r: Round) -> Row:
    """Return a round as it comes out of a store.

    Parameters
    ----------
    strategy : str
        Name and parameters of the strategy.
    seed, number : int
        Seed of the cell, and place of the round in it.
    r : Round
        The round.

    Returns
    -------
    Row
        Equal to what `Store.rows` gives once it is stored.
    """
    return row_from(columns_of(strategy, seed, number, r))


def columns_of(strategy: str, seed: int, number: int, r: Round) -> tuple[Any, ...]:
    """Return the columns of a round as a store has them: eight of the table of rounds, then those of its details."""
    times = (float(r.query_seconds), float(r.fit_seconds))
    indices = json.dumps(r.indices.tolist())
    scores = json.dumps(None if r.scores is None else [float(x) for x in r.scores])
    details = (scores, json.dumps(r.metrics, sort_keys=True), r.fit_seed, r.peak.host, r.peak.gpu)
    return (strategy, seed, number, r.n_labels, r.score, *times, indices, *details)


def text_of(entry: Round) -> str:
    """Return a round as JSON."""
    return json.dumps({**dataclasses.asdict(entry), "peak": list(entry.peak)}, default=np.ndarray.tolist)


def round_of(text: str) -> Round:
    """Return the round that `text_of` wrote."""
    values = json.loads(text)
    counts = (values["n_labels"], values["fit_seed"], *values["indices"])
    if not all(type(value) is int and 0 <= value < 2**63 for value in counts):
        raise ValueError("a round whose counts are no counts")
    scores = None if values["scores"] is None else np.array(values["scores"], dtype=np.float64)
    indices = np.array(values["indices"], dtype=np.int64)
    return Round(**{**values, "scores": scores, "indices": indices, "peak": Peak(*values["peak"])})


def round_from(row: Row) -> Round:
    """Return a stored row as the round that it was."""
    times = (row.query_seconds, row.fit_seconds)
    scores = None if row.scores is None else np.array(row.scores, dtype=np.float64)
    peak = Peak(row.peak_memory, row.peak_gpu_memory)
    indices = np.array(row.indices, dtype=np.int64)
    return Round(row.n_labels, row.score, *times, indices, scores, row.metrics, row.fit_seed or 0, peak)


def row_from(values: tuple[Any, ...]) -> Row:
    """Return a row from the columns of rounds and details, of whatever types they are."""
    # SQLite keeps values of any type in any column.
    strategy, *numbers, indices = values[:8]
    seed, round_, n_labels = (_counted(n) for n in numbers[:3])
    score, query_seconds, fit_seconds = (_finite(x) for x in numbers[3:])
    labelled = tuple(_counted(i) for i in json.loads(indices))
    known = (str(strategy), seed, round_, n_labels, score, query_seconds, fit_seconds, labelled)
    if values[8] is None:
        return Row(*known)
    scores, metrics = json.loads(values[8]), json.loads(values[9])
    by_row = None if scores is None else tuple(float(x) for x in scores)
    counts = (None if n is None else _counted(n) for n in values[10:])
    return Row(*known, by_row, {str(name): float(value) for name, value in metrics.items()}, *counts)


def _counted(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r}, which is no count")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{value!r}, which is no finite number")
    return number
