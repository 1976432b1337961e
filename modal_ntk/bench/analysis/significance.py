"""Which differences between strategies are more than chance: paired tests, ranks, and what seeds cannot support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import optimize, stats

from modal_ntk import checks
from modal_ntk.bench.analysis.statistics import Curves, shared

FEW_SEEDS = 5


@dataclass(frozen=True)
class Penalties:
    """Who beats whom how often.

    Parameters
    ----------
    strategies : tuple of str
        Names of rows and columns.
    matrix : numpy.ndarray (k, k)
        Share of the tested budgets at which the strategy of the row is significantly better than that of the
        column; a row with high figures wins, a column with high figures loses.
    n_tests : int
        How many tests the correction was for.
    correction, test : str
        How.
    alpha : float
        Error allowed over all tests together (for each one, without correction).
    """

    strategies: tuple[str, ...]
    matrix: np.ndarray
    n_tests: int
    correction: str
    test: str
    alpha: float


def penalty_matrix(
    by_strategy: Mapping[str, Curves],
    *,
    alpha: float = 0.05,
    correction: Literal["holm", "none"] = "holm",
    test: Literal["t", "wilcoxon"] = "t",
) -> Penalties:
    """Test every pair of strategies at every budget and count the wins.

    Parameters
    ----------
    by_strategy : dict of str to Curves
        As `curves` returns them.
    alpha : float, default=0.05
        Level of significance.
    correction : {"holm", "none"}, default="holm"
        Holm's for all pairs and budgets together, or none, as in BADGE.
    test : {"t", "wilcoxon"}, default="t"
        Paired and two-sided over the seeds that both have.

    Returns
    -------
    Penalties
        The matrix; a cell is zero where nothing could be tested.

    Raises
    ------
    InvalidInputError
        If an option is unknown.

    Notes
    -----
    Ash et al. (2020), figure 4: each significant win adds one over the number of budgets. Budgets at which two
    strategies agree on every seed, as they do on shared initial labels, are no comparison and left out.
    """
    checks.check_choice("correction", correction, ("holm", "none"))
    checks.check_choice("test", test, ("t", "wilcoxon"))
    names = tuple(by_strategy)
    found = [
        (i, j, sign, p)
        for i, j in combinations(range(len(names)), 2)
        for sign, p in _tests(by_strategy[names[i]], by_strategy[names[j]], test)
    ]
    adjusted = holm([p for *_, p in found]) if correction == "holm" else np.array([p for *_, p in found])
    matrix = np.zeros((len(names), len(names)))
    tested = np.zeros_like(matrix)
    for (i, j, sign, _), p in zip(found, adjusted, strict=True):
        tested[i, j] += 1
        tested[j, i] += 1
        if p <= alpha and sign:
            winner, loser = (i, j) if sign > 0 else (j, i)
            matrix[winner, loser] += 1
    return Penalties(names, matrix / np.maximum(tested, 1), len(found), correction, test, alpha)


def _tests(first: Curves, second: Curves, test: str) -> list[tuple[float, float]]:
    # Sign of the mean difference and p at each budget; two seeds are the fewest that have a spread.
    a, b = shared({"a": first, "b": second}).values()
    if len(a.seeds) < 2:
        return []
    differences = (a.scores - b.scores).T
    return [(float(np.sign(d.mean())), _p_value(d, test)) for d in differences if d.any()]


def _p_value(differences: np.ndarray, test: str) -> float:
    if test == "wilcoxon":
        # Without the zeros, which it would drop itself, and which older versions warn of.
        return float(stats.wilcoxon(differences[differences != 0]).pvalue)
    # By hand, since scipy's warns where the differences are all alike: then t is infinite and p zero.
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    if error <= 1e-12 * abs(differences.mean()):
        return 0.0
    return float(2 * stats.t.sf(abs(differences.mean()) / error, len(differences) - 1))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values for being many.

    Parameters
    ----------
    p_values : array-like (m,)
        One for each test.

    Returns
    -------
    numpy.ndarray (m,)
        In the same order; compare them with the level for all tests together.

    Notes
    -----
    Holm (1979): the i-th smallest is multiplied by m - i + 1, made monotone, and cut at one.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3)
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


@dataclass(frozen=True)
class Ranks:
    """Average ranks of strategies.

    Parameters
    ----------
    strategies : tuple of str
        Names.
    average : numpy.ndarray (k,)
        Mean rank over the blocks; one is best, ties share their ranks.
    critical_difference : float
        Average ranks further apart than this differ significantly (Nemenyi).
    p_value : float
        Of Friedman's test that all strategies are alike; NaN for fewer than three, which it does not know.
    n_blocks : int
        Seeds, or data sets, that were ranked.
    """

    strategies: tuple[str, ...]
    average: np.ndarray
    critical_difference: float
    p_value: float
    n_blocks: int


def average_ranks(strategies: Sequence[str], scores: np.ndarray, *, alpha: float = 0.05) -> Ranks:
    """Rank strategies within each block and average.

    Parameters
    ----------
    strategies : sequence of str (k,)
        Names of the columns.
    scores : numpy.ndarray (n_blocks, k)
        The higher the better; as a rule the `aubc` of each seed, or of each data set.
    alpha : float, default=0.05
        Level of the critical difference.

    Returns
    -------
    Ranks
        In the order of `strategies`.

    Notes
    -----
    Demšar (2006): the critical difference is q sqrt(k (k + 1) / (6 n_blocks)), with q the upper quantile of the
    studentised range for k groups and infinite degrees of freedom, divided by the square root of two. Seeds of one
    data set as blocks tell whether the order holds on this data set, not on others.

    Examples
    --------
    >>> average_ranks(["a", "b"], np.array([[0.9, 0.8], [0.7, 0.7]])).average
    array([1.25, 1.75])
    """
    n_blocks, k = scores.shape
    averages = stats.rankdata(-scores, axis=1).mean(axis=0)
    q = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) if k > 1 else 0.0
    alike = k < 3 or n_blocks < 2 or not (scores != scores[:, :1]).any()
    p_value = float("nan") if alike else float(stats.friedmanchisquare(*scores.T).pvalue)
    return Ranks(tuple(strategies), averages, float(q * np.sqrt(k * (k + 1) / (6 * n_blocks))), p_value, n_blocks)


def rank_areas(by_strategy: Mapping[str, Curves], *, alpha: float = 0.05) -> Ranks:
    """Rank strategies by the area under their curve within each seed.

    Parameters
    ----------
    by_strategy : dict of str to Curves
        As `curves` returns them.
    alpha : float, default=0.05
        Level of the critical difference.

    Returns
    -------
    Ranks
        Over the seeds and numbers of labels that all strategies have.

    Raises
    ------
    InvalidInputError
        If there are none.
    """
    found = list(shared(by_strategy).values())
    if not found or not found[0].scores.size:
        remedy = "Let every strategy finish the same seeds."
        raise checks.expected("seeds and numbers of labels that all strategies share", "none", remedy)
    return average_ranks(tuple(by_strategy), np.stack([curve.areas for curve in found], axis=1), alpha=alpha)


def detectable_difference(deviation: float, n_seeds: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the difference between two means that so many paired seeds would show.

    Parameters
    ----------
    deviation : float
        Sample standard deviation of the paired differences.
    n_seeds : int
        Number of pairs.
    alpha : float, default=0.05
        Level of the two-sided paired t-test.
    power : float, default=0.8
        Probability with which the test is to find it.

    Returns
    -------
    float
        In the units of `deviation`; infinite for fewer than two seeds.

    Examples
    --------
    >>> round(detectable_difference(1.0, 34), 1)
    0.5
    """
    if n_seeds < 2:
        return float("inf")
    freedom = n_seeds - 1
    bound = stats.t.ppf(1 - alpha / 2, freedom)
    # The noncentral t as a mean over the scale it is divided by: scipy's own is NaN far out.
    scales = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, freedom) / freedom)

    def missing(shift: float) -> float:
        found = stats.norm.cdf(shift - bound * scales) + stats.norm.cdf(-shift - bound * scales)
        return float(found.mean()) - power

    shift = optimize.brentq(missing, 0.0, 10 * (bound + 5))
    return float(shift * deviation / np.sqrt(n_seeds))


