"""Generalised coverage by the definition, slow and in float64."""

from __future__ import annotations

import numpy as np


def gaussian(X, Y, width):
    """exp(-|x - y|^2 / width^2), from differences, one pair of rows at a time."""
    return np.array([[np.exp(-np.sum((x - y) ** 2) / width**2) for y in Y] for x in X]).reshape(len(X), len(Y))


def herd(near, b, covered=None, weights=None):
    """Greedy choices from a stored matrix of similarities until nothing is gained: choices, gains and coverage.

    Of gains within a billionth of the largest, the lowest row's is taken.
    """
    n = len(near)
    cover = np.zeros(n) if covered is None else np.maximum(covered, 0)
    weights = np.ones(n) if weights is None else weights
    chosen, scores = [], []
    for _ in range(b):
        gains = np.array([np.sum(weights * np.maximum(near[:, j] - cover, 0)) for j in range(n)])
        gains[chosen] = -np.inf
        if gains.max() <= 1e-12 * np.sum(weights):
            break
        chosen.append(int(np.flatnonzero(gains >= gains.max() * (1 - 1e-9))[0]))
        scores.append(gains[chosen[-1]])
        cover = np.maximum(cover, near[:, chosen[-1]])
    return chosen, scores, np.average(cover, weights=weights)
