"""What curves over seeds say: means, areas, labels saved.

Scores are taken to be better the higher they are, as scikit-learn's scorers have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modal_ntk import checks

BASELINE = "random_sampling"
AUBC = (
    "area under the budget curve: trapezoids over the number of labels, divided by the span of labels, so that a "
    "constant curve has its constant for area"
)


@dataclass(frozen=True)
class Curves:
    """The curves of one strategy, one row for each seed.

    Parameters
    ----------
    strategy : str
        Its name.
    seeds : tuple of int
        The seeds, ascending.
    budgets : numpy.ndarray (n_budgets,), int64
        Numbers of labels, ascending: those that every seed has reached.
    scores, query_seconds, fit_seconds : numpy.ndarray (n_seeds, n_budgets)
        Score and times at each.
    """

    strategy: str
    seeds: tuple[int, ...]
    budgets: np.ndarray
    scores: np.ndarray
    query_seconds: np.ndarray
    fit_seconds: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean score over the seeds, (n_budgets,)."""
        return self.scores.mean(axis=0)

    @property
    def deviation(self) -> np.ndarray:
        """Sample standard deviation over the seeds, (n_budgets,); NaN for a single seed."""
        return deviation(self.scores)

    @property
    def areas(self) -> np.ndarray:
        """`aubc` of each seed, (n_seeds,)."""
        return np.array([aubc(self.budgets, row) for row in self.scores])


def curves(rows: Iterable[Any]) -> dict[str, Curves]:
    """Arrange the rows of one or more stores by strategy and seed.

    Parameters
    ----------
    rows : iterable of Row
        As `Store.rows` returns them, in any order.

    Returns
    -------
    dict of str to Curves
        By name of strategy, in alphabetical order.

    Raises
    ------
    InvalidInputError
        If the seeds of a strategy have no number of labels in common, or the same cell comes twice.
    """
    cells: dict[str, dict[int, dict[int, tuple[float, float, float]]]] = {}
    for row in rows:
        cell = cells.setdefault(row.strategy, {}).setdefault(row.seed, {})
        if row.n_labels in cell:
            got = f"two for {row.strategy}, seed {row.seed}, {row.n_labels} labels"
            raise checks.expected("one row for each number of labels", got, "Pass each store once.")
        cell[row.n_labels] = row.score, row.query_seconds, row.fit_seconds
    return {strategy: _arranged(strategy, cells[strategy]) for strategy in sorted(cells)}


def _arranged(strategy: str, by_seed: dict[int, dict[int, tuple[float, float, float]]]) -> Curves:
    budgets = sorted(set.intersection(*(set(cell) for cell in by_seed.values())))
    if not budgets:
        remedy = "Report runs of one schedule."
        raise checks.expected(f"numbers of labels that all seeds of {strategy} share", "none", remedy)
    seeds = tuple(sorted(by_seed))
    values = np.array([[by_seed[seed][n] for n in budgets] for seed in seeds])
    return Curves(strategy, seeds, np.array(budgets, np.int64), *np.moveaxis(values, 2, 0))


def deviation(scores: np.ndarray) -> np.ndarray:
    """Return the sample standard deviation over seeds.

    Parameters
    ----------
    scores : numpy.ndarray (n_seeds, ...)
        One row for each seed.

    Returns
    -------
    numpy.ndarray (...)
        With n - 1 in the denominator; NaN for a single seed, which shows none.

    Examples
    --------
    >>> deviation(np.array([[0.1], [0.3], [0.8]])).round(4)
    array([0.3606])
    """
    if len(scores) < 2:
        return np.full(np.shape(scores)[1:], np.nan)
    return np.asarray(np.std(scores, axis=0, ddof=1))


