"""Slow float64 definitions of what WAAL computes, written from the paper's formulas."""

from __future__ import annotations

import math


def coefficients(n_labeled, n_unlabeled, n_instances, mu, equation):
    """mu' and C0 as in equation 7: 1/U and 1/(L+B) - 1/(L+U), each as a weight beside a mean; or as in equation 8."""
    total = n_labeled + n_unlabeled
    # Per-sample weights of the sums over U and L in equation 7, up to mu.
    on_unlabeled = 1 / total
    on_labeled = 1 / (n_labeled + n_instances) - 1 / total
    # As weights of means, the labelled one of equation 8 divided by gamma for the redundancy trick.
    weight = mu * on_unlabeled * n_unlabeled
    labeled = mu * on_labeled * n_labeled
    if equation == 8:
        labeled *= n_labeled / n_unlabeled
    return weight, labeled / weight


def score(p, g, coefficient, mixture=0.5, official=False):
    """Uncertainty less the critic's value, sample by sample."""
    scores = []
    for row, value in zip(p, g, strict=True):
        losses = [-math.log(max(x, 1e-12)) for x in row]
        worst = math.sqrt(sum(v * v for v in losses)) if official else max(losses)
        scores.append(mixture * worst + (1 - mixture) * sum(losses) - coefficient * value)
    return scores


def threshold_error(x, y, balanced):
    """Least error over every threshold and both directions."""
    wx, wy = (0.5 / len(x), 0.5 / len(y)) if balanced else (1 / (len(x) + len(y)),) * 2
    best = 1.0
    for t in [-math.inf, *x, *y, math.inf]:
        error = sum(wx for v in x if v >= t) + sum(wy for v in y if v < t)
        best = min(best, error, 1 - error)
    return best


def penalty(weight, bias, points):
    """Mean of (slope - 1)^2 of sigmoid(w z + b) at points, by hand."""
    norm = math.sqrt(sum(w * w for w in weight))
    total = 0.0
    for point in points:
        g = 1 / (1 + math.exp(-sum(w * z for w, z in zip(weight, point, strict=True)) - bias))
        total += (g * (1 - g) * norm - 1) ** 2
    return total / len(points)
