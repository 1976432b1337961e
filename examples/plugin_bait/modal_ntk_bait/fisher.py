"""Greedy choice of samples whose Fisher information, with that of the labelled ones, resembles the pool's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LastLayer:
    """The Fisher information of a softmax layer at some samples, in factors.

    Parameters
    ----------
    features : Tensor (n, d), float64
        What the layer is given.
    probabilities : Tensor (n, C), float64
        What it makes of it.

    Notes
    -----
    With F(p) = diag(p) - p p', the information about the weights (C, d) at one sample is F(p) (x) h h', the mean over
    labels drawn from p of the outer product of their log-likelihoods' gradients (e_y - p) (x) h. It has rank C at
    most: V V' with V = R (x) h and R R' = F(p), whose columns are sqrt(p_y) (e_y - p).
    """

    features: Tensor
    probabilities: Tensor

    @property
    def size(self) -> int:
        """Number of weights, C d."""
        return self.features.shape[1] * self.probabilities.shape[1]

    def roots(self) -> Tensor:
        """Return R (n, C, C) of every sample, a column for each label."""
        p = self.probabilities
        return (torch.eye(p.shape[1], dtype=p.dtype) - p[:, :, None]) * p.sqrt()[:, None, :]

    def information(self) -> Tensor:
        """Return the sum over samples, (C d, C d)."""
        p, n_classes = self.probabilities, self.probabilities.shape[1]
        total = self.features.new_zeros(n_classes, self.features.shape[1], n_classes, self.features.shape[1])
        for a in range(n_classes):
            for b in range(n_classes):
                weights = p[:, a] * (float(a == b) - p[:, b])
                total[a, :, b] = self.features.T @ (weights[:, None] * self.features)
        return total.reshape(self.size, self.size)

    def within(self, matrix: Tensor, roots: Tensor, rows: Tensor) -> Tensor:
        """Return V' A V (m, C, C) of some samples for a matrix A (C d, C d)."""
        h, n_classes = self.features[rows], self.probabilities.shape[1]
        blocks = matrix.reshape(n_classes, -1, n_classes, h.shape[1])
        inner = torch.stack([((h @ blocks[a].flatten(1)).reshape(len(h), n_classes, -1) @ h[:, :, None])[..., 0]
                             for a in range(n_classes)], dim=1)  # fmt: skip
        return roots[rows].transpose(1, 2) @ inner @ roots[rows]

    def factor(self, roots: Tensor, row: int) -> Tensor:
        """Return V (C d, C) of one sample."""
        return (roots[row][:, None, :] * self.features[row][None, :, None]).reshape(self.size, -1)


def bait(
    pool: LastLayer, labeled: LastLayer, n_instances: int, *, regularisation: float = 1.0, oversampling: float = 2.0
) -> tuple[list[int], list[float], list[float]]:
    """Choose samples one by one, more than asked for, and drop the least useful ones again.

    Parameters
    ----------
    pool, labeled : LastLayer
        Where the information is wanted, and where it is had.
    n_instances : int
        How many to choose.
    regularisation : float, default=1.0
        What is added to the diagonal.
    oversampling : float, default=2.0
        How many times as many are chosen before some are dropped.

    Returns
    -------
    indices : list of int
        Rows of the pool, in order of choice.
    gains : list of float
        By how much each lowered the objective when it was chosen.
    objective : list of float
        At the start and at the end.

    Notes
    -----
    Ash, Goel, Krishnamurthy, Kakade (2021): tr((lambda I + sum over labelled and chosen samples of I(x))^-1 I(U)) is
    made small, with I(U) the pool's mean. With M the matrix in brackets, a sample V V' changes the trace by
    -+ tr((I +- V' M^-1 V)^-1 V' M^-1 I(U) M^-1 V), plus where it joins; so a step costs two products of M^-1-like
    matrices with all features and small inverses. Ties take the lowest row.
    """
    wanted = pool.information() / len(pool.features)
    start = labeled.information() + regularisation * torch.eye(pool.size, dtype=wanted.dtype)
    inverse = torch.linalg.inv(start)
    objective = [float((inverse * wanted).sum())]
    roots = pool.roots()
    chosen: list[int] = []
    gains: list[float] = []
    free = torch.ones(len(pool.features), dtype=torch.bool)
    while len(chosen) < min(round(oversampling * n_instances), len(free)):
        rows = free.nonzero()[:, 0]
        lowered = -_changes(pool, roots, rows, inverse, wanted, sign=1)
        best = int(lowered.argmax())
        chosen.append(int(rows[best]))
        gains.append(float(lowered[best]))
        free[chosen[-1]] = False
        inverse = _updated(inverse, pool.factor(roots, chosen[-1]), sign=1)
    while len(chosen) > n_instances:
        raised = _changes(pool, roots, torch.tensor(chosen), inverse, wanted, sign=-1)
        least = int(raised.argmin())
        inverse = _updated(inverse, pool.factor(roots, chosen.pop(least)), sign=-1)
        gains.pop(least)
    return chosen, gains, [*objective, float((inverse * wanted).sum())]


def _changes(pool: LastLayer, roots: Tensor, rows: Tensor, inverse: Tensor, wanted: Tensor, *, sign: int) -> Tensor:
    # By how much the trace changes if each of the rows joins (sign 1) or leaves (sign -1).
    inner = torch.eye(roots.shape[2], dtype=roots.dtype) + sign * pool.within(inverse, roots, rows)
    outer = pool.within(inverse @ wanted @ inverse, roots, rows)
    return -sign * torch.linalg.solve(inner, outer).diagonal(dim1=1, dim2=2).sum(dim=1)


def _updated(inverse: Tensor, factor: Tensor, *, sign: int) -> Tensor:
    # Woodbury: the inverse of a matrix to which a sample is added, or from which it is taken.
    along = inverse @ factor
    inner = torch.eye(factor.shape[1], dtype=factor.dtype) + sign * factor.T @ along
    return inverse - sign * along @ torch.linalg.solve(inner, along.T)
