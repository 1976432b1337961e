"""Slow float64 versions of the distance-based selections, written from their definitions."""

from __future__ import annotations

import numpy as np


def distances(X, Y):
    """Every distance, one at a time."""
    return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in np.asarray(Y, float)] for x in np.asarray(X, float)])


def k_center(X, labeled, b):
    """Farthest-first from labelled rows, or from row 0 where there are none; ties to the lowest row."""
    chosen, scores = [], []
    for _ in range(b):
        centres = [*labeled, *(X[i] for i in chosen)]
        gaps = [
            -1.0 if i in chosen else min((float(np.linalg.norm(x - c)) for c in centres), default=np.inf)
            for i, x in enumerate(np.asarray(X, float))
        ]
        chosen.append(int(np.argmax(gaps)))
        scores.append(max(gaps))
    return chosen, scores
