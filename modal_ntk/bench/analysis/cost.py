"""What a query will cost, before it starts: queries that were measured, and the speed of the machine."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.machine import Speed
from modal_ntk.checks.files import reading

TABLE = Path(__file__).with_name("growth.csv")
"""Queries measured by ``tests/benchmarks/growth.py``, one a line."""

USUAL = {"columns": 64, "picks": 20, "classes": 10, "labels": 100}
"""What was measured with every number of rows; each was varied alone besides, at one of these."""

_ASKED = ("rows", *USUAL)
_MEASURED = ("seconds", "peak_bytes", "before_bytes", *Speed._fields)
_FLOAT = 4  # bytes


class Growth(NamedTuple):
    """How a cost grows with the rows, and with what else is asked for.

    Parameters
    ----------
    rows : tuple of int (k,)
        Numbers of rows that were measured, ascending; two at least.
    costs : tuple of float (k,)
        What each cost, as usual in all else; positive.
    powers : dict of str to float, default={}
        Exponents of columns, picks, classes and labels.
    """

    rows: tuple[int, ...]
    costs: tuple[float, ...]
    powers: Mapping[str, float] = MappingProxyType({})

    @property
    def exponent(self) -> float:
        """That of the rows, by least squares of logarithms, over sizes above a tenth of the largest, two at least.

        Examples
        --------
        >>> round(Growth((1_000, 10_000, 100_000), (1.0, 3.0, 300.0)).exponent, 6)
        2.0
        """
        last = max(2, sum(10 * n > self.rows[-1] for n in self.rows))
        slope = np.polyfit(np.log(self.rows[-last:]), np.log(self.costs[-last:]), 1)[0]
        return max(float(slope), 0.0)  # less for more is chance

    def at(self, rows: int, asked: Mapping[str, int] = USUAL) -> float:
        """Return the cost of so many rows.

        Parameters
        ----------
        rows : int
            Their number.
        asked : dict of str to int, default=USUAL
            What else is asked for.

        Returns
        -------
        float
            Along straight lines between the logarithms of what was measured; that of the fewest rows below them, and
            from the most on by the exponent.

        Examples
        --------
        >>> growth = Growth((1_000, 10_000, 100_000), (1.0, 3.0, 300.0))
        >>> [round(growth.at(rows), 3) for rows in (10, 1_000, 31_623, 1_000_000)]
        [1.0, 1.0, 30.0, 30000.0]
        """
        n, costs = np.log(self.rows), np.log(self.costs)
        beyond = self.exponent * max(np.log(rows) - n[-1], 0.0)
        scale = math.prod((asked[name] / USUAL[name]) ** power for name, power in self.powers.items())
        return float(np.exp(np.interp(np.log(rows), n, costs) + beyond)) * scale


class _Measured(NamedTuple):
    # What a table says of a strategy.
    seconds: Growth
    work: Growth  # bytes beside the process and the pool
    refused: str  # what the smallest size that could not be run ended with


@dataclass(frozen=True)
class Cost:
    """What a query is expected to cost.

    Parameters
    ----------
    strategy : str
        Its name.
    rows : int
        Samples in the pool.
    seconds : float
        On one core of this machine.
    work : float
        Bytes held at the peak, beside the process and the pool.
    pool : float
        Bytes of the pool, if it is in memory as float32.
    process : float
        Bytes of the process before, with torch loaded.
    exponent, work_exponent : float
        Of the rows in seconds and work, over the largest sizes that were measured.
    largest : int
        Most rows that were measured; beyond them the exponents are trusted.
    refused : str
        How the next larger size ended where it could not be run; empty if none was.
    """

    strategy: str
    rows: int
    seconds: float
    work: float
    pool: float
    process: float
    exponent: float
    work_exponent: float
    largest: int
    refused: str = ""

    @property
    def peak(self) -> float:
        """Bytes of the whole process at its peak."""
        return self.process + self.pool + self.work

    def __str__(self) -> str:
        """Return one line."""
        seconds = f"{self.seconds:.2f}" if self.seconds < 10 else f"{self.seconds:,.0f}"
        costs = f"{seconds} s, {self.peak / 2**30:.1f} GiB"
        text = f"{self.strategy}: {costs}; seconds grow as rows^{self.exponent:.2f}"
        if self.rows <= self.largest:
            return text
        return f"{text}, measured to {self.largest:,} rows" + (f" ({self.refused} beyond)" if self.refused else "")


class _Known(NamedTuple):
    # What a table says.
    machine: Speed
    process: float
    strategies: dict[str, _Measured]


def estimate_cost(
    strategy: str,
    rows: int,
    *,
    columns: int = USUAL["columns"],
    picks: int = USUAL["picks"],
    classes: int = USUAL["classes"],
    labels: int = USUAL["labels"],
    machine: Speed | None = None,
    table: str | os.PathLike[str] = TABLE,
) -> Cost:
    """Tell what a query will cost, without running it.

    Parameters
    ----------
    strategy : str
        Name of one that comes with the package, with its defaults; `measured_strategies` lists them.
    rows : int
        Samples in the pool.
    columns : int, default=64
        Numbers in a sample.
    picks : int, default=20
        Samples asked for.
    classes : int, default=10
        Outputs of the net.
    labels : int, default=100
        Labelled samples.
    machine : Speed, optional
        Of the machine in question; this one is measured by default, in a fraction of a second.
    table : str or path, optional
        Queries measured by ``tests/benchmarks/growth.py``, of your machine or your strategies; those that come with the
        package by default.

    Returns
    -------
    Cost
        Seconds and bytes.

    Raises
    ------
    UnknownNameError
        If the strategy was not measured.
    InvalidInputError
        If a number is none, more samples are asked for than there are, or the file holds no such table.

    Notes
    -----
    Queries were measured on one core, with as many rows as each strategy goes to. Between two sizes the cost is taken
    to be a power of the rows; from the largest on it grows by the exponent of the largest sizes. Columns, picks,
    classes and labels enter as powers too, each measured by one query with four times as many. Seconds are scaled by
    how long two pieces of work take here and took there. The net has one hidden layer of 64 units: add what a larger
    one takes to pass the pool. Threads beside the first are not counted on.

    Examples
    --------
    >>> few, many = (estimate_cost("coreset", rows) for rows in (1_000, 1_000_000))
    >>> few.seconds < many.seconds, few.peak < many.peak
    (True, True)
    """
    known = _known(Path(table))
    if strategy not in known.strategies:
        raise checks.unknown_name("measured strategy", strategy, list(known.strategies))
    asked = {"columns": columns, "picks": picks, "classes": classes, "labels": labels}
    asked = {name: checks.check_integer(name, value) for name, value in asked.items()}
    n, found = checks.check_integer("rows", rows), known.strategies[strategy]
    if asked["picks"] > n:
        raise checks.expected(f"picks of at most the pool's {n} rows", f"{picks}", "Ask for fewer.")
    slower = (Speed.measured() if machine is None else machine).relative_to(known.machine)
    return Cost(
        strategy,
        n,
        slower * found.seconds.at(n, asked),
        found.work.at(n, asked),
        float(_FLOAT * n * columns),
        known.process,
        found.seconds.exponent,
        found.work.exponent,
        found.seconds.rows[-1],
        found.refused,
    )


def measured_strategies(table: str | os.PathLike[str] = TABLE) -> list[str]:
    """Return the strategies whose cost is known.

    Parameters
    ----------
    table : str or path, optional
        As for `estimate_cost`.

    Returns
    -------
    list of str
        Names, sorted.

    Examples
    --------
    >>> "ddal" in measured_strategies()
    True
    """
    return sorted(_known(Path(table)).strategies)


def read_table(path: str | os.PathLike[str] = TABLE) -> list[dict[str, str]]:
    """Read measured queries.

    Parameters
    ----------
    path : str or path
        A table of ``tests/benchmarks/growth.py``.

    Returns
    -------
    list of dict
        One for each line.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    remedy = "Pass a file that tests/benchmarks/growth.py wrote."
    with reading("a table of measured queries", remedy), Path(path).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
        for line in lines:
            numbers: dict[str, float] = {name: int(line[name]) for name in _ASKED}
            numbers |= {name: float(line[name]) for name in _MEASURED if not line["error"]}
            wrong = [name for name, value in numbers.items() if not 0 < value < float("inf")]
            if wrong:
                raise ValueError(f"{wrong[0]} of {line[wrong[0]]}")
        if all(line["error"] for line in lines):
            raise ValueError("no query in it")
    return lines


