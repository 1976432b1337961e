"""Exp4.P: a bandit whose weights grow with what was earned, and with how seldom an arm could earn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Turn:
    """One query, as it has to be remembered until its labels are there.

    Parameters
    ----------
    arm : int
        Which arm chose.
    probabilities : numpy.ndarray (K,)
        With which each arm would have.
    samples : list of bytes
        Digests of the b samples chosen.
    places : list of int
        How many equal samples come before each of them, among the labelled ones then and in the batch.
    chances : numpy.ndarray (b,)
        With which probability each was to be queried at all.
    advice : numpy.ndarray (K, b)
        With which probability each arm would have queried it.
    n_labeled : int
        How many labels there were then.
    reward : float or None
        What the query has earned; None until its labels are there.
    """

    arm: int
    probabilities: np.ndarray
    samples: list[bytes]
    places: list[int]
    chances: np.ndarray
    advice: np.ndarray
    n_labeled: int
    reward: float | None = None


def arm_probabilities(log_weights: np.ndarray, p_min: float) -> np.ndarray:
    """Return the probability of each arm.

    Parameters
    ----------
    log_weights : numpy.ndarray (K,)
        Logarithms of the weights.
    p_min : float
        The least probability, at most 1 / K.

    Returns
    -------
    numpy.ndarray (K,)
        (1 - K p_min) w / sum(w) + p_min.

    Examples
    --------
    >>> arm_probabilities(np.log([3.0, 1.0]), 0.1).round(3).tolist()
    [0.7, 0.3]
    """
    weights = np.exp(log_weights - log_weights.max())
    return (1 - len(weights) * p_min) * weights / weights.sum() + p_min


def grown(log_weights: np.ndarray, turn: Turn, *, p_min: float, delta: float, n_rounds: int) -> np.ndarray:
    """Return the weights after a turn, as the paper has it: of all arms, each by its share in what was chosen.

    Parameters
    ----------
    log_weights : numpy.ndarray (K,)
        Logarithms of the weights before.
    turn : Turn
        With its reward.
    p_min : float
        The least probability of an arm.
    delta : float
        The guarantee holds with probability 1 - delta.
    n_rounds : int
        Number of turns planned, T.

    Returns
    -------
    numpy.ndarray (K,)
        log w_k + p_min / 2 (r_k + sqrt(ln(K / delta) / (K T)) / p_k), where r_k is the reward times the mean over
        the batch of advice / chance.

    Examples
    --------
    >>> half = np.array([0.5, 0.5])
    >>> turn = Turn(0, half, [b""], [0], np.array([0.5]), np.array([[1.0], [0.0]]), 0, reward=0.5)
    >>> p_min = np.sqrt(np.log(2) / 20)
    >>> np.exp(grown(np.zeros(2), turn, p_min=p_min, delta=0.1, n_rounds=10)).round(6).tolist()
    [1.179549, 1.074709]
    """
    n_arms = len(log_weights)
    earned = (turn.reward or 0.0) * (turn.advice / turn.chances).mean(axis=1)
    bonus = np.sqrt(np.log(n_arms / delta) / (n_arms * n_rounds)) / turn.probabilities
    return log_weights + p_min / 2 * (earned + bonus)


def grown_of_one(log_weights: np.ndarray, turn: Turn, *, p_min: float, delta: float) -> np.ndarray:
    """Return the weights after a turn, as the version for deep nets has it: only that of the arm which chose.

    Parameters
    ----------
    log_weights : numpy.ndarray (K,)
        Logarithms of the weights before.
    turn : Turn
        With its reward.
    p_min : float
        The least probability of an arm.
    delta : float
        As for `grown`.

    Returns
    -------
    numpy.ndarray (K,)
        log w_a + p_min / 2 (reward + sqrt(ln(K / delta) / K) / p_a) for the arm a, the others as they were.

    Examples
    --------
    >>> half = np.array([0.5, 0.5])
    >>> turn = Turn(0, half, [b""], [0], half[:1], np.ones((2, 1)), 0, reward=0.5)
    >>> grown_of_one(np.zeros(2), turn, p_min=0.05, delta=0.1).round(6).tolist()
    [0.073694, 0.0]
    """
    n_arms, after = len(log_weights), log_weights.copy()
    bonus = np.sqrt(np.log(n_arms / delta) / n_arms) / turn.probabilities[turn.arm]
    after[turn.arm] += p_min / 2 * ((turn.reward or 0.0) + bonus)
    return after
