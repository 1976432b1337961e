"""Greedy maximum coverage: always the row whose ball holds most rows that no ball holds yet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks, progress
from modal_ntk.selection.result import Selection, filled_up
from modal_ntk.structure.graphs.neighbors import distance_to_other_groups
from modal_ntk.structure.magnitudes import measurable

BLOCK_PAIRS = 2**21
"""Pairs of rows that are compared at a time."""


def purity_radius(
    X: Tensor, groups: Tensor, purity: float = 0.95, *, device: torch.device | str | None = None
) -> float:
    """Return the largest radius at which the balls of enough rows hold rows of their own group only.

    Parameters
    ----------
    X : Tensor (n, d)
        Rows.
    groups : Tensor (n,), int
        Group of every row, such as its cluster.
    purity : float, default=0.95
        Share of balls that must be pure, above 0 and at most 1.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.

    Returns
    -------
    float
        The radius, balls being open; infinite where there is one group.

    Raises
    ------
    InvalidInputError
        If `purity` is out of range.

    Notes
    -----
    An open ball is pure up to the distance to the nearest row of another group; so the answer is a quantile of
    these distances, and no grid of radii is searched.

    Examples
    --------
    >>> purity_radius(torch.tensor([[0.0], [1.0], [4.0], [9.0]]), torch.tensor([0, 0, 1, 1]), purity=0.75)
    3.0
    """
    if not 0 < checks.check_positive("purity", purity) <= 1:
        raise checks.expected("purity above 0 and at most 1", purity, "The paper uses 0.95.")
    if bool((groups == groups[0]).all()):
        return math.inf
    gaps = distance_to_other_groups(X, groups, device=device).sort(descending=True).values
    # Rounded first, so that 0.95 of 100 rows are 95.
    return float(gaps[math.ceil(round(purity * len(X), 6)) - 1])


def greedy_cover(
    X: Tensor,
    n_instances: int,
    radius: float,
    *,
    centers: Tensor | None = None,
    device: torch.device | str | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose rows one by one, each the one that covers most rows not covered yet.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        Rows to choose from and to cover; not changed.
    n_instances : int
        How many to choose.
    radius : float
        A row covers every row nearer than this, itself included.
    centers : Tensor (l, d), optional
        Rows whose balls are covered already.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.
    random_state : int, numpy generator or None, default=None
        Seed of the choices that are left when everything is covered.

    Returns
    -------
    Selection
        Distinct indices in order of choice. Scores are the numbers of newly covered rows, so they never rise;
        zero for those chosen by seed after everything was covered. ``info["coverage"]`` is the share of `X`
        that is covered afterwards.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    Ties take the lowest row. Distances come from products of rows; those near the radius are taken again from
    differences in float64, so who covers whom does not depend on rounding. The graph is never kept: what a
    choice has covered is subtracted from every row's count, so all choices together cost no more than the
    first count, and memory beyond `X` is a few numbers a row.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0]])
    >>> picks = greedy_cover(x, 2, 1.5)
    >>> picks.indices.tolist(), picks.scores.tolist(), picks.info["coverage"]
    ([1, 3], [3.0, 2.0], 1.0)
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    if not radius >= 0:
        raise checks.expected("a radius of at least 0", repr(radius), "Distances on the unit sphere are at most 2.")
    rng = checks.check_random_state(random_state)
    X, centers = measurable(X, X[:0] if centers is None else centers)
    with progress.stage("balls"):
        balls = _Balls(X, radius, device)
        covered = balls.of_any(centers)
        counts = balls.count_uncovered(covered)
    free = torch.ones(len(X), dtype=torch.bool, device=balls.device)
    indices: list[int] = []
    scores: list[float] = []
    for _ in progress.steps(range(n_instances), "picks", "pick"):
        pick = int(counts.masked_fill(~free, -1).argmax())
        new = balls.of_any(X[pick : pick + 1]) & ~covered
        if not bool(new.any()):
            break
        covered |= new
        free[pick] = False
        indices.append(pick)
        scores.append(float(new.sum()))
        if len(indices) < n_instances:
            # Whichever are fewer: the rows just covered, to be taken off, or those left, to be counted anew.
            fewer = 2 * int(new.sum()) <= int((~covered | new).sum())
            counts = counts - balls.count(new) if fewer else balls.count(~covered)
    picks = filled_up(indices, scores, len(X), n_instances, rng)
    picks.info["coverage"] = float(covered.double().mean())
    return picks


class _Balls:
    # Who is within the radius of whom, a block of balls at a time.

    def __init__(self, X: Tensor, radius: float, device: torch.device | str | None) -> None:
        self.device = X.device if device is None else torch.device(device)
        self._X = X.to(self.device)
        self._half_norms = self._X.square().sum(dim=1) / 2
        self._radius = radius
        self._size = max(1, BLOCK_PAIRS // len(X))
        largest = float(self._half_norms.max()) * 2
        self._rounding = 2 * torch.finfo(X.dtype).eps * largest * (4 + X.shape[1] ** 0.5)

    def of_any(self, centers: Tensor) -> Tensor:
        """Return which rows (n,) lie in the ball of at least one centre."""
        inside = torch.zeros(len(self._X), dtype=torch.bool, device=self.device)
        for block in centers.split(self._size):
            inside |= self._inside(block).any(dim=0)
        return inside

    def count_uncovered(self, covered: Tensor) -> Tensor:
        """Return how many rows that are not covered lie in the ball of every row (n,)."""
        if 4 * int(covered.sum()) > len(covered):
            return self.count(~covered)
        return self._count_all() - self.count(covered)

    def count(self, targets: Tensor) -> Tensor:
        """Return how many of the rows marked (n,) lie in the ball of every row (n,)."""
        counts = torch.zeros_like(targets, dtype=torch.int64)
        # Who lies in whose ball is mutual, so balls around the targets are counted.
        for block in targets.nonzero()[:, 0].split(self._size):
            counts += _column_sums(self._inside(self._X[block]))
        return counts

    def _count_all(self) -> Tensor:
        # Each pair of rows once.
        counts = torch.zeros(len(self._X), dtype=torch.int64, device=self.device)
        for start in range(0, len(self._X), self._size):
            end = min(start + self._size, len(self._X))
            inside = self._inside(self._X[start:end], start)
            counts[start:] += _column_sums(inside)
            counts[start:end] += inside[:, end - start :].sum(dim=1, dtype=torch.int32)
        return counts

    def _inside(self, centers: Tensor, start: int = 0) -> Tensor:
        # Which of the rows from `start` on lie in the ball of each centre (m, n - start).
        X, centers = self._X[start:], centers.to(self.device, self._X.dtype)
        half_norms = centers.square().sum(dim=1, keepdim=True) / 2
        # |c - x| < r where c.x - |x|^2 / 2 > (|c|^2 - r^2) / 2.
        closeness = torch.addmm(self._half_norms[start:], centers, X.T, beta=-1)
        limit = half_norms - self._radius**2 / 2
        inside = closeness > limit + self._rounding
        possible = closeness > limit - self._rounding
        if torch.count_nonzero(inside) < torch.count_nonzero(possible):
            pairs = (possible & ~inside).nonzero()
            for some in pairs.split(max(1, BLOCK_PAIRS // X.shape[1])):
                gaps = centers[some[:, 0]].double() - X[some[:, 1]].double()
                inside[some[:, 0], some[:, 1]] = torch.linalg.vector_norm(gaps, dim=1) < self._radius
        return inside


def _column_sums(inside: Tensor) -> Tensor:
    # Bytes are summed several times faster than truth values.
    return inside.view(torch.uint8).sum(dim=0, dtype=torch.int32)
