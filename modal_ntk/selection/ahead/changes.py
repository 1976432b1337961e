"""What would change if one more row were trained on, read off a Posterior: the inner loops of look-ahead.

Layout: covariance (n, n) and mean (n, C) of a Posterior; ``labels`` (n,) target class of every row;
``candidates`` (m,) and ``rows`` (e,) row numbers. Every function returns (m,) float64. On the CPU the passes over the
covariance are compiled; elsewhere they are tensor code over blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from modal_ntk.kernels.posterior import Posterior
from modal_ntk.selection.ahead.compiled import count_mismatches, first_of_run, sum_changes, sum_shifted_changes

_BLOCK_BYTES = 2**27
_CACHE_BYTES = 2**22


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
        return count_with_tensors(state, labels, candidates, rows, reference)
    arrays = state.covariance.numpy(), state.mean.numpy()
    counts = count_mismatches(*arrays, labels, candidates, rows, reference, state.jitter)
    return counts.astype(np.float64)


def count_with_tensors(
    state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Do as `mismatches` on any device: new outputs are formed only where the class can change.

    Parameters
    ----------
    state, labels, candidates, rows, reference
        As for `mismatches`.

    Returns
    -------
    numpy.ndarray (m,), float64
        Counts.
    """
    outputs, residuals = state.mean[rows], _residuals(state, labels, candidates)
    wanted = torch.from_numpy(reference[rows]).to(outputs.device)
    own = outputs.gather(1, wanted[:, None])[:, 0]
    rival = outputs.scatter(1, wanted[:, None], -torch.inf).amax(dim=1)
    rounding = 8 * torch.finfo(outputs.dtype).eps
    room = (own - rival).abs() - rounding * outputs.abs().amax(dim=1)
    span = residuals.amax(dim=1) - residuals.amin(dim=1)
    reach = span + rounding * (span + residuals.abs().amax(dim=1))
    wrong = outputs.argmax(dim=1) != wanted
    counts = wrong.sum().expand(len(candidates)).clone()
    n_pairs = max(1, _BLOCK_BYTES // (4 * outputs.shape[1] * outputs.element_size()))
    start = 0
    for gains in _gains(state, candidates, rows):
        for pairs in (gains.abs() * reach[start : start + len(gains), None] >= room).nonzero().split(n_pairs):
            k, e = pairs.unbind(dim=1)
            after = outputs[e] + gains[k, e][:, None] * residuals[start + k]
            counts.index_add_(0, start + k, (after.argmax(dim=1) != wanted[e]).long() - wrong[e].long())
        start += len(gains)
    return counts.cpu().numpy().astype(np.float64)


def output_change(
    state: Posterior,
    labels: np.ndarray,
    candidates: np.ndarray,
    rows: np.ndarray,
    *,
    squared: bool = False,
    reference: Tensor | None = None,
) -> np.ndarray:
    """Sum, for every candidate, the Euclidean change of all predictions.

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
    squared : bool, default=False
        Whether lengths are squared.
    reference : Tensor (n, C), optional
        Outputs that the change is measured from; the present mean by default. Then the change of row x is
        G_xi / s r, and the sum is in closed form: |r| times the column sum of |G| over s.

    Returns
    -------
    numpy.ndarray (m,), float64
        Total change; from the mean, zero for a candidate that adds nothing new.
    """
    if reference is not None:
        shift = state.mean[rows] - reference[rows].to(state.mean)
        return _shifted_change(state, labels, candidates, rows, shift, squared)
    norms = _residuals(state, labels, candidates).norm(dim=1)
    norms = norms.square() if squared else norms
    if state.covariance.is_cpu:
        sums = sum_changes(state.covariance.numpy(), candidates, rows, state.jitter, squared=squared)
        return sums * norms.numpy().astype(np.float64)
    power = 2 if squared else 1
    by_block = [block.abs().pow(power).sum(dim=1) for block in _gains(state, candidates, rows)]
    return (torch.cat(by_block) * norms).cpu().numpy().astype(np.float64)


def _shifted_change(
    state: Posterior, labels: np.ndarray, candidates: np.ndarray, rows: np.ndarray, shift: Tensor, squared: bool
) -> np.ndarray:
    # Row x changes by d + g r, whose squared length is d.d + 2 g d.r + g^2 r.r: one product D R' beside the gains.
    residuals = _residuals(state, labels, candidates)
    shift_norms, residual_norms = shift.square().sum(dim=1), residuals.square().sum(dim=1)
    sums, start = [], 0
    # On the CPU a block stays in the cache between its product and its sum.
    block_bytes = _CACHE_BYTES if state.covariance.is_cpu else _BLOCK_BYTES
    for gains in _gains(state, candidates, rows, width=2, block_bytes=block_bytes):
        part = slice(start, start + len(gains))
        start += len(gains)
        if squared:
            mixed = ((gains @ shift) * residuals[part]).sum(dim=1)
            total = shift_norms.sum() + 2 * mixed + gains.square().sum(dim=1) * residual_norms[part]
        elif gains.is_cpu:
            dots = residuals[part] @ shift.T
            arrays = (values.numpy() for values in (gains, dots, shift_norms, residual_norms[part]))
            total = torch.from_numpy(sum_shifted_changes(*arrays))
        else:
            dots = residuals[part] @ shift.T
            lengths = shift_norms + gains * (2 * dots + gains * residual_norms[part, None])
            total = lengths.clamp_min_(0).sqrt_().sum(dim=1)
        sums.append(total.cpu().double())
    return torch.cat(sums).numpy()


def variance_reduction(state: Posterior, candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum, for every candidate, how much of the rows' posterior variance training on it takes away.

    Parameters
    ----------
    state : Posterior
        Covariance over all rows.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to sum over.

    Returns
    -------
    numpy.ndarray (m,), float64
        Sums of G_xi^2 / G_ii, zero for a candidate that adds nothing new. The V-optimal, or transductive, design of Yu,
        Bi and Tresp (2006), and "ALC" of Gaussian processes.
    """
    variances = state.covariance.diagonal()[candidates].cpu().numpy().astype(np.float64)
    if state.covariance.is_cpu:
        return sum_changes(state.covariance.numpy(), candidates, rows, state.jitter, squared=True) * variances
    by_block = [block.square().sum(dim=1) for block in _gains(state, candidates, rows)]
    return torch.cat(by_block).cpu().numpy().astype(np.float64) * variances


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
    outputs, residuals = state.mean[rows], _residuals(state, labels, candidates)
    margins, start = [], 0
    for gains in _gains(state, candidates, rows, width=outputs.shape[1]):
        after = outputs + gains[:, :, None] * residuals[start : start + len(gains), None, :]
        margins.append(margins_of(after, labels[rows]).mean(dim=1))
        start += len(gains)
    return torch.cat(margins).cpu().numpy().astype(np.float64)


def margins_of(outputs: Tensor, labels: np.ndarray) -> Tensor:
    """Return by how much each row's target class leads its strongest rival.

    Parameters
    ----------
    outputs : Tensor (..., e, C)
        Predictions.
    labels : numpy.ndarray (e,)
        Target classes.

    Returns
    -------
    Tensor (..., e)
        Negative where a rival leads.
    """
    own = torch.from_numpy(labels).to(outputs.device)[:, None].expand(*outputs.shape[:-1], 1)
    return (outputs.gather(-1, own) - outputs.scatter(-1, own, -torch.inf).amax(dim=-1, keepdim=True))[..., 0]


def _gains(
    state: Posterior, candidates: np.ndarray, rows: np.ndarray, width: int = 1, block_bytes: int = _BLOCK_BYTES
) -> Iterator[Tensor]:
    # G_ix / s for a block of candidates against all rows; zero where a candidate adds nothing new.
    size = max(1, block_bytes // (len(rows) * width * state.mean.element_size()))
    columns, variances = _index(rows), state.covariance.diagonal()
    for start in range(0, len(candidates), size):
        block = _index(candidates[start : start + size])
        variance = variances[block]
        usable = variance > state.jitter
        scale = torch.where(usable, 1 / torch.where(usable, variance, 1.0), 0.0)
        yield state.covariance[block][:, columns] * scale[:, None]


def _index(positions: np.ndarray) -> slice | Tensor:
    # A run of positions is a slice, which copies nothing.
    first = first_of_run(positions)
    return slice(first, first + len(positions)) if first >= 0 else torch.from_numpy(positions)


def _residuals(state: Posterior, labels: np.ndarray, candidates: np.ndarray) -> Tensor:
    targets = torch.from_numpy(labels[candidates]).to(state.mean.device)
    return torch.nn.functional.one_hot(targets, state.mean.shape[1]).to(state.mean) - state.mean[candidates]
