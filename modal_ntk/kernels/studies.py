"""What a kernel and labels say about training and generalisation (dynamicAL, its appendix).

Layout: kernel (n, n), targets (n, K) or class numbers (n,), which are written as one-hot rows; float64 throughout.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.kernels.posterior import row_numbers
from modal_ntk.kernels.regression import jittered_cholesky


class MMD(NamedTuple):
    """Maximum mean discrepancy of a subset from its whole.

    Parameters
    ----------
    value : float
        Root of the squared discrepancy, zero where that is negative.
    squared : float
        The unbiased estimate, which may be negative.
    """

    value: float
    squared: float


def alignment(kernel: Tensor, targets: Any) -> float:
    """Compute how much of the targets lies along the kernel's strong directions.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel of the samples.
    targets : Tensor (n, K) or array-like (n,)
        Their targets or class numbers.

    Returns
    -------
    float
        Tr(Y' K Y).

    Notes
    -----
    dynamicAL, above equation 28: the larger, the faster training goes.

    Examples
    --------
    >>> alignment(torch.eye(3), [0, 1, 0])
    3.0
    """
    matrix, goal = _pair(kernel, targets)
    return float((goal * (matrix @ goal)).sum())


def generalization_bound(kernel: Tensor, targets: Any, *, rel_jitter: float = 1e-6) -> float:
    """Compute the kernel bound on the expected loss of the network trained to the end.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel of the training samples.
    targets : Tensor (n, K) or array-like (n,)
        Their targets or class numbers.
    rel_jitter : float, default=1e-6
        Jitter of the solve; see `modal_ntk.kernels.jittered_cholesky`.

    Returns
    -------
    float
        sqrt(2 Tr(Y' K^-1 Y) / n).

    Notes
    -----
    dynamicAL, equation 29.

    Examples
    --------
    >>> round(generalization_bound(torch.eye(2), [0, 1]), 4)
    1.4142
    """
    matrix, goal = _pair(kernel, targets)
    factor, _ = jittered_cholesky(matrix, rel=rel_jitter)
    half = torch.linalg.solve_triangular(factor, goal, upper=False)
    return math.sqrt(2 * float(half.square().sum()) / len(goal))


def mmd(kernel: Tensor, subset: Any) -> MMD:
    """Compute the maximum mean discrepancy between part of a sample and all of it.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel of all samples.
    subset : array-like (m,)
        Row numbers of the part, two at least and fewer than all.

    Returns
    -------
    MMD
        The estimate and its root.

    Raises
    ------
    InvalidInputError
        If the subset has fewer than two rows.

    Notes
    -----
    dynamicAL, equation 33, whose last sum is taken over all pairs but the m of a sample with itself (its printed
    range is a slip). The estimate is unbiased and so can be negative.

    Examples
    --------
    >>> kernel = torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.5, 0.2], [0.1, 0.2, 1.0]])
    >>> round(mmd(kernel, [0, 1]).squared, 6)
    0.116667
    """
    matrix = torch.as_tensor(kernel).detach().to(torch.float64)
    rows = row_numbers("subset", subset, matrix)
    n, m = len(matrix), len(rows)
    if m < 2:
        raise checks.expected("a subset of two rows or more", f"{m}", "One sample has no spread.")
    trace = matrix.diagonal()[rows].sum()
    within = matrix[rows][:, rows].sum() - trace
    overall = matrix.sum() - matrix.diagonal().sum()
    across = matrix[rows].sum() - trace
    squared = float(within / (m * (m - 1)) + overall / (n * (n - 1)) - 2 * across / (m * (n - 1)))
    return MMD(math.sqrt(max(squared, 0.0)), squared)


def training_dynamics(kernel: Tensor, residuals: Tensor) -> float:
    """Compute how fast gradient descent lowers the summed loss, per unit of learning rate.

    Parameters
    ----------
    kernel : Tensor (n, n) or (n, n, K, K)
        A kernel shared by all outputs, or the full one.
    residuals : Tensor (n, K)
        Derivative of the loss by the outputs: ``softmax(f) - y`` for the cross-entropy, ``f - y`` for half the
        squared error.

    Returns
    -------
    float
        The sum over pairs of samples and outputs of residual times kernel times residual.

    Raises
    ------
    InvalidInputError
        If shapes disagree.

    Notes
    -----
    dynamicAL, equation 8. With the full kernel it is the squared length of the summed loss gradient.

    Examples
    --------
    >>> training_dynamics(torch.eye(2), torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
    6.0
    """
    matrix, d = torch.as_tensor(kernel).detach().to(torch.float64), torch.as_tensor(residuals).detach()
    d = d.to(matrix)
    n, k = d.shape if d.ndim == 2 else (-1, -1)
    if matrix.shape not in ((n, n), (n, n, k, k)):
        got = f"kernel {tuple(matrix.shape)} with residuals {tuple(d.shape)}"
        raise checks.expected("a kernel (n, n) or (n, n, K, K) with residuals (n, K)", got, "Use the same samples.")
    if matrix.ndim == 2:
        return alignment(matrix, d)
    return float(torch.einsum("ia,ijab,jb->", d, matrix, d))


def training_error(kernel: Tensor, targets: Any, *, rate: float, n_steps: int) -> float:
    """Compute the squared training error that is left after some steps of gradient descent from zero.

    Parameters
    ----------
    kernel : Tensor (n, n)
        Kernel of the training samples.
    targets : Tensor (n, K) or array-like (n,)
        Their targets or class numbers.
    rate : float
        Learning rate, for half the squared error summed over samples.
    n_steps : int
        Number of steps.

    Returns
    -------
    float
        The sum over eigenpairs (v, u) of ``(1 - rate v)^(2 n_steps) |u'Y|^2``.

    Notes
    -----
    dynamicAL, equation 28, which bounds it by `alignment` from both sides while ``rate`` times the largest eigenvalue
    is at most one.

    Examples
    --------
    >>> training_error(torch.eye(2), [0, 1], rate=0.5, n_steps=1)
    0.5
    """
    matrix, goal = _pair(kernel, targets)
    values, vectors = torch.linalg.eigh(matrix)
    left = (1 - rate * values) ** (2 * n_steps)
    return float((left * (vectors.T @ goal).square().sum(1)).sum())


def _pair(kernel: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
    matrix = torch.as_tensor(kernel).detach().to(torch.float64)
    goal = torch.as_tensor(targets).detach()
    if goal.ndim == 1 and not goal.is_floating_point():
        goal = torch.nn.functional.one_hot(goal.long())
    n = len(goal)
    if goal.ndim != 2 or matrix.shape != (n, n):
        got = f"kernel {tuple(matrix.shape)} with targets {tuple(goal.shape)}"
        raise checks.expected("a kernel (n, n) with targets (n, K) or class numbers (n,)", got, "Use the same samples.")
    return matrix, goal.to(matrix)
