"""Slow dense float64 references for neighbour graphs, diffusion and DDAL, sharing no code with the library."""

from __future__ import annotations

import numpy as np

X1 = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.5]])
"""Six points on a line, in two groups no walk connects."""


def dense_transition(X, n_neighbors, *, similarity=np.exp, symmetrise=None):
    """Equations 1 and 2 row by row; ties of distance go to the lower row."""
    X = np.asarray(X, dtype=np.float64)
    W = np.zeros((len(X), len(X)))
    for i in range(len(X)):
        rho = [float(sum((a - b) ** 2 for a, b in zip(X[i], X[j], strict=True))) for j in range(len(X))]
        near = sorted((j for j in range(len(X)) if j != i), key=lambda j: (rho[j], j))[:n_neighbors]
        sigma = max(rho[j] for j in near)
        for j in near:
            W[i, j] = similarity(-rho[j] / sigma) if sigma > 0 else 1.0
    if symmetrise is not None:
        W = np.maximum(W, W.T) if symmetrise == "max" else (W + W.T) / 2
    return W / W.sum(axis=1, keepdims=True)


def dense_diffusion(M, labeled, labels, n_classes, n_steps, mode="one_vs_all"):
    """Algorithm 1's inner loop, entry by entry, and the multivariate variant."""
    n = len(M)
    chi = np.zeros((n, n_classes)) if mode == "one_vs_all" else np.full((n, n_classes), 1 / n_classes)
    held = {}
    for i, y in zip(labeled, labels, strict=True):
        other = -1.0 if mode == "one_vs_all" else 0.0
        held[int(i)] = [1.0 if c == y else other for c in range(n_classes)]
    for i, row in held.items():
        chi[i] = row
    for _ in range(n_steps):
        chi = np.array([[sum(M[i, j] * chi[j, c] for j in range(n)) for c in range(n_classes)] for i in range(n)])
        for i, row in held.items():
            chi[i] = row
    return chi


def dense_hops(M, labeled):
    """Fewest steps to a labelled row, by powers of the adjacency matrix; infinity where there is no walk."""
    edges = (np.asarray(M) > 0).astype(int)
    hops = np.full(len(edges), np.inf)
    reached = np.zeros(len(edges), dtype=int)
    reached[list(labeled)] = 1
    for step in range(len(edges) + 1):
        hops[(reached > 0) & np.isinf(hops)] = step
        reached = ((edges @ reached + reached) > 0).astype(int)
    return hops


def criterion(values, name, p=2.0):
    """The paper's measures of one row's certainty."""
    if name == "min":
        return min(abs(v) for v in values)
    if name == "norm":
        return max(abs(v) for v in values) if np.isinf(p) else sum(abs(v) ** p for v in values) ** (1 / p)
    ordered = sorted(values, reverse=True)
    if name == "max_probability":
        return ordered[0]
    if name == "margin":
        return ordered[0] - ordered[1]
    return sum(v * np.log(v) for v in values if v > 0)


def naive_rounds(M, labeled, labels, candidates, sizes, n_steps, n_classes, name, answers, p=2.0):
    """DDAL's inner rounds; `answers` gives the class of every row. Returns the scores of all candidates by round.

    Ties are left open: a round may take any candidates whose scores are the smallest, and here takes those that
    `answers` was called with in the run being checked, passed as `sizes`, a list of lists of rows.
    """
    mode = "one_vs_all" if name in ("min", "norm") else "multivariate"
    known, tables = dict(zip(map(int, labeled), labels, strict=True)), []
    for rows in sizes:
        values = dense_diffusion(M, list(known), list(known.values()), n_classes, n_steps, mode)
        tables.append({int(i): criterion(values[i], name, p) for i in candidates if int(i) not in known})
        known |= {int(i): answers[int(i)] for i in rows}
    return tables
