"""What would change if one more row were trained on: the inner loops of look-ahead.

Layout: covariance (n, n) and mean (n, C) of a Posterior; ``labels`` (n,) target class of every row;
``candidates`` (m,) and ``rows`` (e,) row numbers. Every function returns (m,) float64.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.posterior import Posterior

_BLOCK_BYTES = 2**27


def mismatches(
    state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray, *, reference: np.ndarray
) -> np.ndarray:
    """Count, for every candidate, the rows whose predicted class would differ from the reference.

    Parameters
    ----------
    state : Posterior
        Mean and covariance over all rows.
    labels : numpy.ndarray (n,)
        Class each row would be trained with.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to count over.
    reference : numpy.ndarray (n,)
        Class each row is compared with.

    Returns
    -------
    numpy.ndarray (m,), float64
        Counts.
    """
    if not state.covariance.is_cpu:
        return _mismatches_blockwise(state, labels, candidates, rows, reference)
    mean = state.mean[rows].numpy()
    covariance = state.covariance.numpy()
    outputs = state.mean[candidates].numpy()
    residuals = _one_hot(labels[candidates], mean.shape[1], mean.dtype) - outputs
    return _count(covariance, candidates, rows, mean, residuals, reference[rows], state.jitter).astype(np.float64)


@numba.njit(parallel=True, cache=True)
def _count(covariance, candidates, rows, mean, residuals, reference, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n_rows, n_classes = mean.shape
    rival = np.empty(n_rows, np.int64)  # strongest class other than the reference
    lead = np.empty(n_rows, mean.dtype)  # how far the reference is ahead of it
    for e in range(n_rows):
        best = -1
        for c in range(n_classes):
            if c != reference[e] and (best < 0 or mean[e, c] > mean[e, best]):
                best = c
        rival[e] = best
        lead[e] = mean[e, reference[e]] - mean[e, best] if best >= 0 else np.inf
    counts = np.zeros(len(candidates), np.int64)
    for k in numba.prange(len(candidates)):
        i = candidates[k]
        variance = covariance[i, i]
        r = residuals[k]
        high, low = r.max(), r.min()
        count = 0
        for e in range(n_rows):
            gain = covariance[i, rows[e]] / variance if variance > floor else 0.0
            own = gain * r[reference[e]]
            # No rival can gain more on the reference than `reach`. Rounding in either bound is far below
            # this slack, and whatever falls inside it is decided by the full arg max.
            reach = max(gain * high, gain * low) - own
            slack = 1e-5 * (abs(lead[e]) + abs(reach)) if mean.itemsize == 4 else 1e-12 * (abs(lead[e]) + abs(reach))
            if rival[e] < 0 or lead[e] > reach + slack:
                continue
            if lead[e] + own - gain * r[rival[e]] < -slack:
                count += 1
                continue
            top = 0
            for c in range(1, n_classes):
                if mean[e, c] + gain * r[c] > mean[e, top] + gain * r[top]:
                    top = c
            count += top != reference[e]
        counts[k] = count
    return counts


def _mismatches_blockwise(
    state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    wanted = torch.from_numpy(reference[rows]).to(state.mean.device)
    counts = [(after.argmax(dim=2) != wanted).sum(dim=1) for after in _after(state, labels, candidates, rows)]
    return torch.cat(counts).cpu().numpy().astype(np.float64)


def output_change(state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum, for every candidate, the Euclidean change of all predictions: |r| times the column sum of |G| over s.

    Parameters
    ----------
    state : Posterior
        Mean and covariance over all rows.
    labels : numpy.ndarray (n,)
        Class each row would be trained with.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to sum over.

    Returns
    -------
    numpy.ndarray (m,), float64
        Total change; zero for a candidate that adds nothing new.
    """
    gains, residuals = _gains(state, candidates, rows), _residuals(state, labels, candidates)
    change = torch.cat([block.abs().sum(dim=1) for block in gains]) * residuals.norm(dim=1)
    return change.cpu().numpy().astype(np.float64)


def mean_margin(state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Average, for every candidate, the lead of the target class over its strongest rival after the pick.

    Parameters
    ----------
    state : Posterior
        Mean and covariance over all rows.
    labels : numpy.ndarray (n,)
        Target class of every row.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to average over.

    Returns
    -------
    numpy.ndarray (m,), float64
        Mean margins.
    """
    own = torch.from_numpy(labels[rows]).to(state.mean.device)[None, :, None]
    margins = []
    for after in _after(state, labels, candidates, rows):
        target = after.gather(2, own.expand(len(after), -1, 1))
        rival = after.scatter(2, own.expand(len(after), -1, 1), -torch.inf).amax(dim=2, keepdim=True)
        margins.append((target - rival).mean(dim=(1, 2)))
    return torch.cat(margins).cpu().numpy().astype(np.float64)


def _after(state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray):  # type: ignore[no-untyped-def]  # noqa: ANN202
    # Predictions (block, e, C) after each candidate, in blocks of bounded memory.
    mean, residuals = state.mean[rows], _residuals(state, labels, candidates)
    start = 0
    for gains in _gains(state, candidates, rows, width=mean.shape[1]):
        yield mean + gains[:, :, None] * residuals[start : start + len(gains), None, :]
        start += len(gains)


def _gains(state: Posterior, candidates: np.ndarray, rows: np.ndarray, width: int = 1):  # type: ignore[no-untyped-def]  # noqa: ANN202
    # G_ix / s for a block of candidates against all rows; zero where a candidate adds nothing new.
    columns = torch.from_numpy(rows).to(state.covariance.device)
    size = max(1, _BLOCK_BYTES // (len(rows) * width * state.mean.element_size()))
    for block in torch.from_numpy(candidates).to(state.covariance.device).split(size):
        variance = state.covariance[block, block]
        usable = variance > state.jitter
        scale = torch.where(usable, 1 / torch.where(usable, variance, 1.0), 0.0)
        yield state.covariance[block][:, columns] * scale[:, None]


def _residuals(state: Posterior, labels: np.ndarray, candidates: np.ndarray) -> Tensor:
    n_classes = state.mean.shape[1]
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels[candidates]), n_classes).to(state.mean)
    return one_hot - state.mean[candidates]


def _one_hot(labels: np.ndarray, n_classes: int, dtype: np.dtype) -> np.ndarray:
    return np.eye(n_classes, dtype=dtype)[labels]
