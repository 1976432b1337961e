"""Farthest-point clustering and redundancy under a kernel, read row by row or in blocks, never copied whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from modal_ntk import checks, progress

_BLOCK_BYTES = 2**24


class FarthestPoints(NamedTuple):
    """A clustering around centres that are samples.

    Parameters
    ----------
    centres : numpy.ndarray (m,), int64
        Row of each centre, in the order the clusters were opened.
    clusters : numpy.ndarray (n,), int64
        Cluster of every row; a centre belongs to its own.
    """

    centres: np.ndarray
    clusters: np.ndarray

    def sizes(self) -> np.ndarray:
        """Return the number of rows of each cluster, its centre included: (m,)."""
        return np.bincount(self.clusters, minlength=len(self.centres))

    def head(self) -> int:
        """Return the largest cluster; of equal ones the first opened."""
        return int(self.sizes().argmax())


def farthest_point_clustering(
    kernel: Any,
    n_clusters: int,
    *,
    first: Any = None,
) -> FarthestPoints:
    """Open clusters one by one at the sample least similar to the centre of its own.

    Parameters
    ----------
    kernel : array or Tensor (n, n), or rows on demand
        Similarities, used as they are: neither normalised nor made distances. An object with ``diagonal()`` and
        ``row(i)``, each returning (n,), such as `modal_ntk.kernels.KernelRows`, is asked for one row per centre; one
        with ``rows_at(rows)``, returning (k, n), for those of `first` some at a time.
    n_clusters : int
        Number of clusters, at most n.
    first : array-like (k,) of int, optional
        Centres of the first clusters, at most `n_clusters`; by default the row of the largest diagonal entry.

    Returns
    -------
    FarthestPoints
        ``centres`` (m,) and the ``clusters`` (n,) of all rows.

    Raises
    ------
    InvalidInputError
        If the kernel is no square matrix of finite numbers, or cannot be divided into that many clusters.

    Notes
    -----
    lpNTK (Guo et al., ICLR 2024), algorithm 3: the next centre is the member with the smallest similarity to its
    cluster's centre; members that are strictly more similar to it move to it, centres never move. Ties go to the
    cluster opened first, and in it to the member that has been there longest, as scanning the lists does. Costs one
    row of the kernel and a pass over n numbers for each centre.

    Examples
    --------
    >>> kernel = np.array([[30, 25, 14, 15], [25, 22, 12, 10], [14, 12, 23, 18], [15, 10, 18, 24.0]])
    >>> found = farthest_point_clustering(kernel, 2)
    >>> found.centres.tolist(), found.clusters.tolist()
    ([0, 2], [0, 0, 1, 1])
    """
    rows = _as_rows(kernel)
    diagonal = _finite(rows.diagonal())
    n_clusters = checks.check_integer("n_clusters", n_clusters)
    if n_clusters > len(diagonal):
        remedy = "Ask for fewer clusters, or pass more samples."
        raise checks.expected(f"n_clusters of at most {len(diagonal)}, the number of samples", n_clusters, remedy)
    start = [int(diagonal.argmax())] if first is None else checks.check_rows("first", first, len(diagonal)).tolist()
    if not 1 <= len(start) <= n_clusters:
        remedy = "Raise n_clusters to the number of centres given, or give fewer."
        raise checks.expected(f"between 1 and n_clusters={n_clusters} rows in first", len(start), remedy)
    state = _Clusters(len(diagonal))
    with progress.stage("clusters", n_clusters, "centre"):
        # Centres that are known beforehand are read together, which a product does faster than one by one.
        for i in range(0, len(start), 64):
            chunk = start[i : i + 64]
            together = rows.rows_at(chunk) if hasattr(rows, "rows_at") else map(rows.row, chunk)
            for centre, row in zip(chunk, together, strict=True):
                state.open(centre, _finite(row))
                progress.advance(1, "centre")
        while len(state.centres) < n_clusters:
            centre = state.farthest()
            state.open(centre, _finite(rows.row(centre)))
            progress.advance(1, "centre")
    return FarthestPoints(np.array(state.centres, dtype=np.int64), state.clusters)


def redundant_samples(
    kernel: Any, *, later_only: bool = False, tolerance: float | None = None, at_most: int | None = None
) -> np.ndarray:
    """Find the samples that are more similar to another sample than to themselves.

    Parameters
    ----------
    kernel : array or Tensor (n, n), or rows on demand
        Similarities. An object, such as `modal_ntk.kernels.KernelRows`, holds inner products and offers
        ``diagonal()``, ``block(start, stop, n_columns)`` and ``take(rows)``.
    later_only : bool, default=False
        Whether a sample is compared with those after it only, as the authors' code does; the paper compares it with
        all others.
    tolerance : float, optional
        Share of its own entry by which another must exceed it; by default 100 units of rounding of the kernel's type,
        so that copies of a sample do not make one another redundant by rounding.
    at_most : int, optional
        How many may be found: those whose largest similarity to another is the largest share of their own, of equal
        ones the first. No limit by default.

    Returns
    -------
    numpy.ndarray (n,), bool
        Whether each sample is redundant.

    Raises
    ------
    InvalidInputError
        If the kernel is no square matrix of finite numbers, or the limit no number of samples.

    Notes
    -----
    lpNTK, section 4.1: x is redundant if some x' has k(x, x') > k(x, x). For a positive semi-definite kernel the other
    sample then has the larger diagonal entry, so among samples that make each other redundant one always stays.

    Examples
    --------
    >>> redundant_samples(np.array([[4.0, 2.0], [2.0, 1.0]])).tolist()
    [False, True]
    """
    rows = _as_rows(kernel)
    diagonal = _finite(rows.diagonal())
    n = len(diagonal)
    if at_most is not None:
        at_most = checks.check_integer("at_most", at_most, minimum=0)
    slack = 100 * np.finfo(diagonal.dtype).eps if tolerance is None else tolerance
    order = np.arange(n)
    ordered = not later_only and not isinstance(rows, _Matrix)
    if ordered:
        order = np.argsort(-diagonal, kind="stable")
        rows = rows.take(order)
    limit = (diagonal + slack * np.abs(diagonal))[order]
    excess = np.empty(n)
    step = max(1, _BLOCK_BYTES // max(1, n * diagonal.itemsize))
    for start in progress.steps(range(0, n, step), "redundancy", "block"):
        stop = min(start + step, n)
        block = np.array(rows.block(start, stop, stop if ordered else n))
        if later_only:
            block[np.arange(n) < np.arange(start, stop)[:, None]] = -np.inf
        block[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        excess[order[start:stop]] = block.max(axis=1) - limit[start:stop]
    found = np.flatnonzero(excess > 0)
    if at_most is not None and at_most < len(found):
        share = excess[found] / np.abs(diagonal[found]).clip(np.finfo(diagonal.dtype).tiny)
        found = found[np.argsort(-share, kind="stable")[:at_most]]
    return np.isin(np.arange(n), found)


class _Clusters:
    # Every row's cluster, its similarity to the centre, and its place in the cluster's list.
    def __init__(self, n: int) -> None:
        self.centres: list[int] = []
        self.clusters = np.zeros(n, dtype=np.int64)
        self.similarity = np.full(n, -np.inf)
        self.place = np.arange(n)
        self.free = np.ones(n, dtype=bool)

    def farthest(self) -> int:
        similarity = np.where(self.free, self.similarity, np.inf)
        tied = np.flatnonzero(similarity == similarity.min())
        return int(tied[np.lexsort((self.place[tied], self.clusters[tied]))[0]])

    def open(self, centre: int, row: np.ndarray) -> None:
        new = len(self.centres)
        self.centres.append(centre)
        self.free[centre] = False
        moved = np.flatnonzero(self.free & (row > self.similarity))
        # Lists are scanned cluster by cluster, so that is the order in which members arrive.
        moved = moved[np.lexsort((self.place[moved], self.clusters[moved]))]
        self.place[moved] = np.arange(len(moved))
        self.similarity[moved] = row[moved]
        self.clusters[moved] = new
        self.clusters[centre] = new


class _Matrix:
    # A matrix read as rows on demand.
    def __init__(self, kernel: np.ndarray) -> None:
        self.kernel = kernel

    def diagonal(self) -> np.ndarray:
        return self.kernel.diagonal()

    def row(self, i: int) -> np.ndarray:
        return self.kernel[i]

    def block(self, start: int, stop: int, n_columns: int) -> np.ndarray:
        return self.kernel[start:stop, :n_columns]


def _as_rows(kernel: Any) -> Any:
    if hasattr(kernel, "row") or hasattr(kernel, "block"):
        return kernel
    matrix = np.asarray(kernel.detach().cpu().numpy() if hasattr(kernel, "detach") else kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "fiu" or not len(matrix):
        got = f"{matrix.dtype} of shape {matrix.shape}"
        raise checks.expected("a square kernel of numbers over at least one sample", got, "Compute it over all rows.")
    return _Matrix(matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64))


def _finite(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if not np.isfinite(array).all():
        remedy = "Check the net's outputs: a kernel of finite gradients is finite."
        raise checks.expected("a kernel of finite numbers", "NaN or infinity", remedy)
    return array
