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


def gradient_rows(p, h):
    """(e - p) (x) h, formed."""
    e = np.eye(p.shape[1])[p.argmax(axis=1)]
    return np.stack([np.outer(a, x).ravel() for a, x in zip(e - p, np.asarray(h, float), strict=True)])


def squared_to_nearest(G, chosen):
    """Squared distance of every row to the nearest of some."""
    return ((G[:, None] - G[list(chosen)][None]) ** 2).sum(-1).min(axis=1)


def cover(X, labeled, radius, b):
    """Greedy maximum coverage until nothing is left to cover: choices and newly covered numbers; lowest on ties."""
    within = distances(X, X) < radius
    covered = (distances(X, labeled) < radius).any(axis=1) if len(labeled) else np.zeros(len(X), bool)
    chosen, scores = [], []
    while len(chosen) < b:
        new = (within & ~covered).sum(axis=1)
        if new.max() == 0:
            break
        chosen.append(int(new.argmax()))
        scores.append(int(new.max()))
        covered |= within[chosen[-1]]
    return chosen, scores, covered.mean()


def purest_radius(X, groups, purity):
    """The largest pairwise distance taken as radius at which enough open balls are pure, by trying each."""
    every = distances(X, X)
    same = np.equal.outer(groups, groups)
    pure = [r for r in np.unique(every) if (same | (every >= r)).all(axis=1).mean() >= purity]
    return max(pure)