def doubts(by_strategy: Mapping[str, Curves], *, alpha: float = 0.05) -> list[str]:
    """Say what the number of seeds cannot support.

    Parameters
    ----------
    by_strategy : dict of str to Curves
        As `curves` returns them.
    alpha : float, default=0.05
        Level, shared among the comparisons with the best strategy.

    Returns
    -------
    list of str
        One sentence each: too few seeds, seeds that not all strategies have, and every strategy whose area cannot
        be told from that of the best, with the difference that the seeds would have shown. Empty if nothing is
        in doubt.
    """
    found = []
    cut = shared(by_strategy)
    n_seeds = min((len(curve.seeds) for curve in cut.values()), default=0)
    if n_seeds < max(len(curve.seeds) for curve in by_strategy.values()):
        found.append(f"Only {n_seeds} of the seeds are finished for all strategies; only these are compared.")
    if n_seeds < 2:
        return [*found, "Fewer than two seeds shared by all strategies: no difference between them can be tested."]
    if not next(iter(cut.values())).scores.size:
        return [*found, "The strategies have no number of labels in common: their areas cannot be compared."]
    if n_seeds < FEW_SEEDS:
        found.append(f"{n_seeds} seeds are few: deviations are rough, and rankings often turn with other seeds.")
    return found + _rivals(list(cut.values()), alpha)


def _rivals(found: list[Curves], alpha: float) -> list[str]:
    best = max(found, key=lambda curve: curve.areas.mean())
    others = [curve for curve in found if curve is not best]
    differences = [best.areas - curve.areas for curve in others]
    sentences = []
    p_values = holm([_p_value(d, "t") if d.any() else 1.0 for d in differences])
    for curve, d, p in zip(others, differences, p_values, strict=True):
        if p > alpha:
            least = detectable_difference(float(d.std(ddof=1)), len(d), alpha=alpha / len(others))
            sentences.append(
                f"{best.strategy} is ahead of {curve.strategy} by {d.mean():.4f} over all labels, which may be chance "
                f"(p = {p:.2g}): so few as {len(d)} seeds show a difference of {least:.4f} four times in five, "
                "and smaller ones less often. Run more seeds to tell them apart."
            )
    return sentences
