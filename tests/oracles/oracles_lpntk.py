"""Literal, slow readings of lpNTK's definitions, sharing no code with the library."""

from __future__ import annotations

import numpy as np


def farthest_point_lists(kernel, n_clusters, first=None):
    """Algorithm 3 with lists, as printed: returns centres and the members of each cluster in list order."""
    n = len(kernel)
    start = [max(range(n), key=lambda i: (kernel[i][i], -i))] if first is None else list(first)
    centres = [start[0]]
    lists = [[i for i in range(n) if i != start[0]]]
    while len(centres) < n_clusters:
        if len(centres) < len(start):
            new = start[len(centres)]
        else:
            smallest, new = np.inf, None
            for j, members in enumerate(lists):
                for i in members:
                    if kernel[centres[j]][i] < smallest:
                        smallest, new = kernel[centres[j]][i], i
        for members in lists:
            if new in members:
                members.remove(new)
        opened = []
        for j, members in enumerate(lists):
            for i in list(members):
                if kernel[new][i] > kernel[centres[j]][i]:
                    members.remove(i)
                    opened.append(i)
        centres.append(new)
        lists.append(opened)
    return centres, lists


def redundant(kernel, later_only=False):
    """Rows with an entry larger than their own, among all other rows or among later ones."""
    n = len(kernel)
    return [any(kernel[i][j] > kernel[i][i] for j in range(i + 1 if later_only else 0, n) if j != i) for i in range(n)]


def forgetting(q, later, of_step, theta, y, y_step, lr, error, reduction):
    """Algorithm 2, sample by sample: q before, q after, q of the step's batch, and every (K, K) kernel block."""
    n, k = q.shape
    happened, predicted = [], []
    for i in range(n):
        matrix = np.diag(q[i]) - np.outer(q[i], q[i])
        change = np.zeros(k)
        for j in range(len(y_step)):
            one_hot = np.eye(k)[y_step[j]]
            term = {"true": one_hot - of_step[j], "uniform": one_hot - 1 / k, "uniform_counts": k * one_hot - 1}[error]
            change += lr * matrix @ theta[i, j] @ term / (len(y_step) if reduction == "mean" else 1)
        right = q[i].argmax() == y[i]
        happened.append(bool(right and later[i].argmax() != y[i]))
        predicted.append(bool(right and (q[i] + change).argmax() != y[i]))
    return happened, predicted


def relation(own, other, between, threshold, unrelated):
    """Appendix C for one pair of samples with gradients, by its two ratios."""
    ratios = (between / own, between / other)
    if min(ratios) >= threshold:
        return "interchangeable"
    if max(ratios) <= -threshold:
        return "contradictory"
    return "unrelated" if max(map(abs, ratios)) <= unrelated else ""


def conflict(kernel, labels, i, k):
    """Mean cosine of row i with its k most similar rows of other labels, less that with those of its own."""
    cosine = [kernel[i][j] / np.sqrt(kernel[i][i] * kernel[j][j]) for j in range(len(kernel))]
    own = sorted((cosine[j] for j in range(len(kernel)) if labels[j] == labels[i] and j != i), reverse=True)[:k]
    others = sorted((cosine[j] for j in range(len(kernel)) if labels[j] != labels[i]), reverse=True)[:k]
    return np.mean(others) - (np.mean(own) if own else 0)
