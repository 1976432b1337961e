"""Kernel regression as a Gaussian posterior: solve once, then add labelled rows one by one or by blocks.

Layout: a kernel over n rows is (n, n), outputs are (n, K), one kernel serving all K outputs. Everything is solved in
float64 on the kernel's device, whatever comes in; where a shape is written (..., n, n), leading batch axes may stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.kernels.regression import jittered_cholesky, outputs_of, square

_SINGLE = 1e-5  # variance relative to the mean diagonal that float32 cannot tell from rounding
_BAND_BYTES = 2**26


@dataclass
class Posterior:
    """Prediction and remaining covariance at all rows, given the labelled ones; updated in place by `condition`.

    Parameters
    ----------
    covariance : Tensor (n, n)
        The kernel less what the labelled rows explain.
    mean : Tensor (n, K)
        Prediction of the regression.
    jitter : float
        What was added to the diagonal of the labelled block; a row whose variance is no larger is known already.
    """

    covariance: Tensor
    mean: Tensor
    jitter: float


def posterior(
    kernel: Tensor,
    labeled: Any,
    targets: Tensor,
    *,
    f0: Tensor | None = None,
    rel_jitter: float = 1e-6,
    dtype: torch.dtype = torch.float64,
    overwrite: bool = False,
) -> Posterior:
    """Train the regression on some rows and return mean and covariance over all.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel over all rows; never changed unless `overwrite`.
    labeled : array-like (l,)
        Numbers of the rows to train on; may be empty.
    targets : Tensor (n, K)
        Targets of all rows; only those of `labeled` are read.
    f0 : Tensor (n, K), optional
        Outputs before training; zero by default.
    rel_jitter : float, default=1e-6
        Jitter on the labelled block, relative to its mean diagonal.
    dtype : torch.dtype, default=torch.float64
        Type of the result. The regression is solved in float64 whatever it is; float32 halves the memory, and
        its jitter counts as at least 1e-5 of the mean diagonal, below which a variance is rounding.
    overwrite : bool, default=False
        Whether the covariance may take the kernel's memory; it does where the types are equal.

    Returns
    -------
    Posterior
        With covariance ``K - K_:L (K_LL + jitter)^-1 K_L:`` and the mean of equation 3 in the limit; with no labels,
        the kernel itself and `f0`.

    Raises
    ------
    InvalidInputError
        If shapes disagree, or a row is out of range or repeated.

    Examples
    --------
    >>> state = posterior(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), [0], torch.eye(2), rel_jitter=0.0)
    >>> state.covariance[1, 1].item(), round(state.mean[1, 0].item(), 6)
    (1.5, 0.5)
    """
    source = square("kernel", kernel, dtype=None)
    rows = row_numbers("labeled", labeled, source)
    scale = float(source.diagonal().to(torch.float64).mean())
    goal = outputs_of("targets", targets, source, torch.float64)
    mean = torch.zeros_like(goal) if f0 is None else outputs_of("f0", f0, source, torch.float64).clone()
    if mean.shape != goal.shape:
        raise checks.expected(f"f0 of shape {tuple(goal.shape)}", f"{tuple(mean.shape)}", "Match the targets.")
    cross = source[rows].to(torch.float64)
    state = Posterior(source.to(dtype, copy=not overwrite), mean, rel_jitter * scale)
    if len(rows):
        factor, state.jitter = jittered_cholesky(cross[:, rows], rel=rel_jitter)
        _absorb(state, factor, cross, goal[rows] - mean[rows])
    return Posterior(state.covariance, mean.to(dtype), known_below(source.diagonal(), dtype, state.jitter))


def known_below(diagonal: Tensor, dtype: torch.dtype, jitter: float) -> float:
    """Return the variance up to which a row counts as known already.

    Parameters
    ----------
    diagonal : Tensor (n,)
        Of the kernel.
    dtype : torch.dtype
        Type that the covariance is, or the kernel was, held in.
    jitter : float
        What the labelled block was solved with.

    Returns
    -------
    float
        The jitter; in single precision at least 1e-5 of the mean diagonal, below which a variance is rounding.

    Examples
    --------
    >>> known_below(torch.tensor([1.0, 3.0]), torch.float64, 1e-6), known_below(torch.ones(2), torch.float32, 1e-6)
    (1e-06, 1e-05)
    """
    return jitter if dtype == torch.float64 else max(jitter, _SINGLE * float(diagonal.to(torch.float64).mean()))


def condition(state: Posterior, index: int, target_row: Tensor) -> None:
    """Train on one more row, in place, by a rank-one update.

    Parameters
    ----------
    state : Posterior
        Changed in place.
    index : int
        The row.
    target_row : Tensor (K,)
        Its target.

    Raises
    ------
    InvalidInputError
        If there is no such row.

    Notes
    -----
    Equal to solving the regression anew: ``f(x) + G_xi / G_ii (y - f(i))`` and ``G - G_:i G_i: / G_ii`` (NTK
    look-ahead, equation 12, with the inverse that is missing from its text). A row whose variance is within the
    jitter is a copy of what is known, and changes nothing.

    Examples
    --------
    >>> state = posterior(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), [], torch.zeros(2, 1))
    >>> condition(state, 0, torch.ones(1))
    >>> state.mean.squeeze(1).tolist(), state.covariance[1, 1].item()
    ([1.0, 0.5], 1.5)
    """
    if not 0 <= index < len(state.mean):
        raise checks.expected(f"a row from 0 to {len(state.mean) - 1}", index, "Count rows of the kernel.")
    variance = float(state.covariance[index, index])
    if variance <= state.jitter:
        return
    column = state.covariance[:, index].clone()
    residual = torch.as_tensor(target_row).to(state.mean) - state.mean[index]
    state.mean.addr_(column, residual / variance)
    state.covariance.addr_(column, column, alpha=-1 / variance)


def condition_block(state: Posterior, indices: Any, target_rows: Tensor) -> float:
    """Train on several more rows at once, in place.

    Parameters
    ----------
    state : Posterior
        Changed in place.
    indices : array-like (b,)
        The rows.
    target_rows : Tensor (b, K)
        Their targets.

    Returns
    -------
    float
        The jitter that the block's covariance was solved with.

    Notes
    -----
    Equal to `condition` row by row, up to the jitter, at the cost of one product instead of b passes. Rows that
    the others determine (duplicates) are held by the jitter rather than left out.

    Examples
    --------
    >>> state = posterior(torch.eye(3), [], torch.zeros(3, 1))
    >>> jitter = condition_block(state, [0, 2], torch.ones(2, 1))
    >>> state.mean.flatten().round(decimals=3).tolist()
    [1.0, 0.0, 1.0]
    """
    rows = row_numbers("indices", indices, state.covariance)
    if len(rows) == 0:
        return 0.0
    cross = state.covariance[rows]
    block = cross[:, rows]
    block.diagonal().add_(state.jitter)
    factor, extra = jittered_cholesky(block, rel=0.0)
    _absorb(state, factor, cross, torch.as_tensor(target_rows).to(state.mean) - state.mean[rows])
    return state.jitter + extra


def _absorb(state: Posterior, factor: Tensor, cross: Tensor, residual: Tensor) -> None:
    half = torch.linalg.solve_triangular(factor, cross.to(factor), upper=False)
    change = half.T @ torch.linalg.solve_triangular(factor, residual.to(factor), upper=False)
    state.mean.add_(change.to(state.mean))
    _subtract_square(state.covariance, half)


def _subtract_square(covariance: Tensor, half: Tensor) -> None:
    # covariance - half' half, in place. In single precision the product is still summed in double, a band of rows
    # at a time: a well-explained row's variance is a small difference of large numbers.
    if covariance.dtype == half.dtype:
        covariance.addmm_(half.T, half, alpha=-1)
        return
    width = max(1, _BAND_BYTES // (half.element_size() * covariance.shape[1]))
    for band, part in zip(covariance.split(width), half.split(width, dim=1), strict=True):
        band.copy_(band.to(half) - part.T @ half)


def row_numbers(name: str, rows: Any, matrix: Tensor) -> Tensor:
    """Return numbers of rows of a matrix, checked, as a tensor on its device."""
    return torch.from_numpy(checks.check_rows(name, rows, len(matrix))).to(matrix.device)
