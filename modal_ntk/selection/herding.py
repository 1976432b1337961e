"""Greedy generalised coverage: always the row that adds most to the sum of every row's largest similarity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks, progress
from modal_ntk.selection.result import Selection, filled_up

Kernel = Callable[[Tensor, Tensor], Tensor]

STORED_BYTES = 2**30
"""Largest matrix of similarities that is kept; those of more rows are computed again where they are needed."""

BLOCK_PAIRS = 2**24
"""Pairs of rows whose similarities are computed at a time where they are not kept; each time all rows are read."""

TILE = 512
"""Rows and columns whose similarities are computed at a time where all are: few enough for a cache."""

N_FIRST = 16
"""How many of the most promising rows are looked at first; twice as many each time that is not enough."""

TIE = 1e-9
"""Gains that are this near to the largest, as a part of it, are as large."""

NOTHING = 1e-12
"""A gain that is at most this, as a part of all weights, is what rounding leaves of none."""

FARTHEST = -80.0
"""Least exponent of a similarity: numbers below its exponential would be computed many times slower."""


@dataclass(frozen=True)
class Gaussian:
    """The similarity ``exp(-|x - y|^2 / width^2)`` of two rows.

    Parameters
    ----------
    width : float
        The distance at which it has fallen to exp(-1).

    Examples
    --------
    >>> Gaussian(2.0)(torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0]])).round(decimals=3).tolist()
    [[0.36800000071525574], [1.0]]
    """

    width: float

    def __call__(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the similarity (n, m) of every row of `X` to every row of `Y`."""
        scale = 1 / self.width**2
        exponent = torch.addmm(Y.square().sum(dim=1).mul_(-scale), X, Y.T, alpha=2 * scale)
        return exponent.sub_(X.square().sum(dim=1, keepdim=True).mul_(scale)).clamp_(FARTHEST, 0).exp_()

    def error(self, X: Tensor, dtype: torch.dtype) -> float:
        """Return by which part rounding to a type may change a similarity of rows of `X`."""
        largest = float(torch.linalg.vector_norm(X, dim=1).max()) ** 2
        unit = torch.finfo(dtype).eps
        squared = 2 * unit * largest * (4 + X.shape[1] ** 0.5)
        return float(np.expm1(min(squared / self.width**2, 1.0)) + 4 * unit)


