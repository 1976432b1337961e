"""What look-ahead asks of a kernel's regression, and the engine for a finite training time.

Every engine holds the labels and the evaluation rows, answers questions about candidates, and takes up one pick at a
time: `FiniteTime` here, `Limit` in `changes.py`, `Deferred` in `deferred.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.regression import training_weights

_BLOCK_BYTES = 2**27


class Engine:
    """What all engines have.

    Parameters
    ----------
    labels : numpy.ndarray (n,)
        Target class of every row.
    rows : numpy.ndarray (e,)
        Rows over which objectives sum.

    Attributes
    ----------
    mean : Tensor (n, C)
        Present prediction.
    jitter : float
        What was added to the labelled block's diagonal.
    """

    mean: Tensor
    jitter: float

    def __init__(self, labels: np.ndarray, rows: np.ndarray) -> None:
        self.labels, self.rows = labels, rows

    def risk(self) -> float:
        """Return the share of rows that are predicted unlike their target."""
        return float((predicted_classes(self.mean)[self.rows] != self.labels[self.rows]).mean())


def predicted_classes(outputs: Tensor) -> np.ndarray:
    """Return the class (n,) of every row of outputs (n, C); among equal outputs the lower."""
    return outputs.argmax(dim=1).cpu().numpy()


def one_hot(labels: np.ndarray, like: Tensor) -> Tensor:
    """Return targets (..., C) of some classes (...), in the type and with the columns of other outputs."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels).to(like.device), like.shape[1]).to(like)


def margins_of(outputs: Tensor, labels: np.ndarray) -> Tensor:
    """Return by how much (..., e) each row's target class (e,) leads its strongest rival in outputs (..., e, C)."""
    own = torch.from_numpy(labels).to(outputs.device)[:, None].expand(*outputs.shape[:-1], 1)
    return (outputs.gather(-1, own) - outputs.scatter(-1, own, -torch.inf).amax(dim=-1, keepdim=True))[..., 0]


def gathered(parts: Iterable[Tensor]) -> np.ndarray:
    """Return values that come in parts as one float64 array."""
    return torch.cat(list(parts)).cpu().numpy().astype(np.float64)


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
        self.mean, self.jitter = self._solve(), 0.0

    def mismatches(self, candidates: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Count by forming every prediction."""
        wanted = torch.from_numpy(reference[self.rows]).to(self.kernel.device)
        return gathered((after.argmax(dim=2) != wanted).sum(dim=1) for after in self._after(candidates))

    def output_change(self, candidates: np.ndarray, *, squared: bool, reference: Tensor | None) -> np.ndarray:
        """Sum by forming every prediction."""
        before = (self.mean if reference is None else reference)[self.rows]
        power = 2 if squared else 1
        return gathered((after - before).norm(dim=2).pow(power).sum(dim=1) for after in self._after(candidates))

    def mean_margin(self, candidates: np.ndarray) -> np.ndarray:
        """Average by forming every prediction."""
        labels = self.labels[self.rows]
        return gathered(margins_of(after, labels).mean(dim=1) for after in self._after(candidates))

    def accept(self, pick: int) -> None:
        """Train on a row by solving anew."""
        self.trained.append(int(pick))
        self.mean = self._solve()

    def _solve(self) -> Tensor:
        if not self.trained:
            return self.f0.clone()
        residual = one_hot(self.labels[self.trained], self.f0) - self.f0[self.trained]
        weights = training_weights(self.kernel[self.trained][:, self.trained], residual, time=self.time)
        return self.f0 + self.kernel[:, self.trained] @ weights

    def _after(self, candidates: np.ndarray) -> Iterator[Tensor]:
        # Predictions (block, e, C) after each candidate; the block's kernels differ in their last row and column only.
        n_trained, n_classes = len(self.trained), self.f0.shape[1]
        known, rows = torch.tensor(self.trained, dtype=torch.int64), torch.from_numpy(self.rows)
        wide = max(len(rows) * n_classes, 3 * (n_trained + 1) ** 2)
        for block in torch.from_numpy(candidates).split(max(1, _BLOCK_BYTES // (8 * wide))):
            trained = torch.cat([known.expand(len(block), -1), block[:, None]], dim=1)
            residual = one_hot(self.labels[trained.numpy()], self.f0) - self.f0[trained]
            gram = self.kernel[trained[:, :, None], trained[:, None, :]]
            weights = training_weights(gram, residual, time=self.time)
            by_known = self.kernel[rows][:, known] @ weights[:, :n_trained]
            by_new = self.kernel[rows][:, block].T[:, :, None] * weights[:, n_trained:]
            yield self.f0[rows] + by_known + by_new
