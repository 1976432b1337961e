"""Slow float64 references for look-ahead beyond the naive risk, sharing no code with the library."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm


def problem(seed, n=16, n_classes=3, copies=0, near=0.0):
    """An RBF kernel whose last rows are copies of the first, moved by `near`; targets, f0 and the generator."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    if copies:
        x[-copies:] = x[:copies] + near * rng.normal(size=(copies, 3))
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 4)
    targets = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    return kernel, targets, rng.normal(scale=0.3, size=(n, n_classes)), rng


def trained(kernel, f0, rows, one_hot, *, jitter=0.0, time=None):
    """Predictions over all rows after training on `rows`, in the limit (jitter per row) or at a finite time."""
    if len(rows) == 0:
        return f0.copy()
    block = kernel[np.ix_(rows, rows)] + np.diag(np.broadcast_to(jitter, len(rows)))
    residual = one_hot[rows] - f0[rows]
    if time is None:
        return f0 + kernel[:, rows] @ np.linalg.solve(block, residual)
    # The upper right block of exp(t [[-K, 1], [0, 0]]) is the integral of exp(-s K) over s from 0 to t, that is
    # K^-1 (1 - exp(-t K)), and exists for a singular K too.
    n = len(rows)
    generator = np.block([[-block, np.eye(n)], [np.zeros((n, 2 * n))]])
    return f0 + kernel[:, rows] @ expm(time * generator)[:n, n:] @ residual


def objective_of(name, after, reference, targets, rows):
    """One candidate's objective from its predictions `after` (n, C) and those it is compared with."""
    if name == "risk":
        return np.mean(after[rows].argmax(1) != targets[rows])
    if name == "disagreement":
        return np.mean(after[rows].argmax(1) != reference[rows].argmax(1))
    if name == "squared_error":
        return np.mean(((np.eye(after.shape[1])[targets[rows]] - after[rows]) ** 2).sum(1))
    lengths = np.sqrt(((after[rows] - reference[rows]) ** 2).sum(1))
    return (lengths**2 if name == "squared_change" else lengths).sum()


def count_entry_by_entry(covariance, mean, targets, candidates, rows, reference, floor):
    """Mismatch counts with every new prediction formed, in the arrays' own arithmetic."""
    counts = []
    for i in candidates:
        residual = np.eye(mean.shape[1], dtype=mean.dtype)[targets[i]] - mean[i]
        scale = mean.dtype.type(1) / covariance[i, i] if covariance[i, i] > floor else mean.dtype.type(0)
        after = mean[rows] + (covariance[i, rows] * scale)[:, None] * residual
        counts.append(int((after.argmax(1) != reference[rows]).sum()))
    return np.array(counts)


def remaining_variance(kernel, rows, *, jitter=0.0):
    """Posterior variance of every row once `rows` are known, by one solve."""
    if len(rows) == 0:
        return np.diag(kernel).copy()
    block = kernel[np.ix_(rows, rows)] + np.diag(np.broadcast_to(jitter, len(rows)))
    return np.diag(kernel) - np.einsum("ij,ji->i", kernel[:, rows], np.linalg.solve(block, kernel[rows]))