@lru_cache(maxsize=4)
def _known(path: Path) -> _Known:
    lines = read_table(path)
    good = [line for line in lines if not line["error"]]
    machine = Speed(*(float(np.median([float(line[what]) for line in good])) for what in Speed._fields))
    pools = [_FLOAT * int(line["rows"]) * int(line["columns"]) for line in good]
    process = float(np.median([float(line["before_bytes"]) - pool for line, pool in zip(good, pools, strict=True)]))
    own = {name: [line for line in lines if line["strategy"] == name] for name in {line["strategy"] for line in good}}
    measured = {name: found for name, some in own.items() if (found := _measured(some)) is not None}
    return _Known(machine, process, measured)


def _measured(lines: list[dict[str, str]]) -> _Measured | None:
    lines = sorted(lines, key=lambda line: int(line["rows"]))
    done = [line for line in lines if not line["error"]]
    if sum(not _varied(line) for line in done) < 2:
        return None  # one size tells no growth
    refused = [line["error"] for line in lines if line["error"] and not _varied(line)]
    return _Measured(_growth(done, _seconds), _growth(done, _work), refused[0] if refused else "")


def _varied(line: dict[str, str]) -> list[str]:
    # What was not as usual.
    return [name for name, value in USUAL.items() if int(line[name]) != value]


def _growth(lines: list[dict[str, str]], cost: Callable[[dict[str, str]], float]) -> Growth:
    usual = [line for line in lines if not _varied(line)]
    growth = Growth(tuple(int(line["rows"]) for line in usual), tuple(map(cost, usual)))
    powers = {}
    for line in lines:  # the most rows come last and stay
        if len(varied := _varied(line)) == 1:
            more = int(line[varied[0]]) / USUAL[varied[0]]
            power = np.log(cost(line) / growth.at(int(line["rows"]))) / np.log(more)
            powers[varied[0]] = max(float(power), 0.0)
    return growth._replace(powers=powers)


def _seconds(line: dict[str, str]) -> float:
    return float(line["seconds"])


def _work(line: dict[str, str]) -> float:
    # What is held at the peak beside what was there before; less than this is chance.
    return max(float(line["peak_bytes"]) - float(line["before_bytes"]), 2.0**20)