def aubc(budgets: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the budget curve.

    Parameters
    ----------
    budgets : array-like (n_budgets,)
        Numbers of labels, ascending, steps of any size.
    scores : array-like (n_budgets,)
        The score at each.

    Returns
    -------
    float
        Trapezoids over the labels, divided by the span of labels; a single budget gives its score.

    Examples
    --------
    >>> aubc([20, 40, 100], [0.5, 0.7, 0.9])
    0.75
    """
    x, y = np.asarray(budgets, float), np.asarray(scores, float)
    if len(x) == 1:
        return float(y[0])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def labels_to_reach(budgets: np.ndarray, scores: np.ndarray, target: float) -> float:
    """Return how many labels a curve takes to reach a score for the first time.

    Parameters
    ----------
    budgets, scores : array-like (n_budgets,)
        The curve; straight between its points.
    target : float
        The score to reach.

    Returns
    -------
    float
        Number of labels; the first budget if it is there at once, NaN if it never is.

    Examples
    --------
    >>> labels_to_reach([20, 40, 100], [0.5, 0.75, 1.0], 0.875)
    70.0
    """
    x, y = np.asarray(budgets, float), np.asarray(scores, float)
    # Means of the same scores may differ in their last digit.
    above = np.flatnonzero(y >= target - 1e-12 * max(1.0, abs(target)))
    if not len(above):
        return float("nan")
    i = int(above[0])
    if i == 0:
        return float(x[0])
    return float(np.interp(target, y[i - 1 : i + 1], x[i - 1 : i + 1]))


def speed_up(curve: Curves, baseline: Curves, target: float | None = None) -> float:
    """Return how many times fewer labels a strategy needs than the baseline.

    Parameters
    ----------
    curve, baseline : Curves
        The strategy's and, as a rule, random sampling's; their means are compared.
    target : float, optional
        Score to reach; by default the baseline's last mean.

    Returns
    -------
    float
        The baseline's `labels_to_reach` divided by the strategy's; NaN if either never reaches it.
    """
    goal = float(baseline.mean[-1]) if target is None else target
    return labels_to_reach(baseline.budgets, baseline.mean, goal) / labels_to_reach(curve.budgets, curve.mean, goal)


def effective_budget_ratio(budgets: np.ndarray, scores: np.ndarray, baseline: np.ndarray) -> float:
    """Return the share of the labels at which a strategy is clearly above random.

    Parameters
    ----------
    budgets : array-like (n_budgets,)
        Numbers of labels, ascending.
    scores : numpy.ndarray (n_seeds, n_budgets)
        The strategy's scores.
    baseline : numpy.ndarray (n_seeds of its own, n_budgets)
        Random sampling's scores at the same budgets.

    Returns
    -------
    float
        Between 0 and 1.

    Notes
    -----
    NTKCPL, section 4 and table 2: the labels at which the mean exceeds the baseline's mean plus its standard
    deviation, over all labels. A budget stands for the labels bought since the one before; the deviation of a
    single seed counts as zero.

    Examples
    --------
    >>> random = np.array([[0.4, 0.6, 0.7], [0.6, 0.6, 0.9]])
    >>> effective_budget_ratio([20, 40, 100], np.array([[0.6, 0.7, 0.95]]), random)
    0.8
    """
    bar = baseline.mean(axis=0) + np.nan_to_num(deviation(baseline))
    bought = np.diff(budgets, prepend=0)
    return float(bought[scores.mean(axis=0) > bar].sum() / bought.sum())


def shared(by_strategy: Mapping[str, Curves]) -> dict[str, Curves]:
    """Cut curves down to the numbers of labels and the seeds that all of them have.

    Parameters
    ----------
    by_strategy : dict of str to Curves
        Of two strategies or more.

    Returns
    -------
    dict of str to Curves
        Row for row and column for column comparable, maybe without any.
    """
    if not by_strategy:
        return {}
    budgets = np.array(sorted(set.intersection(*(set(c.budgets.tolist()) for c in by_strategy.values()))), np.int64)
    seeds = sorted(set.intersection(*(set(curve.seeds) for curve in by_strategy.values())))
    return {name: _cut(curve, seeds, budgets) for name, curve in by_strategy.items()}


def _cut(curve: Curves, seeds: Sequence[int], budgets: np.ndarray) -> Curves:
    rows = np.array([curve.seeds.index(seed) for seed in seeds], np.int64)
    at = np.ix_(rows, np.flatnonzero(np.isin(curve.budgets, budgets)))
    parts = (array[at] for array in (curve.scores, curve.query_seconds, curve.fit_seconds))
    return Curves(curve.strategy, tuple(seeds), budgets, *parts)


@dataclass(frozen=True)
class Summary:
    """The figures of one strategy.

    Parameters
    ----------
    strategy : str
        Its name.
    n_seeds, n_labels : int
        Seeds, and labels at the end of the curve.
    area, area_deviation : float
        Mean and sample deviation of `aubc`.
    final, final_deviation : float
        Of the last score.
    labels_to_target : float
        Labels at which the mean reaches the target; NaN if it never does, or there is none.
    speed_up : float
        Times fewer labels than the baseline takes to the target; NaN without a baseline.
    effective_budget_ratio : float
        As the function of that name has it; NaN for the baseline itself and without one.
    query_seconds, fit_seconds : float
        Total of a run, mean over the seeds.
    """

    strategy: str
    n_seeds: int
    n_labels: int
    area: float
    area_deviation: float
    final: float
    final_deviation: float
    labels_to_target: float
    speed_up: float
    effective_budget_ratio: float
    query_seconds: float
    fit_seconds: float


def summarise(
    by_strategy: Mapping[str, Curves], *, baseline: str | None = None, target: float | None = None
) -> dict[str, Summary]:
    """Work out the figures of every strategy.

    Parameters
    ----------
    by_strategy : dict of str to Curves
        As `curves` returns them.
    baseline : str, optional
        What speed-up and effective budget are against; by default `random_sampling`, if there is one.
    target : float, optional
        Score to reach; by default the baseline's last mean.

    Returns
    -------
    dict of str to Summary
        In the same order.

    Raises
    ------
    InvalidInputError
        If there is no strategy of the baseline's name.
    """
    name = find_baseline(by_strategy) if baseline is None else baseline
    if name is not None:
        checks.check_choice("baseline", name, by_strategy)
    reference = None if name is None else by_strategy[name]
    if target is None and reference is not None:
        target = float(reference.mean[-1])
    return {key: _summary(curve, reference, target) for key, curve in by_strategy.items()}


def find_baseline(strategies: Iterable[str]) -> str | None:
    """Return the name of the strategy that is random sampling, with parameters or without.

    Parameters
    ----------
    strategies : iterable of str
        Names, as `modal_ntk.bench.run` takes them.

    Returns
    -------
    str or None
        The plain name before one with parameters; None if there is none.

    Examples
    --------
    >>> find_baseline(["margin", "random_sampling:random_state=1"])
    'random_sampling:random_state=1'
    """
    return min((name for name in strategies if name.split(":")[0] == BASELINE), default=None)


def _summary(curve: Curves, reference: Curves | None, target: float | None) -> Summary:
    ratio = gain = float("nan")
    if reference is not None:
        gain = speed_up(curve, reference, target)
        if reference is not curve:
            # Means are compared here, not pairs: each keeps all of its seeds.
            budgets = np.intersect1d(curve.budgets, reference.budgets)
            ours, theirs = (_cut(one, one.seeds, budgets) for one in (curve, reference))
            ratio = effective_budget_ratio(budgets, ours.scores, theirs.scores) if len(budgets) else ratio
    return Summary(
        strategy=curve.strategy,
        n_seeds=len(curve.seeds),
        n_labels=int(curve.budgets[-1]),
        area=float(curve.areas.mean()),
        area_deviation=float(deviation(curve.areas)),
        final=float(curve.mean[-1]),
        final_deviation=float(curve.deviation[-1]),
        labels_to_target=float("nan") if target is None else labels_to_reach(curve.budgets, curve.mean, target),
        speed_up=gain,
        effective_budget_ratio=ratio,
        query_seconds=float(curve.query_seconds.sum(axis=1).mean()),
        fit_seconds=float(curve.fit_seconds.sum(axis=1).mean()),
    )