def max_herding(
    X: Tensor,
    n_instances: int,
    *,
    centers: Tensor | None = None,
    weights: Any = None,
    kernel: float | Kernel = 1.0,
    device: torch.device | str | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose rows one by one, each the one that adds most to the generalised coverage of all rows.

    Parameters
    ----------
    X : Tensor (n, d), float32 or float64
        Rows to choose from and to cover; not changed.
    n_instances : int
        How many to choose.
    centers : Tensor (l, d), optional
        Rows that cover already.
    weights : array (n,), optional
        What covering each row is worth, at least zero; one each by default.
    kernel : float or callable, default=1.0
        The width of a Gaussian, ``exp(-|x - y|^2 / width^2)``; or a function from rows (n, d) and (m, d), float64, to
        their similarities (n, m), which must be symmetric and finite.
    device : torch.device or str, optional
        Where to compute; where `X` lies by default.
    random_state : int, numpy generator or None, default=None
        Seed of the choices that are left when nothing more can be gained.

    Returns
    -------
    Selection
        Distinct indices in order of choice. Scores are what each choice added to the weighted sum, so they never
        rise; zero for those chosen by seed. ``info["coverage"]`` is the weighted mean of the rows' largest
        similarities afterwards.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    With the choices S and the centres, the sum over rows x of w(x) max(0, max over s of k(x, s)) is made large: a
    monotone submodular function, of which greedy choices reach at least 1 - 1/e of the best (Bae, Noh, Sutherland
    2024; with weights, Bae, Oliveira, Sutherland 2025). What a row would add only falls, so what it would have added
    earlier bounds it, and most rows are never looked at again after one pass over half of all pairs. Similarities of a
    Gaussian are taken in float32; where these leave a choice open, its rivals are compared in float64. Gains within a
    billionth of the largest are ties, which the lowest row wins. All similarities are kept while they fit into
    ``STORED_BYTES``.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0]])
    >>> max_herding(x, 3).indices.tolist()
    [1, 3, 4]
    """
    n_instances = checks.check_n_instances(n_instances, len(X))
    rng = checks.check_random_state(random_state)
    with progress.stage("similarities"):
        similarity = kernel if callable(kernel) else Gaussian(checks.check_positive("kernel", kernel))
        gains = _Gains(X, similarity, _checked_weights(weights, len(X)), device)
        if centers is not None and len(centers):
            for some in centers.split(max(1, BLOCK_PAIRS // len(X))):
                gains.cover_by(some)
        gains.bound()
    indices: list[int] = []
    scores: list[float] = []
    for _ in progress.steps(range(n_instances), "picks", "pick"):
        if (best := gains.take()) is None:
            break
        indices.append(best[0])
        scores.append(best[1])
    picks = filled_up(indices, scores, len(X), n_instances, rng)
    picks.info["coverage"] = gains.coverage()
    return picks


def _checked_weights(weights: Any, n: int) -> np.ndarray:
    if weights is None:
        return np.ones(n)
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        got = f"shape {weights.shape}" if weights.shape != (n,) else "a negative, infinite or missing one"
        raise checks.expected(f"finite weights of shape ({n},), at least zero", got, "Pass one a row of X.")
    return weights


class _Gains:
    # What every row would add to the coverage: an upper bound, made exact where it decides.

    def __init__(self, X: Tensor, kernel: Kernel, weights: np.ndarray, device: torch.device | str | None) -> None:
        self.device = X.device if device is None else torch.device(device)
        self._X, self._kernel, n = X, kernel, len(X)
        self._part = max(1, BLOCK_PAIRS // X.shape[1])  # rows that are copied in double precision at a time
        self._weights = torch.from_numpy(weights).to(self.device)
        self._cover = torch.zeros(n, dtype=torch.float64, device=self.device)
        self._bounds = np.full(n, np.inf)
        self._error, self._type = 0.0, torch.float64
        # For loops on the CPU that take a Gaussian from differences in float64, where a coarse similarity does not rule
        # that out: the rows, what multiplies squared distances, and how much larger than a coarse one it can be.
        self._exactly: tuple[np.ndarray, float, float] | None = None
        if isinstance(kernel, Gaussian):
            coarse = kernel.error(X, torch.float32)
            # Of a width near the rounding of distances, float32 could tell nothing.
            if coarse < 0.01:
                self._error, self._type = coarse, torch.float32
            if self.device.type == "cpu":
                self._exactly = X.numpy(), 1 / kernel.width**2, 1 + 2 * self._error
        self._rows = X.to(self.device, self._type)
        self._stored: Tensor | None = None

    def bound(self) -> None:
        """Bound what each row would add by what it would add now, from one half of a symmetric matrix."""
        cover = self._cover.to(self._type)
        sums, n = torch.zeros(len(cover), dtype=torch.float64, device=self.device), len(cover)
        if n * n * self._rows.element_size() <= STORED_BYTES:
            self._stored = self._rows.new_empty((n, n))
        parts = [slice(i, i + TILE) for i in range(0, n, TILE)]
        for i, here in enumerate(parts):
            for there in parts[i:]:
                tile = self._called(self._rows[here], self._rows[there])
                if self._stored is not None:
                    self._stored[here, there] = tile
                    self._stored[there, here] = tile.T
                _add(sums, tile, cover, self._weights, here, there)
        found = sums.cpu().numpy()
        self._bounds = found + self._slack(found, self._error)

    def take(self) -> tuple[int, float] | None:
        """Choose the best row, count what it covers, and return it with what it added; None where that is nothing."""
        exact = self._exact(self._rivals())
        most = max(exact.values())
        if most <= NOTHING * float(self._weights.sum()):
            return None
        pick = min(row for row, gain in exact.items() if gain >= most * (1 - TIE))
        self._bounds[pick] = -np.inf
        if self._type == torch.float64:
            torch.maximum(self._cover, self._near(np.array([pick]))[0], out=self._cover)
        elif self._exactly is None:
            self.cover_by(self._X[pick : pick + 1])
        else:
            _raise_cover(*self._exactly, pick, self._near(np.array([pick]))[0].numpy(), self._cover.numpy())
        return pick, exact[pick]

    def cover_by(self, centers: Tensor) -> None:
        """Count rows as covered by some others."""
        centers = centers.to(self.device, torch.float64)
        for cover, rows in zip(self._cover.split(self._part), self._X.split(self._part), strict=True):
            near = self._called(rows.to(self.device, torch.float64), centers).max(dim=1).values
            torch.maximum(cover, near, out=cover)

    def coverage(self) -> float:
        """Return the weighted mean similarity of the rows to what covers them."""
        total = float(self._weights.sum())
        return float(self._weights @ self._cover) / total if total else 1.0

    def _rivals(self) -> np.ndarray:
        # All rows whose gain could be the largest, as far as coarse similarities tell.
        cover = self._cover.to(self._type)
        bounds, fresh = self._bounds, np.zeros(len(self._bounds), bool)
        least, size = -np.inf, N_FIRST
        while True:
            open_rows = np.flatnonzero(~fresh & (bounds > -np.inf) & (bounds >= least))
            if not len(open_rows):
                return np.flatnonzero(fresh & (bounds >= least))
            if len(open_rows) > size:
                open_rows = open_rows[np.argpartition(-bounds[open_rows], size)[:size]]
            for rows in self._blocks(open_rows):
                found = self._coarse(rows, cover)
                slack = self._slack(found, self._error)
                bounds[rows] = found + slack
                least = max(least, float((found - slack).max()) * (1 - TIE))
            fresh[open_rows] = True
            size *= 2

    def _slack(self, gains: Any, error: float) -> Any:
        # A row counts where its similarity exceeds its cover, so the similarities that count sum up to at most this.
        return error * (gains + float(self._weights @ self._cover))

    def _coarse(self, rows: np.ndarray, cover: Tensor) -> np.ndarray:
        # What lies above the cover, weighted and summed.
        if self.device.type != "cpu":
            return ((self._near(rows) - cover).clamp_min_(0).double() @ self._weights).cpu().numpy()
        near, at = (self._near(rows), np.arange(len(rows))) if self._stored is None else (self._stored, rows)
        return _added(near.numpy(), at, cover.numpy(), self._weights.numpy())

    def _exact(self, rows: np.ndarray) -> dict[int, float]:
        # In float64, from the rows as they were given.
        if self._type == torch.float64:
            return dict(zip(rows.tolist(), self._bounds[rows].tolist(), strict=True))
        gains = []
        for some in self._blocks(rows):
            if self._exactly is not None:
                near, covers = self._near(some).numpy(), (self._cover.numpy(), self._weights.numpy())
                gains += [_gain(*self._exactly, row, near[i], *covers) for i, row in enumerate(some)]
            else:
                above = (self._doubly_near(some) - self._cover).clamp_min_(0)
                gains += (above @ self._weights).tolist()
        return dict(zip(rows.tolist(), gains, strict=True))

    def _near(self, rows: np.ndarray) -> Tensor:
        # Similarities (m, n) of some rows to all, of the coarse type.
        at = torch.from_numpy(rows).to(self.device)
        return self._called(self._rows[at], self._rows) if self._stored is None else self._stored[at]

    def _doubly_near(self, rows: np.ndarray) -> Tensor:
        # The same in double precision, whatever is kept.
        some = self._X[torch.from_numpy(rows).to(self._X.device)].to(self.device, torch.float64)
        parts = [self._called(some, part.to(self.device, torch.float64)) for part in self._X.split(self._part)]
        return torch.cat(parts, dim=1)

    def _called(self, X: Tensor, Y: Tensor) -> Tensor:
        values = self._kernel(X, Y)
        if isinstance(self._kernel, Gaussian):
            return values
        if values.shape != (len(X), len(Y)) or not bool(torch.isfinite(values.sum())):
            got = f"shape {tuple(values.shape)}" if values.shape != (len(X), len(Y)) else "NaN or infinity"
            raise checks.expected(f"similarities of shape ({len(X)}, {len(Y)}), finite", got, "Mend the kernel.")
        return values

    def _blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        size = max(1, BLOCK_PAIRS // len(self._X))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _add(sums: Tensor, tile: Tensor, cover: Tensor, weights: Tensor, here: slice, there: slice) -> None:
    # What lies above the cover, weighted and summed, of all pairs in one tile: for its rows and, where they are others,
    # its columns.
    if tile.device.type == "cpu":
        _add_tile(tile.numpy(), here.start, there.start, sums.numpy(), cover.numpy(), weights.numpy())
        return
    sums[here] += (tile - cover[there]).clamp_min_(0).double() @ weights[there]
    if here != there:
        sums[there] += (tile.T - cover[here]).clamp_min_(0).double() @ weights[here]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _add_tile(tile, first, beside, sums, cover, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # The tile's rows begin at `first`, its columns at `beside`; one on the diagonal holds its pairs both ways.
    width = tile.shape[1]
    covers, weighed = cover[beside : beside + width], weights[beside : beside + width]
    others = sums[beside : beside + width]
    for i in range(len(tile)):
        row, total = tile[i], 0.0
        own, weight = cover[first + i], weights[first + i]
        for j in range(width):
            above = row[j] - covers[j]
            if above > 0:
                total += weighed[j] * above
        if first != beside:
            for j in range(width):
                above = row[j] - own
                if above > 0:
                    others[j] += weight * above
        sums[first + i] += total


# One pass without a copy; sums in any order, so that the compiler can use wide registers.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _added(near, rows, cover, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    sums = np.empty(len(rows))
    for m in range(len(rows)):
        row, total = near[rows[m]], 0.0
        for i in range(len(cover)):
            above = row[i] - cover[i]
            if above > 0:
                total += weights[i] * above
        sums[m] = total
    return sums


@numba.njit(cache=True, nogil=True)
def _similarity(X, i, j, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    squared = 0.0
    for k in range(X.shape[1]):
        difference = np.float64(X[i, k]) - np.float64(X[j, k])
        squared += difference * difference
    return np.exp(max(-scale * squared, FARTHEST))


@numba.njit(cache=True, nogil=True)
def _raise_cover(X, scale, least, row, near, cover):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(cover)):
        if near[i] * least > cover[i]:
            cover[i] = max(cover[i], _similarity(X, i, row, scale))


@numba.njit(cache=True, nogil=True)
def _gain(X, scale, least, row, near, cover, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    total = 0.0
    for i in range(len(cover)):
        if near[i] * least > cover[i]:
            total += weights[i] * max(_similarity(X, i, row, scale) - cover[i], 0.0)
    return total
