"""Rows of a call that are not where samples are expected, as in a mixture of experts: each given to its sample."""

from __future__ import annotations

import torch
from torch import Tensor

from modal_ntk.features.capture.layers import Maker


def owners_of(make: Maker, gradients: Tensor | None, weighted: Tensor | None, weights: Tensor) -> Tensor | None:
    """Tell whose each row of a call is, or -1 of one without gradient.

    Of a row that belongs to one sample, the gradient is that sample's weight times what it is unweighted.

    Parameters
    ----------
    make : Maker
        Of the call.
    gradients : Tensor (rows, r, ...) or None
        At its output, of each weighted output.
    weighted : Tensor (rows, ...) or None
        At its output, of all, each sample by its weight.
    weights : Tensor (n,)
        These.

    Returns
    -------
    Tensor (rows,), int64, or None
        Numbers of samples; None if there are no gradients.
    """
    if gradients is None or weighted is None:
        return None
    axes = make.own_axes
    last = gradients.ndim - 2 if axes is None else axes[1]
    plain, grown = gradients.sum(1), weighted
    size = plain.shape[plain.ndim - last :].numel()
    plain, grown = plain.reshape(-1, size).double(), grown.reshape(-1, size).double()
    squares = plain.square().sum(1)
    ordered, numbers = weights.double().sort()
    ratio = (plain * grown).sum(1) / squares
    nearest = numbers[torch.searchsorted((ordered[1:] + ordered[:-1]) / 2, ratio.nan_to_num(0.0))]
    return torch.where(squares > 0, nearest, -1)  # a row without gradient belongs to none


def grouped(
    make: Maker, data: Tensor | None, gradient: Tensor, owners: Tensor, n: int
) -> tuple[Tensor | None, Tensor] | None:
    """Lay each sample's rows of a call side by side, with zero gradients to fill up.

    Parameters
    ----------
    make : Maker
        Of the call.
    data : Tensor (rows, ...) or None
        Its input, rows in any order, as many to a sample as it has.
    gradient : Tensor (rows, r, ...)
        Gradient at its output.
    owners : Tensor (rows,)
        Whose each row is; below zero, nobody's.
    n : int
        Number of samples.

    Returns
    -------
    tuple of Tensor (n * m, ...) or None, and Tensor (n, r, m, ...); or None
        Input and gradient, m rows to a sample; None if the rows of the three are not as many.
    """
    axes = make.own_axes
    if axes is not None:
        r = gradient.shape[1]
        last = gradient.shape[gradient.ndim - axes[1] :]
        gradient = gradient.movedim(1, -1 - axes[1]).reshape(-1, r, *last)
        data = None if data is None else data.reshape(-1, *data.shape[data.ndim - axes[0] :])
    if len(owners) != len(gradient) or (data is not None and len(data) != len(gradient)):
        return None
    order = torch.argsort(owners, stable=True)[int((owners < 0).sum()) :]
    counts = torch.bincount(owners[order], minlength=n)
    most = max(1, int(counts.max()))
    place = torch.arange(len(order), device=owners.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    where = torch.full((n, most), len(owners), device=owners.device)
    where[owners[order], place] = order
    filled = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])[where.flatten()]
    filled = filled.reshape(n, most, *gradient.shape[1:]).transpose(1, 2)
    if data is not None:
        data = torch.cat([data, data.new_zeros(1, *data.shape[1:])])[where.flatten()]
    return data, filled
