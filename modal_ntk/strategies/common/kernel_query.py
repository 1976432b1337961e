"""What strategies share that put labelled samples and candidates into one kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modal_ntk import checks, kernels, nets, progress
from modal_ntk.checks.parameters import COUNT, POSITIVE, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.common.query import Query

if TYPE_CHECKING:
    from torch import Tensor

Scaling = Literal["l2", "center_l2", "standard"] | None
CONSTRAINTS: Constraints = {
    "features": [str, callable],
    "feature_scaling": [StrOptions({"l2", "center_l2", "standard"}), None],
    "n_candidates": [COUNT, None],
    "rel_jitter": [POSITIVE],
    "dtype": [StrOptions({"float64", "float32"})],
    "memory_budget": [COUNT],
}
"""What the parameters may be that all of these strategies have."""

_MOST = 300  # of the largest entry's exponent: beyond it sums of squares leave float64


def stacked(query: Query, read: Callable[[Any], Tensor]) -> Tensor:
    """Read the labelled samples, then the whole pool, as one tensor.

    Parameters
    ----------
    query : Query
        Where they are.
    read : callable
        From samples to a tensor with one row each.

    Returns
    -------
    Tensor (l + n, ...)
        Rows in one numbering: labelled first.
    """
    with progress.stage("features", query.n_labeled + query.n_pool, "row"):
        return torch.cat([read(X) for X in (query.X_labeled, query.X_pool) if X is not None])


def candidate_positions(query: Query, n_candidates: int | None) -> np.ndarray:
    """Return the positions of a random part of the pool.

    Parameters
    ----------
    query : Query
        Gives sizes and the draw.
    n_candidates : int or None
        Size of the part; None or more than there are takes all, and never fewer than the batch needs.

    Returns
    -------
    numpy.ndarray (m,), int64
        In rising order.
    """
    if n_candidates is None or n_candidates >= query.n_pool:
        return np.arange(query.n_pool)
    return np.sort(query.rng.choice(query.n_pool, max(n_candidates, query.n_instances), replace=False))


def candidates_of(query: Query, n_candidates: int | None) -> tuple[Query, np.ndarray]:
    """Return a query over the candidates alone, and where in the pool they are.

    Parameters
    ----------
    query : Query
        Over the whole pool.
    n_candidates : int or None
        As for `candidate_positions`.

    Returns
    -------
    query : Query
        The same over the candidates, in rising order; the query itself where these are the whole pool.
    positions : numpy.ndarray (m,), int64
        Their positions in the pool.
    """
    positions = candidate_positions(query, n_candidates)
    if len(positions) == query.n_pool:
        return query, positions
    return replace(query, X_pool=nets.take_rows(query.X_pool, positions)), positions


def check_memory(query: Query, n_candidates: int | None, dtype: str, memory_budget: int) -> None:
    """Refuse a kernel that would not fit the budget, before anything is computed.

    Parameters
    ----------
    query : Query
        Gives sizes.
    n_candidates : int or None
        As for `candidate_positions`.
    dtype : {"float32", "float64"}
        Type of the kernel.
    memory_budget : int
        Bytes.

    Raises
    ------
    InvalidInputError
        If it is larger.
    """
    n_pool = query.n_pool if n_candidates is None else min(query.n_pool, max(n_candidates, query.n_instances))
    n = query.n_labeled + n_pool
    needed = n * n * np.dtype(dtype).itemsize
    if needed > memory_budget:
        remedy = 'Lower n_candidates, pass dtype="float32", or raise memory_budget.'
        raise checks.expected(f"a kernel of at most {memory_budget} bytes", f"{n} rows, {needed} bytes", remedy)


def head_kernel(
    fixed: Tensor,
    query: Query,
    *,
    n_hidden: int | None,
    n_outputs: int,
    kind: Literal["pseudo", "trace"],
    scaling: Scaling,
    dtype: str,
) -> tuple[Tensor, Tensor | None]:
    """Compute kernel and outputs of a freshly drawn two-layer head on fixed features.

    Parameters
    ----------
    fixed : Tensor (n, d)
        Fixed features.
    query : Query
        Gives the device and the draw.
    n_hidden : int or None
        Hidden width; None is the limit of infinite width, in closed form, for which nothing is drawn.
    n_outputs : int
        Width of the output.
    kind : {"pseudo", "trace"}
        As for ``kernels.empirical_ntk``; in the limit of width they are one.
    scaling : {"l2", "center_l2", "standard"} or None
        What is done to the features first, see `scaled`.
    dtype : {"float32", "float64"}
        Type of the kernel; weights are drawn in double precision, so that both have the same.

    Returns
    -------
    kernel : Tensor (n, n)
        On the device of the learner's net.
    f0 : Tensor (n, n_outputs) or None
        Outputs at initialisation; None in the limit of width, where they are one draw of a Gaussian process.
    """
    with progress.stage("kernel"):
        rows = scaled(fixed.to(query.view.device), scaling)
        if n_hidden is None:
            return kernels.infinite_width_ntk(rows, dtype=getattr(torch, dtype)), None
        x = rows.to(getattr(torch, dtype))
        generator = torch.Generator().manual_seed(int(query.rng.integers(2**31)))
        head = kernels.ntk_head(x.shape[1], n_hidden, n_outputs, generator=generator, dtype=torch.float64).to(x)
        kernel = kernels.empirical_ntk(head, x, kind=kind)
        with torch.no_grad():
            return kernel, head(x)


def net_kernel(query: Query, *, kind: Literal["pseudo", "trace"], dtype: str) -> Tensor:
    """Compute the empirical kernel of the learner's net over the labelled samples and the pool, stacked.

    Parameters
    ----------
    query : Query
        Gives net and samples.
    kind : {"pseudo", "trace"}
        As for ``kernels.empirical_ntk``.
    dtype : {"float32", "float64"}
        Type of the kernel.

    Returns
    -------
    Tensor (l + n, l + n)
        On the device of the net.
    """
    x = nets.stacked_inputs(query.view, query.X_labeled, query.X_pool)
    module = nets.logit_module(query.view, query.X_pool)
    with progress.stage("kernel"):
        return kernels.empirical_ntk(module, x, kind=kind, dtype=getattr(torch, dtype))


def scaled(fixed: Tensor, how: Scaling, *, among: Tensor | None = None) -> Tensor:
    """Scale fixed features.

    Parameters
    ----------
    fixed : Tensor (n, d)
        Features.
    how : {"l2", "center_l2", "standard"} or None
        Rows of length one; columns of mean zero, then rows of length one; columns of mean zero and deviation one; or as
        they are. What is zero, or the mean up to rounding, is zero afterwards: a row, or a column that is constant.
    among : Tensor (m, d), optional
        Rows whose means and deviations are taken; those of `fixed` by default.

    Returns
    -------
    Tensor (n, d), float64
        The features, scaled.
    """
    rows = fixed.to(torch.float64)
    if how is None:
        return rows
    given, rounding = fixed if among is None else among, 8 * torch.finfo(fixed.dtype).eps
    if abs(exponent := int(np.frexp(float(given.abs().amax()))[1])) > _MOST:
        # By a power of two, which changes no digit.
        given, rows = (part * 2.0 ** -max(exponent, -1000) for part in (given, rows))
    if how == "l2":
        return _unit(rows, torch.zeros(()))
    mean = given.mean(dim=0, dtype=torch.float64)
    centred = rows - mean
    low, high = (centred if among is None else given - mean).aminmax(dim=0)
    # Columns and rows that differ from the mean by their type's rounding alone have no direction: what is left of them
    # is noise, which for a large constant is larger than other columns.
    constant = torch.maximum(-low, high) <= rounding * mean.abs()
    centred[:, constant] = 0.0
    if how == "standard":
        deviation = given.to(torch.float64).std(dim=0, correction=0)
        return centred / deviation.where(deviation > 0, 1.0)
    return _unit(centred, rounding * mean.where(~constant, 0.0).norm())


def _unit(rows: Tensor, least: Tensor) -> Tensor:
    lengths = rows.norm(dim=1, keepdim=True)
    return (rows / lengths.where(lengths > 0, 1.0)).where(lengths > least, 0.0)
