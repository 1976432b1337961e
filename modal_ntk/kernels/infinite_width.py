"""The neural tangent kernel of an infinitely wide two-layer head, in closed form: no draw, no noise of a draw."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.features.packed import mirror

_BLOCK_BYTES = 2**22  # a block stays in the processor's cache between its product and its angles


def infinite_width_ntk(
    x1: Any,
    x2: Any = None,
    *,
    dtype: torch.dtype | None = None,
    memory_budget: int | None = None,
) -> Tensor:
    """Compute the kernel of a bias-free Linear-ReLU-Linear head whose hidden layer is infinitely wide.

    Parameters
    ----------
    x1 : Tensor or array-like (n1, d)
        Samples of the rows, finite.
    x2 : Tensor or array-like (n2, d), optional
        Samples of the columns; those of the rows by default.
    dtype : torch.dtype, optional
        Type of the result; that of `x1` by default. Angles are computed in float64 whatever it is.
    memory_budget : int or None, default=None
        Bytes the result may take; a larger one is refused before it is made. None is no limit. Beside the result a
        few blocks of 4 MiB are held, and a float64 copy of the samples if they are of another type.

    Returns
    -------
    Tensor (n1, n2)
        On the device of `x1`; symmetric to the last bit if `x2` is not given.

    Raises
    ------
    InvalidInputError
        If the samples are not two matrices of the same width, or not finite, or the result exceeds the budget.

    Notes
    -----
    The limit of `modal_ntk.kernels.empirical_ntk` for `modal_ntk.kernels.ntk_head` as ``n_hidden`` grows, where all
    outputs share one kernel (Jacot, Gabriel, Hongler 2018; the arc-cosine kernels of Cho and Saul 2009). With norms
    ``n = |x| / sqrt(d)`` and t the angle between two samples,

        K(x, x') = n n' (sin t + 2 (pi - t) cos t) / (2 pi).

    It is positive semi-definite, homogeneous of degree one in each sample, and a function of the angle alone for
    samples of unit length. Two samples that differ by rounding alone have an angle of about 1e-8 instead of zero,
    which moves their entry by a relative 1e-8.

    Examples
    --------
    Parallel samples share all of their kernel, opposite ones none.

    >>> kernel = infinite_width_ntk([[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> [[round(value, 6) for value in row] for row in kernel.tolist()]
    [[2.0, 1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.5]]
    """
    rows = _samples("x1", x1)
    columns = rows if x2 is None else _samples("x2", x2).to(rows.device)
    if rows.shape[1] != columns.shape[1]:
        remedy = "Describe both by the same features."
        raise checks.expected(f"x2 of width {rows.shape[1]}", f"width {columns.shape[1]}", remedy)
    dtype = rows.dtype if dtype is None else dtype
    needed = len(rows) * len(columns) * dtype.itemsize
    if memory_budget is not None and needed > checks.check_integer("memory_budget", memory_budget):
        got = f"{len(rows)} by {len(columns)} entries, {needed} bytes"
        remedy = "Pass fewer samples, dtype=torch.float32 or a larger memory_budget."
        raise checks.expected(f"a kernel of at most {memory_budget} bytes", got, remedy)
    kernel = torch.empty(len(rows), len(columns), dtype=dtype, device=rows.device)
    (u1, n1), (u2, n2) = _directions(rows), _directions(columns)
    width = max(1, _BLOCK_BYTES // (8 * max(1, len(columns))))
    for start in range(0, len(rows), width):
        block = slice(start, start + width)
        # Of a symmetric kernel only what lies right of the diagonal is computed.
        rest = slice(start if x2 is None else 0, None)
        kernel[block, rest] = _by_cosine(u1[block] @ u2[rest].T).mul_(n1[block, None]).mul_(n2[rest]).to(dtype)
    if x2 is None:
        mirror(kernel)
        kernel.diagonal().copy_(n1.square())  # the angle to oneself is zero without rounding
    return kernel


def _by_cosine(cosine: Tensor) -> Tensor:
    cosine = cosine.clamp_(-1, 1)
    angle = cosine.arccos()
    sine = (1 - cosine.square()).clamp_min_(0).sqrt_()
    return sine.add_(cosine.mul_(angle.neg_().add_(math.pi)), alpha=2).div_(2 * math.pi)


def _directions(x: Tensor) -> tuple[Tensor, Tensor]:
    # Unit vectors and lengths over root d; a sample of zeros has no direction, and length zero makes up for it.
    wide = x.to(torch.float64)
    largest = wide.abs().amax(dim=1, keepdim=True)
    scaled = wide / largest.where(largest > 0, 1.0)
    lengths = scaled.norm(dim=1, keepdim=True)
    return scaled / lengths.where(lengths > 0, 1.0), (lengths * largest)[:, 0] / math.sqrt(x.shape[1])


def _samples(name: str, x: Any) -> Tensor:
    samples = torch.as_tensor(x).detach()
    if samples.ndim != 2 or samples.shape[1] == 0 or samples.is_complex():
        got = f"{samples.dtype} of shape {tuple(samples.shape)}"
        raise checks.expected(f"{name} of shape (n, d)", got, "Flatten each sample to one row of real numbers.")
    samples = samples if samples.is_floating_point() else samples.to(torch.get_default_dtype())
    if not bool(samples.isfinite().all()):
        raise checks.expected(f"finite {name}", "NaN or infinity", "Scale or impute the samples.")
    return samples
