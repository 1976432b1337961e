"""Two ways to know what training on one more row would do: in the limit of training time, and at a finite time.

Both hold the labels and the evaluation rows, answer the same questions about candidates, and take up one pick at a
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.posterior import Posterior, condition
from modal_ntk.kernels.regression import training_weights
from modal_ntk.selection.ahead import changes

_BLOCK_BYTES = 2**27


class Engine(ABC):
    """What look-ahead asks.

    Parameters
    ----------
    labels : numpy.ndarray (n,)
        Target class of every row.
    rows : numpy.ndarray (e,)
        Rows over which objectives sum.
    """

    def __init__(self, labels: np.ndarray, rows: np.ndarray) -> None:
        self.labels = labels
        self.rows = rows

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Present prediction (n, C)."""

    @property
    @abstractmethod
    def jitter(self) -> float:
        """What was added to the labelled block's diagonal."""

    @abstractmethod
    def mismatches(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Count (m,) the rows that each candidate would leave unlike the reference classes (n,)."""

    @abstractmethod
    def output_change(self, candidates: np.ndarray, *, squared: bool, reference: Tensor | None) -> np.ndarray:
        """Sum (m,) how far each candidate would move the outputs from the reference (n, C), or from the present."""

    @abstractmethod
    def mean_margin(self, candidates: np.ndarray) -> np.ndarray:
        """Average (m,) the targets' lead after each candidate."""

    @abstractmethod
    def accept(self, pick: int) -> None:
        """Train on a row with its target."""

    def risk(self) -> float:
        """Return the share of rows that are predicted unlike their target."""
        return float((predicted_classes(self.mean)[self.rows] != self.labels[self.rows]).mean())


def predicted_classes(outputs: Tensor) -> np.ndarray:
    """Return the class (n,) of every row of outputs (n, C); among equal outputs the lower."""
    return outputs.argmax(dim=1).cpu().numpy()


class Limit(Engine):
    """The limit of training time: a Posterior and its rank-one updates.

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
        self.state, self.prior = state, prior

    @property
    def mean(self) -> Tensor:
        """Present prediction (n, C)."""
        return self.state.mean

    @property
    def jitter(self) -> float:
        """What was added to the labelled block's diagonal."""
        return self.state.jitter

    def mismatches(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """See `changes.mismatches`."""
        return changes.mismatches(self.state, self.labels, candidates, self.rows, reference=reference)

    def output_change(self, candidates: np.ndarray, *, squared: bool, reference: Tensor | None) -> np.ndarray:
        """See `changes.output_change`."""
        return changes.output_change(
            self.state, self.labels, candidates, self.rows, squared=squared, reference=reference
        )

    def mean_margin(self, candidates: np.ndarray) -> np.ndarray:
        """See `changes.mean_margin`."""
        return changes.mean_margin(self.state, self.labels, candidates, self.rows)

    def variance_reduction(self, candidates: np.ndarray) -> np.ndarray:
        """See `changes.variance_reduction`; a finite time has no such sum."""
        return changes.variance_reduction(self.state, candidates, self.rows)

    def variance_left(self, candidates: np.ndarray) -> np.ndarray:
        """Share (m,) of the prior variance that the rows would keep after each candidate."""
        now = float(self.state.covariance.diagonal()[self.rows].to(torch.float64).sum())
        return (now - self.variance_reduction(candidates)) / self.prior

    def accept(self, pick: int) -> None:
        """Train on a row by a rank-one update."""
        condition(self.state, pick, _one_hot(self.labels[[pick]], self.mean)[0])


class FiniteTime(Engine):
    """A finite training time: the regression is solved anew for every candidate, as no rank-one form exists.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel over all rows; read only.
    labeled : numpy.ndarray (l,)
        Rows already in the training set.
    f0 : Tensor (n, C)
        Outputs before training.
    time : float
        Training time at unit rate.
    labels, rows
        As for `Engine`.

    Notes
    -----
    The factor 1 - exp(-t K) mixes all eigenvectors of the training kernel, and one more row changes them all. Costs an
    eigendecomposition of (l + 1, l + 1) and a product (e, l) by (l, C) per candidate. Needs no jitter: a copy of a
    training row only makes that row count twice.
    """

    def __init__(
        self, kernel: Tensor, labeled: np.ndarray, f0: Tensor, time: float, labels: np.ndarray, rows: np.ndarray
    ) -> None:
        super().__init__(labels, rows)
        self.kernel, self.f0, self.time = kernel, f0, time
        self.trained = [int(row) for row in labeled]
        self._mean = self._solve()

    @property
    def mean(self) -> Tensor:
        """Present prediction (n, C)."""
        return self._mean

    @property
    def jitter(self) -> float:
        """Zero."""
        return 0.0

    def mismatches(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Count by forming every prediction."""
        wanted = torch.from_numpy(reference[self.rows]).to(self.kernel.device)
        return _gathered((after.argmax(dim=2) != wanted).sum(dim=1) for after in self._after(candidates))

    def output_change(self, candidates: np.ndarray, *, squared: bool, reference: Tensor | None) -> np.ndarray:
        """Sum by forming every prediction."""
        before = (self.mean if reference is None else reference)[self.rows]
        power = 2 if squared else 1
        return _gathered((after - before).norm(dim=2).pow(power).sum(dim=1) for after in self._after(candidates))

    def mean_margin(self, candidates: np.ndarray) -> np.ndarray:
        """Average by forming every prediction."""
        labels = self.labels[self.rows]
        return _gathered(changes.margins_of(after, labels).mean(dim=1) for after in self._after(candidates))

    def accept(self, pick: int) -> None:
        """Train on a row by solving anew."""
        self.trained.append(int(pick))
        self._mean = self._solve()

    def _solve(self) -> Tensor:
        if not self.trained:
            return self.f0.clone()
        residual = _one_hot(self.labels[self.trained], self.f0) - self.f0[self.trained]
        weights = training_weights(self.kernel[self.trained][:, self.trained], residual, time=self.time)
        return self.f0 + self.kernel[:, self.trained] @ weights

    def _after(self, candidates: np.ndarray) -> Iterator[Tensor]:
        # Predictions (block, e, C) after each candidate; the block's kernels differ in their last row and column only.
        n_trained, n_classes = len(self.trained), self.f0.shape[1]
        known, rows = torch.tensor(self.trained, dtype=torch.int64), torch.from_numpy(self.rows)
        wide = max(len(rows) * n_classes, 3 * (n_trained + 1) ** 2)
        for block in torch.from_numpy(candidates).split(max(1, _BLOCK_BYTES // (8 * wide))):
            trained = torch.cat([known.expand(len(block), -1), block[:, None]], dim=1)
            residual = _one_hot(self.labels[trained.numpy()], self.f0) - self.f0[trained]
            gram = self.kernel[trained[:, :, None], trained[:, None, :]]
            weights = training_weights(gram, residual, time=self.time)
            by_known = self.kernel[rows][:, known] @ weights[:, :n_trained]
            by_new = self.kernel[rows][:, block].T[:, :, None] * weights[:, n_trained:]
            yield self.f0[rows] + by_known + by_new


def _one_hot(labels: np.ndarray, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels).to(like.device), like.shape[1]).to(like)


def _gathered(parts: Iterator[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().numpy().astype(np.float64)
