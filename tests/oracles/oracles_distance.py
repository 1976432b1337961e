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


def typicalities(X, k, power=1, epsilon=1e-5):
    """One over the mean of the k smallest (squared) distances to other rows; zero where there are none."""
    k = max(1, min(k, len(X) // 2))
    every = distances(X, X) ** power
    if len(X) < 2:
        return np.zeros(len(X))
    return np.array([1 / (np.sort(np.delete(row, i))[:k].mean() + epsilon) for i, row in enumerate(every)])


def typical(X, clusters, n_labeled, b, k=20, min_size=5, power=1, neighbors="remaining"):
    """Choose cluster by cluster, everything computed anew at each choice."""
    sizes = {c: int((clusters == c).sum()) for c in set(clusters.tolist())}
    known = {c: int((clusters[:n_labeled] == c).sum()) for c in sizes}
    order = sorted(sizes, key=lambda c: (known[c], -sizes[c], c))
    chosen, scores = [], []

    def free(c):
        return [i for i in range(n_labeled, len(X)) if clusters[i] == c and i not in chosen]

    for group in ([c for c in order if sizes[c] > min_size], [c for c in order if sizes[c] <= min_size]):
        while any(free(c) for c in group) and len(chosen) < b:
            for c in group:
                if free(c) and len(chosen) < b:
                    rows = free(c) if neighbors == "remaining" else np.flatnonzero(clusters == c).tolist()
                    values = dict(zip(rows, typicalities(X[rows], k, power), strict=True))
                    best = max(free(c), key=lambda i: (values[i], -i))
                    chosen.append(best)
                    scores.append(values[best])
    return [i - n_labeled for i in chosen], scores


def medoid_cost(X, chosen):
    """Sum of distances to the nearest chosen row."""
    return distances(X, np.asarray(X)[list(chosen)]).min(axis=1).sum()
