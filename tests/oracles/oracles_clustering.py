"""Slow references for constrained clustering, written from the definitions in plain Python."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np


def blobs(seed, n=40, d=3):
    """Rows of three clouds that touch, as data to cluster."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4 * rng.integers(3, size=(n, 1))


def partition(clusters):
    """The sets of rows that share a cluster, whatever its number."""
    return {frozenset(np.flatnonzero(clusters == c).tolist()) for c in np.unique(clusters)}


def broken_pairs(clusters, labels):
    """Pairs of differently labelled rows in one cluster, counted pair by pair."""
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    return sum(labels[i] != labels[j] and clusters[i] == clusters[j] for i, j in pairs)


def minority_rows(clusters, labels):
    """Rows whose label is not the most frequent one in their cluster."""
    return sum(
        clusters.count(c) - max(Counter(y for k, y in zip(clusters, labels, strict=True) if k == c).values())
        for c in set(clusters)
    )


def fewest_violations(labels, n_clusters):
    """Fewest minority rows over every way of putting the rows into the clusters."""
    ways = product(range(n_clusters), repeat=len(labels))
    return min(minority_rows(list(way), list(labels)) for way in ways)


def greedy_cost(squared, labels):
    """Total cost of COP-KMeans' assignment, rows nearest to a centre first; infinite where it gets stuck."""
    holder, total = {}, 0.0
    for row in sorted(range(len(labels)), key=lambda i: min(squared[i])):
        open_to_it = [c for c in range(len(squared[row])) if holder.get(c, labels[row]) == labels[row]]
        if not open_to_it:
            return float("inf")
        best = min(open_to_it, key=lambda c: squared[row][c])
        holder[best] = labels[row]
        total += squared[row][best]
    return total
