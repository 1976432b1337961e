"""The rows a distance is taken on: the net's embedding, the samples themselves, a layer or the user's own function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modal_ntk import checks, progress
from modal_ntk.environment.late import torch
from modal_ntk.structure.magnitudes import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.nets import NetView
    from modal_ntk.strategies.common.query import Query


@dataclass(frozen=True)
class Rows:
    """Labelled and unlabelled samples as points.

    Parameters
    ----------
    labeled : Tensor (l, d)
        The labelled samples; l may be zero.
    pool : Tensor (n, d)
        The unlabelled samples.
    source : str
        What they were read from: "embedding", "input", the layer's name or "callable".
    """

    labeled: Tensor
    pool: Tensor
    source: str

    def joined(self) -> Tensor:
        """Return one matrix (l + n, d), the labelled samples first."""
        return torch.cat([self.labeled, self.pool])


def needs_of(features: Any, *, auto: bool = True) -> set[str]:
    """Return the needs that a choice of features adds, keys of ``hooks.NEEDS``; without `auto` that is no choice."""
    free = ("auto", "input") if auto else ("input",)
    return {"embedding"} if isinstance(features, str) and features not in free else set()


def source_of(view: NetView, features: Any) -> Any:
    """Return `features`, "auto" resolved: the embedding where a fitted torch net is there, else the samples."""
    if isinstance(features, str) and features == "auto":
        return "embedding" if view.offers("embedding") else "input"
    return features


def name_of(view: NetView, features: Any) -> str:
    """Return what a result says of its points: "embedding", "input", the layer's name or "callable"."""
    source = source_of(view, features)
    return source if isinstance(source, str) else "callable"


def read(view: NetView, X: Any, features: Any) -> Tensor:
    """Return samples as points (n, d), float32 or float64, on the CPU.

    Parameters
    ----------
    view : NetView
        The learner.
    X : samples (n, ...)
        As users pass them.
    features : str or callable
        "auto", "embedding", "input", a layer's name, or a function from prepared samples to a matrix (n, d).

    Returns
    -------
    Tensor (n, d)
        One flattened row per sample.

    Raises
    ------
    InvalidInputError
        If a value is NaN or infinite.
    """
    source = source_of(view, features)
    with progress.stage("features", checks.n_rows(X), "row"):
        rows = view.embeddings(X) if source == "embedding" else view.features(X, source)
    # Of a net in half precision distances are taken in single.
    rows = rows if rows.dtype == torch.float64 else rows.float()
    finite = torch.cat([torch.isfinite(some).all(dim=1) for some in rows.split(2**16)])
    if not bool(finite.all()):
        remedy = "Check the net's weights, or scale the samples."
        got = f"NaN or infinity, first in row {int(finite.int().argmin())}"
        raise checks.expected(f"finite features ({name_of(view, features)})", got, remedy)
    return rows


def read_rows(query: Query, features: Any, *, normalise: bool = False) -> Rows:
    """Return labelled set and pool of a query as points.

    Parameters
    ----------
    query : Query
        What the strategy was asked.
    features : str or callable
        "auto", "embedding", "input", a layer's name, or a function from prepared samples to a matrix (n, d).
    normalise : bool, default=False
        Whether every row is scaled to length one; a row of zeros stays.

    Returns
    -------
    Rows
        Both of one type.
    """
    pool = read(query.view, query.X_pool, features)
    labeled = pool[:0]
    if query.X_labeled is not None:
        labeled = read(query.view, query.X_labeled, features).to(pool.dtype)
    if normalise:
        labeled, pool = (torch.from_numpy(unit_rows(part.numpy())) for part in (labeled, pool))
    return Rows(labeled, pool, name_of(query.view, features))
