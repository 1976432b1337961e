"""Regression with a kernel: the factor, the weights and predictions of gradient flow in the limit or at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks

_LARGEST_JITTER = 1.0


def jittered_cholesky(kernel: Tensor, *, rel: float = 1e-6) -> tuple[Tensor, float]:
    """Factor a kernel after adding as little to its diagonal as it takes.

    Parameters
    ----------
    kernel : Tensor (..., n, n)
        Symmetric positive semi-definite up to rounding; never changed.
    rel : float, default=1e-6
        First jitter tried, relative to the mean of the diagonal; zero tries the bare kernel first.

    Returns
    -------
    factor : Tensor (..., n, n)
        Lower triangular, in float64.
    jitter : float
        The absolute jitter that it took; the largest, if there are batch axes.

    Raises
    ------
    InvalidInputError
        If the kernel is not square or not finite, or is indefinite beyond a jitter as large as its mean diagonal.

    Notes
    -----
    Each failed attempt raises the jitter tenfold.

    Examples
    --------
    >>> factor, jitter = jittered_cholesky(torch.ones(2, 2))
    >>> jitter, bool(factor.isfinite().all())
    (1e-06, True)
    """
    matrix = square("kernel", kernel)
    if matrix.shape[-1] == 0:
        return matrix.clone(), 0.0
    mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    # A kernel of zeros has no scale of its own; its jitter is then absolute.
    scale = torch.where(mean > 0, mean, torch.ones_like(mean))
    while rel <= _LARGEST_JITTER:
        shifted = matrix.clone()
        shifted.diagonal(dim1=-2, dim2=-1).add_((rel * scale)[..., None])
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not bool(failed.any()):
            return factor, float((rel * scale).max())
        rel = max(10 * rel, 1e-14)
    remedy = "Check that it is symmetric and that all of it comes from one network."
    got = f"one of mean diagonal {float(mean.min()):.3g} that is not"
    raise checks.expected("a positive semi-definite kernel", got, remedy)


def ntk_regression(
    kernel_train: Tensor,
    kernel_test: Tensor,
    targets: Tensor,
    *,
    f0_train: Tensor | None = None,
    f0_test: Tensor | None = None,
    time: float | None = None,
    rel_jitter: float = 1e-6,
) -> Tensor:
    """Predict with the linearised network trained by gradient flow on the squared error.

    Parameters
    ----------
    kernel_train : Tensor (..., l, l)
        Kernel among the training rows.
    kernel_test : Tensor (..., e, l)
        Kernel of the rows to predict against the training rows.
    targets : Tensor (..., l, K)
        Training targets.
    f0_train, f0_test : Tensor (..., l, K), (..., e, K), optional
        Outputs before training; zero by default.
    time : float or None, default=None
        Training time at unit rate, for ``0.5 * ||targets - f||^2`` summed over samples; None is the limit.
    rel_jitter : float, default=1e-6
        Jitter of the solve in the limit, see `jittered_cholesky`; a finite time needs none.

    Returns
    -------
    Tensor (..., e, K)
        Predictions, in float64.

    Raises
    ------
    InvalidInputError
        If shapes disagree or `time` is not positive.

    Notes
    -----
    NTKCPL, equation 3; NTK look-ahead, equation 5. Both papers go on with the limit.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> [round(ntk_regression(2 * one, one, one, time=t).item(), 4) for t in (None, 0.5)]
    [0.5, 0.3161]
    """
    train = square("kernel_train", kernel_train)
    test = torch.as_tensor(kernel_test).detach().to(train)
    if test.shape[-1] != train.shape[-1]:
        got = f"shape {tuple(test.shape)}"
        raise checks.expected(f"kernel_test with {train.shape[-1]} columns", got, "One column per training row.")
    residual = outputs_of("targets", targets, train)
    if f0_train is not None:
        residual = residual - outputs_of("f0_train", f0_train, train)
    change = test @ training_weights(train, residual, time=time, rel_jitter=rel_jitter)
    return change if f0_test is None else change + torch.as_tensor(f0_test).detach().to(change)


def training_weights(
    kernel: Tensor, residual: Tensor, *, time: float | None = None, rel_jitter: float = 1e-6
) -> Tensor:
    """Solve the regression for the weights with which a row's kernel to the training rows makes its change.

    Parameters
    ----------
    kernel : Tensor (..., l, l)
        Kernel among the training rows.
    residual : Tensor (..., l, K)
        Targets less the outputs before training.
    time, rel_jitter
        As for `ntk_regression`.

    Returns
    -------
    Tensor (..., l, K)
        K^-1 (1 - exp(-t K)) residual, in float64.

    Examples
    --------
    >>> round(training_weights(2 * torch.ones(1, 1), torch.ones(1, 1), rel_jitter=0.0).item(), 6)
    0.5
    """
    train = square("kernel", kernel)
    residual = residual.to(train)
    if time is not None:
        return _finite_time_weights(train, residual, checks.check_positive("time", time))
    factor, _ = jittered_cholesky(train, rel=rel_jitter)
    return torch.cholesky_solve(residual, factor)


def _finite_time_weights(train: Tensor, residual: Tensor, time: float) -> Tensor:
    # (1 - exp(-t v)) / v tends to t as the eigenvalue v vanishes, so a singular kernel is no special case.
    values, vectors = torch.linalg.eigh(train)
    safe = torch.where(values > 0, values, torch.ones_like(values))
    gain = torch.where(values > 0, -torch.expm1(-time * safe) / safe, torch.full_like(values, time))
    return vectors @ (gain[..., None] * (vectors.mT @ residual))


def square(name: str, kernel: Any, dtype: torch.dtype | None = torch.float64) -> Tensor:
    """Return a kernel as a tensor, detached, or say that it is not square or not finite."""
    matrix = torch.as_tensor(kernel).detach()
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise checks.expected(f"a square {name}", f"shape {tuple(matrix.shape)}", "Use one row and column per sample.")
    matrix = matrix if dtype is None and matrix.is_floating_point() else matrix.to(dtype or torch.float64)
    if not all_finite(matrix):
        raise checks.expected(f"a finite {name}", "NaN or infinity", "Look for overflow in the network's outputs.")
    return matrix


def all_finite(matrix: Tensor) -> bool:
    """Say whether all entries are finite; by the extremes, so that no second matrix is made and no sum overflows."""
    if not matrix.numel():
        return True
    least, most = matrix.aminmax()  # NaN if any entry is
    return bool(least.isfinite() and most.isfinite())


def outputs_of(name: str, values: Any, kernel: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return values (..., n, K) on the device of a kernel (..., n, n), or say that the rows differ."""
    out = torch.as_tensor(values).detach().to(kernel.device, dtype or kernel.dtype)
    if out.ndim < 2 or out.shape[-2] != kernel.shape[-1]:
        got = f"shape {tuple(out.shape)}"
        raise checks.expected(f"{name} of shape ({kernel.shape[-1]}, K)", got, "Pass one row per row of the kernel.")
    return out
