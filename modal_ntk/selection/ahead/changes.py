"""The limit of training time: what one more row would change, read off a Posterior. The inner loops of look-ahead.

Layout: covariance (n, n) and mean (n, C) of a Posterior; ``candidates`` (m,) row numbers. Every question about
candidates is answered by (m,) numbers. On the CPU the passes over the covariance are compiled; elsewhere they are
tensor code over blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.posterior import Posterior, condition
from modal_ntk.selection.ahead.compiled import count_mismatches, first_of_run, sum_changes, sum_shifted_changes
from modal_ntk.selection.ahead.engines import Engine, gathered, margins_of, one_hot

_BLOCK_BYTES = 2**27
_CACHE_BYTES = 2**22


class Limit(Engine):
    """A Posterior and its rank-one updates.

    Parameters
    ----------
    state : Posterior
        Trained on the labelled rows; changed by `accept`.
    labels, rows
        As for `Engine`.
    prior : float
        Variance of the rows before any label, summed.
    """

    def __init__(self, state: Posterior, labels: np.ndarray, rows: np.ndarray, prior: float) -> None:
        super().__init__(labels, rows)
        # The tensors of the state, which `accept` changes in place.
        self.covariance, self.mean, self.jitter, self.prior = state.covariance, state.mean, state.jitter, prior
        self.state = state

    def mismatches(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Count (m,) the rows that each candidate would leave unlike the reference classes (n,)."""
        if not self.covariance.is_cpu:
            return self.mismatches_by_tensors(candidates, reference)
        arrays = self.covariance.numpy(), self.mean.numpy()
        return count_mismatches(*arrays, self.labels, candidates, self.rows, reference, self.jitter)

    def mismatches_by_tensors(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Do as `mismatches` on any device: new outputs are formed only where the class can change."""
        outputs, residuals = self.mean[self.rows], self._residuals(candidates)
        wanted = torch.from_numpy(reference[self.rows]).to(outputs.device)
        own = outputs.gather(1, wanted[:, None])[:, 0]
        rival = outputs.scatter(1, wanted[:, None], -torch.inf).amax(dim=1)
        rounding = 8 * torch.finfo(outputs.dtype).eps
        room = (own - rival).abs() - rounding * outputs.abs().amax(dim=1)
        span = residuals.amax(dim=1) - residuals.amin(dim=1)
        reach = span + rounding * (span + residuals.abs().amax(dim=1))
        wrong = outputs.argmax(dim=1) != wanted
        counts = wrong.sum().expand(len(candidates)).clone()
        n_pairs = max(1, _BLOCK_BYTES // (4 * outputs.shape[1] * outputs.element_size()))
        for part, gains in self._gains(candidates):
            for pairs in (gains.abs() * reach[part, None] >= room).nonzero().split(n_pairs):
                k, e = pairs.unbind(dim=1)
                after = outputs[e] + gains[k, e][:, None] * residuals[part][k]
                counts[part].index_add_(0, k, (after.argmax(dim=1) != wanted[e]).long() - wrong[e].long())
        return counts.cpu().numpy()

    def output_change(self, candidates: np.ndarray, *, squared: bool, reference: Tensor | None) -> np.ndarray:
        """Sum (m,) how far each candidate would move the outputs from the reference (n, C), or from the present.

        From the present the change of row x is G_xi / s r, and the sum is in closed form: the length of r times the
        column sum of absolute G_xi / s; zero for a candidate that adds nothing new. Lengths may be squared.
        """
        residuals = self._residuals(candidates)
        if reference is None:
            norms = residuals.norm(dim=1)
            plain = self._summed_gains(candidates, squared)
            return gathered([plain * (norms.square() if squared else norms).to(plain)])
        # Row x changes by d + g r, whose squared length is d.d + 2 g d.r + g^2 r.r: one product D R' beside the gains.
        shift = self.mean[self.rows] - reference[self.rows].to(self.mean)
        shift_norms, residual_norms = shift.square().sum(dim=1), residuals.square().sum(dim=1)
        sums = []
        # On the CPU a block stays in the cache between its product and its sum.
        block_bytes = _CACHE_BYTES if self.covariance.is_cpu else _BLOCK_BYTES
        for part, gains in self._gains(candidates, width=2, block_bytes=block_bytes):
            if squared:
                mixed = ((gains @ shift) * residuals[part]).sum(dim=1)
                sums.append(shift_norms.sum() + 2 * mixed + gains.square().sum(dim=1) * residual_norms[part])
                continue
            dots = residuals[part] @ shift.T
            if gains.is_cpu:
                arrays = (values.numpy() for values in (gains, dots, shift_norms, residual_norms[part]))
                sums.append(torch.from_numpy(sum_shifted_changes(*arrays)))
            else:
                lengths = shift_norms + gains * (2 * dots + gains * residual_norms[part, None])
                sums.append(lengths.clamp_min_(0).sqrt_().sum(dim=1))
        return gathered(sums)

    def mean_margin(self, candidates: np.ndarray) -> np.ndarray:
        """Average (m,) over the rows the lead of the target class over its strongest rival after each candidate."""
        outputs, residuals, labels = self.mean[self.rows], self._residuals(candidates), self.labels[self.rows]
        return gathered(
            margins_of(outputs + gains[:, :, None] * residuals[part, None, :], labels).mean(dim=1)
            for part, gains in self._gains(candidates, width=outputs.shape[1])
        )

    def variance_reduction(self, candidates: np.ndarray) -> np.ndarray:
        """Sum (m,) how much of the rows' variance each candidate would take away; zero where it adds nothing new.

        Sums of G_xi^2 / G_ii: the V-optimal, or transductive, design of Yu, Bi and Tresp (2006), and "ALC" of
        Gaussian processes. A finite time has no such sum.
        """
        variances = self.covariance.diagonal()[candidates]
        return gathered([self._summed_gains(candidates, squared=True)]) * gathered([variances])

    def variance_left(self, candidates: np.ndarray) -> np.ndarray:
        """Share (m,) of the prior variance that the rows would keep after each candidate."""
        now = float(self.covariance.diagonal()[self.rows].to(torch.float64).sum())
        return (now - self.variance_reduction(candidates)) / self.prior

    def accept(self, pick: int) -> None:
        """Train on a row with its target, by a rank-one update."""
        condition(self.state, pick, one_hot(self.labels[[pick]], self.mean)[0])

    def _residuals(self, candidates: np.ndarray) -> Tensor:
        return one_hot(self.labels[candidates], self.mean) - self.mean[candidates]

    def _summed_gains(self, candidates: np.ndarray, squared: bool) -> Tensor:
        # Sums (m,) of |g| or g^2 over the rows.
        if self.covariance.is_cpu:
            first = first_of_run(self.rows)
            sums = sum_changes(self.covariance.numpy(), candidates, self.rows, first, self.jitter, squared)
            return torch.from_numpy(sums)
        power = 2 if squared else 1
        return torch.cat([gains.abs().pow(power).sum(dim=1) for _, gains in self._gains(candidates)])

    def _gains(
        self, candidates: np.ndarray, width: int = 1, block_bytes: int | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        # G_ix / s for a block of candidates, and which these are, against all rows; zero where nothing new is added.
        size = max(1, (block_bytes or _BLOCK_BYTES) // (len(self.rows) * width * self.mean.element_size()))
        columns, variances = _index(self.rows), self.covariance.diagonal()
        for start in range(0, len(candidates), size):
            part = slice(start, start + size)
            block = _index(candidates[part])
            variance = variances[block]
            scale = 1 / variance.where(variance > self.jitter, torch.inf)
            yield part, self.covariance[block][:, columns] * scale[:, None]


def _index(positions: np.ndarray) -> slice | Tensor:
    # A run of positions is a slice, which copies nothing.
    first = first_of_run(positions)
    return slice(first, first + len(positions)) if first >= 0 else torch.from_numpy(positions)
