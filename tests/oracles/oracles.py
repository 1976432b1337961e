"""Slow float64 references, written from the formulas and sharing no code with the library."""

from __future__ import annotations

import numpy as np


def regression(kernel, f0, trained, diagonal, targets):
    """Predictions over all rows after training on `trained`: one dense solve, equation 3 in the limit."""
    if len(trained) == 0:
        return f0.copy()
    block = kernel[np.ix_(trained, trained)] + np.diag(diagonal)
    return f0 + kernel[:, trained] @ np.linalg.solve(block, targets[trained] - f0[trained])


def naive_look_ahead(kernel, targets, labeled, n_instances, *, f0=None, candidates=None, rows=None, rel_jitter=1e-6):
    """NTKCPL, algorithm 1 lines 10 to 18, solving the regression anew for every candidate of every step.

    The jitter sits on the rows labelled before the query; a candidate whose posterior variance does not
    exceed it changes nothing; ties go to the lowest row. Returns picks and the risk counts of each step.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    n, n_classes = len(kernel), int(np.max(targets)) + 1
    start = np.zeros((n, n_classes)) if f0 is None else np.asarray(f0, dtype=np.float64)
    one_hot = np.eye(start.shape[1])[targets]
    rows = np.arange(n) if rows is None else np.asarray(rows)
    labeled = [int(i) for i in labeled]
    block = kernel if not labeled else kernel[np.ix_(labeled, labeled)]
    jitter = rel_jitter * np.mean(np.diag(block))
    trained, diagonal = list(labeled), [jitter] * len(labeled)
    free = [int(i) for i in (range(n) if candidates is None else candidates) if i not in labeled]
    picks, tables = [], []
    for _ in range(n_instances):
        counts = {}
        for c in free:
            more = [*trained, c] if variance(kernel, trained, diagonal, c) > jitter else trained
            f = regression(kernel, start, more, diagonal + [0.0] * (len(more) - len(trained)), one_hot)
            counts[c] = int((f[rows].argmax(axis=1) != targets[rows]).sum())
        pick = min(counts, key=lambda c: (counts[c], c))
        if variance(kernel, trained, diagonal, pick) > jitter:
            trained, diagonal = [*trained, pick], [*diagonal, 0.0]
        picks.append(pick)
        tables.append(counts)
        free.remove(pick)
    return picks, tables


def variance(kernel, trained, diagonal, row):
    """Posterior variance of one row, by one dense solve."""
    if len(trained) == 0:
        return kernel[row, row]
    block = kernel[np.ix_(trained, trained)] + np.diag(diagonal)
    cross = kernel[trained, row]
    return kernel[row, row] - cross @ np.linalg.solve(block, cross)


def two_layer_pseudo_kernel(x, first, second):
    """Pseudo-NTK of f = second relu(first x / sqrt d) / sqrt h, weight by weight; first (h, d), second (C, h)."""
    n_hidden, d = first.shape
    n_classes = len(second)
    gradients = []
    for row in x:
        inner = first @ row / np.sqrt(d)
        hidden = np.maximum(inner, 0)
        summed = second.sum(axis=0)
        for_first = np.outer(summed * (inner > 0), row) / np.sqrt(d * n_hidden)
        for_second = np.tile(hidden, (n_classes, 1)) / np.sqrt(n_hidden)
        gradients.append(np.concatenate([for_first.ravel(), for_second.ravel()]) / np.sqrt(n_classes))
    gradients = np.array(gradients)
    return gradients @ gradients.T
