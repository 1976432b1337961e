"""Look-ahead without a covariance: for objectives that sums over its columns decide, one product a pick is enough.

With G the posterior covariance over all rows and E the evaluation rows, candidate i lowers the summed variance by
q_i / s_i, q_i = sum_E G_xi^2, s_i = G_ii; with D = targets less prediction, and r_i = D_i, it turns the squared error
|D_E|^2 into |D_E|^2 - 2 M_i . r_i / s_i + |r_i|^2 q_i / s_i^2, M = G_:E D_E. Training on a pick, column g, changes q
and M by terms of G g alone. So G is never written: it is the kernel less V V', and V gains a column a pick.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.posterior import known_below
from modal_ntk.kernels.regression import jittered_cholesky
from modal_ntk.selection.ahead.compiled import multiply
from modal_ntk.selection.ahead.engines import Engine, one_hot

_BLOCK_BYTES = 2**22  # rows of a kernel that stay in the processor's cache, in double precision


class Deferred(Engine):
    """The limit of training time, for the objectives "variance" and "squared_error".

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel over all rows, float32 or float64; read once a pick and never changed.
    labeled : numpy.ndarray (l,)
        Rows already in the training set.
    start : Tensor (n, C), float64
        Outputs before training.
    labels : numpy.ndarray (n,)
        Target class of every row.
    rows : numpy.ndarray (e,)
        Rows over which objectives sum.
    n_picks : int
        How many picks there will be.
    rel_jitter : float
        Jitter on the labelled block, relative to its mean diagonal.

    Notes
    -----
    All sums are in float64, whatever the kernel's type: those of a candidate that is nearly known are small differences
    of large numbers.
    """

    def __init__(
        self,
        kernel: Tensor,
        labeled: np.ndarray,
        start: Tensor,
        labels: np.ndarray,
        rows: np.ndarray,
        *,
        n_picks: int,
        rel_jitter: float,
    ) -> None:
        super().__init__(labels, rows)
        self.kernel = kernel
        self.counted = torch.zeros(len(kernel), dtype=torch.float64, device=kernel.device)
        self.counted[rows] = 1
        self.targets = one_hot(labels, start)
        self.mean = start.clone()
        self.explained = torch.empty(len(kernel), len(labeled) + n_picks, dtype=torch.float64, device=kernel.device)
        self.n_explained = len(labeled)
        known = torch.from_numpy(labeled).to(kernel.device)
        cross = kernel[known].to(torch.float64)
        factor, jitter = jittered_cholesky(cross[:, known], rel=rel_jitter)
        half = torch.linalg.solve_triangular(factor, cross, upper=False)
        self.explained[:, : len(labeled)] = half.T
        self.mean += half.T @ torch.linalg.solve_triangular(factor, self._missing[known], upper=False)
        diagonal = kernel.diagonal().to(torch.float64)
        jitter = jitter if len(labeled) else rel_jitter * float(diagonal.mean())
        self.prior = float(diagonal[rows].sum()) or 1.0
        self.jitter = known_below(diagonal, kernel.dtype, jitter)
        self.variance = diagonal - half.square().sum(dim=0)
        self.squares, self.products = torch.zeros_like(self.variance), torch.zeros_like(self.mean)
        self._sum_columns(half, self._missing * self.counted[:, None])

    @property
    def _missing(self) -> Tensor:
        return self.targets - self.mean

    def _sum_columns(self, half: Tensor, missing: Tensor) -> None:
        # q and M. A block of the covariance right of the diagonal serves its rows and, transposed, its columns.
        width = max(1, _BLOCK_BYTES // (8 * len(self.kernel)))
        for start in range(0, len(self.kernel), width):
            stop = min(start + width, len(self.kernel))
            part = self.kernel[start:stop, start:].to(torch.float64, copy=True)
            part.addmm_(half.T[start:stop], half[:, start:], alpha=-1)
            beyond = part[:, stop - start :]
            self.products[start:stop] += part @ missing[start:]
            self.products[stop:] += beyond.T @ missing[start:stop]
            part.square_()
            self.squares[start:stop] += part @ self.counted[start:]
            self.squares[stop:] += beyond.T @ self.counted[start:stop]

    def variance_reduction(self, candidates: np.ndarray) -> np.ndarray:
        """Sum (m,) how much variance each candidate would take from the rows; zero where it is known already."""
        return (self.squares / self._usable).cpu().numpy()[candidates]

    def squared_error(self, candidates: np.ndarray) -> np.ndarray:
        """Average (m,) over the rows the squared distance to the target that each candidate would leave."""
        missing, usable = self._missing, self._usable
        now = (missing.square().sum(dim=1) * self.counted).sum()
        after = now - 2 * (self.products * missing).sum(dim=1) / usable
        after += missing.square().sum(dim=1) * self.squares / usable.square()
        return (after / len(self.rows)).cpu().numpy()[candidates]

    def variance_left(self, candidates: np.ndarray) -> np.ndarray:
        """Share (m,) of the prior variance that the rows would keep after each candidate."""
        return (float(self.variance @ self.counted) - self.variance_reduction(candidates)) / self.prior

    @property
    def _usable(self) -> Tensor:
        # Dividing by infinity leaves what is known already without an effect.
        return self.variance.where(self.variance > self.jitter, torch.inf)

    def accept(self, pick: int) -> None:
        """Train on a row with its target."""
        variance = float(self.variance[pick])
        if variance <= self.jitter:
            return
        known = self.explained[:, : self.n_explained]
        column = self.kernel[:, pick].to(torch.float64) - known @ known[pick]
        counted = column * self.counted
        total = counted @ counted
        moved = self._times(counted) - known @ (known.T @ counted)
        gain, residual = column / variance, self._missing[pick]
        self.products.addr_(moved / variance, residual, alpha=-1)
        self.products.addr_(gain, counted @ self._missing - total * residual / variance, alpha=-1)
        self.squares += gain * (gain * total - 2 * moved)
        self.variance -= gain * column
        self.mean.addr_(gain, residual)
        self.explained[:, self.n_explained] = column / variance**0.5
        self.n_explained += 1

    def _times(self, vector: Tensor) -> Tensor:
        # The one pass over the kernel.
        if self.kernel.is_cpu:
            return torch.from_numpy(multiply(self.kernel.numpy(), vector.numpy()))
        width = max(1, _BLOCK_BYTES // (8 * len(self.kernel)))
        return torch.cat([part.to(torch.float64) @ vector for part in self.kernel.split(width)])
