"""Nearest-neighbour graphs of a pool, as row-stochastic sparse matrices."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from modal_ntk import checks, progress
from modal_ntk.errors import MissingExtraError, ModalNTKWarning
from modal_ntk.structure.magnitudes import measurable
from modal_ntk.structure.threads import threads_of_torch

APPROXIMATE_ABOVE = 100_000
"""Number of rows up to which ``method="auto"`` searches exactly."""

_BLOCK = 2**23
"""Numbers held at once while distances are computed."""

Search = Literal["auto", "exact", "approximate"]
Similarity = Literal["exp", "constant"] | Callable[[np.ndarray], np.ndarray]
Symmetrise = Literal["max", "mean"] | None


def nearest_neighbors(
    X: Any,
    n_neighbors: int,
    *,
    method: Search = "auto",
    random_state: Any = None,
    n_jobs: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other rows of every row, in Euclidean distance.

    Parameters
    ----------
    X : array-like (n, d)
        Rows; not changed.
    n_neighbors : int
        Neighbours of each row, at most n - 1; a row is never its own neighbour, an equal row may be.
    method : {"auto", "exact", "approximate"}, default="auto"
        scikit-learn's search, or pynndescent's (extra ``ann``); "auto" takes the exact one up to 100,000 rows.
    random_state : int, numpy generator or None, default=None
        Seed of the approximate search.
    n_jobs : int or None, default=None
        Threads of the search, as scikit-learn and pynndescent understand it.

    Returns
    -------
    neighbors : numpy.ndarray (n, n_neighbors), int64
        Row numbers, nearest first, equal distances in rising order; -1 where the approximate search found
        too few. Which of equally distant rows come last is scikit-learn's choice.
    squared : numpy.ndarray (n, n_neighbors), float64
        Squared distances, exactly zero between equal rows.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.
    MissingExtraError
        If the approximate search is asked for and pynndescent is not installed.

    Warns
    -----
    ModalNTKWarning
        If "auto" would search approximately and cannot.

    Examples
    --------
    >>> neighbors, squared = nearest_neighbors(np.array([[0.0], [1.0], [3.0], [7.0]]), 2)
    >>> neighbors.tolist()
    [[1, 2], [0, 2], [1, 0], [2, 1]]
    >>> squared[3].tolist()
    [16.0, 36.0]
    """
    X = _as_rows(X)
    n_neighbors = checks.check_integer("n_neighbors", n_neighbors)
    if n_neighbors >= len(X):
        remedy = "Lower n_neighbors, or pass more rows."
        raise checks.expected(f"n_neighbors below the number of rows, {len(X)}", n_neighbors, remedy)
    with progress.stage("graph"):
        if _search(method, len(X)) == "exact":
            found = NearestNeighbors(n_neighbors=n_neighbors, n_jobs=n_jobs).fit(X).kneighbors(return_distance=False)
        else:
            found = _approximate(X, n_neighbors, random_state, n_jobs)
    # The searches may get distances from inner products, which leaves noise between equal rows.
    squared = _squared_distances(X, found)
    order = np.lexsort((found, squared))
    return np.take_along_axis(found, order, axis=1).astype(np.int64), np.take_along_axis(squared, order, axis=1)


def _as_rows(X: Any) -> np.ndarray:
    rows = checks.check_samples("X", X)
    rows = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiub":
        got = f"{rows.dtype} of shape {rows.shape}"
        raise checks.expected("X to be a matrix of numbers", got, "Pass one row of features per sample.")
    # In the caller's precision where distances can be taken in it.
    rows = rows.astype(np.float64 if rows.dtype == np.float64 else np.float32, copy=False)
    return np.ascontiguousarray(measurable(rows))


def _search(method: str, n: int) -> str:
    checks.check_choice("method", method, ("auto", "exact", "approximate"))
    if method == "exact" or (method == "auto" and n <= APPROXIMATE_ABOVE):
        return "exact"
    try:
        checks.check_installed("The approximate search of neighbours", ["pynndescent"], extra="ann")
    except MissingExtraError as error:
        if method == "approximate":
            raise
        warnings.warn(f"{n} rows are searched exactly, at quadratic cost. {error}", ModalNTKWarning, stacklevel=3)
        return "exact"
    return "approximate"


def _approximate(X: np.ndarray, n_neighbors: int, random_state: Any, n_jobs: int | None) -> np.ndarray:
    from pynndescent import NNDescent

    rng = checks.check_random_state(random_state)
    # The graph lists most rows as their own nearest neighbour, so one more is asked for.
    seed = int(rng.integers(2**31))
    with threads_of_torch() as n_threads:
        index = NNDescent(X, n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=n_jobs or n_threads)
        found = np.asarray(index.neighbor_graph[0], dtype=np.int64)
    own = found == np.arange(len(X))[:, None]
    # Sorting by the flag alone, stably, sends a row's own number to the end and keeps all others in order.
    order = np.argsort(own, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)[:, :n_neighbors]


def _squared_distances(X: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    squared = np.empty(neighbors.shape)
    step = max(1, _BLOCK // max(1, neighbors.shape[1] * X.shape[1]))
    for start in range(0, len(X), step):
        block = slice(start, start + step)
        # Differences first: the products of large float32 numbers would overflow.
        gaps = np.subtract(X[block, None, :], X[neighbors[block]], dtype=np.float64)
        squared[block] = np.einsum("ikd,ikd->ik", gaps, gaps)
    squared[neighbors < 0] = np.inf
    return squared


def knn_transition(
    X: Any,
    n_neighbors: int = 10,
    *,
    similarity: Similarity = "exp",
    symmetrise: Symmetrise = None,
    self_loops: bool = False,
    method: Search = "auto",
    random_state: Any = None,
    n_jobs: int | None = None,
) -> sp.csr_matrix:
    """Return the transition matrix of the nearest-neighbour graph.

    Parameters
    ----------
    X : array-like (n, d)
        Rows; not changed.
    n_neighbors : int, default=10
        Neighbours K of each row, at most n - 1.
    similarity : {"exp", "constant"} or callable, default="exp"
        What makes a weight of a negative squared distance, in [-1, 0] after division by the largest of the
        row's K: the exponential; one for every neighbour; or a function of such an array.
    symmetrise : {None, "max", "mean"}, default=None
        Whether a weight becomes the larger, or the mean, of both directions before rows are normalised.
    self_loops : bool, default=False
        Whether each row is joined to itself, as at distance zero.
    method, random_state, n_jobs
        How neighbours are searched: see `nearest_neighbors`.

    Returns
    -------
    scipy.sparse.csr_matrix (n, n)
        Rows sum to one. float64 if `X` is, else float32.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used, or a weight is negative or not finite.
    MissingExtraError
        If the approximate search is asked for and pynndescent is not installed.

    Notes
    -----
    DDAL (Kushnir and Venturi), equations 1 and 2. The paper leaves the similarity open; the exponential gives
    weights from 1/e to 1. Its matrix is not symmetric, though its analysis takes it to be. A row whose K
    neighbours equal it has sigma zero, and weights all one.

    Examples
    --------
    >>> knn_transition(np.array([[0.0], [1.0], [2.0]]), 2).toarray().round(4).tolist()
    [[0.0, 0.6792, 0.3208], [0.5, 0.0, 0.5], [0.3208, 0.6792, 0.0]]
    """
    if not callable(similarity):
        checks.check_choice("similarity", similarity, ("exp", "constant"))
    rows = _as_rows(X)
    neighbors, squared = nearest_neighbors(rows, n_neighbors, method=method, random_state=random_state, n_jobs=n_jobs)
    found, n = neighbors >= 0, len(rows)
    weights = _weights(squared, found, similarity)
    affinity = sp.csr_matrix((weights[found], (found.nonzero()[0], neighbors[found])), shape=(n, n))
    if self_loops:
        affinity = affinity + _weights(np.zeros((1, 1)), np.ones((1, 1), bool), similarity)[0, 0] * sp.identity(n)
    return affinity_transition(affinity, symmetrise=symmetrise, dtype=rows.dtype)


def _weights(squared: np.ndarray, found: np.ndarray, similarity: Similarity) -> np.ndarray:
    squared = np.where(found, squared, 0.0)
    sigma = squared.max(axis=1, keepdims=True)
    ratio = -squared / np.where(sigma > 0, sigma, 1.0)
    if not callable(similarity):
        return np.exp(ratio) if similarity == "exp" else np.ones_like(ratio)
    weights = np.asarray(similarity(ratio), dtype=np.float64)
    if weights.shape != ratio.shape:
        remedy = "Return one weight for every number."
        raise checks.expected(f"similarity to keep the shape {ratio.shape}", f"{weights.shape}", remedy)
    return weights


def affinity_transition(affinity: Any, *, symmetrise: Symmetrise = None, dtype: Any = None) -> sp.csr_matrix:
    """Return the transition matrix of a weighted graph.

    Parameters
    ----------
    affinity : sparse matrix or array (n, n)
        Weights of the edges from each row, at least zero; not changed.
    symmetrise : {None, "max", "mean"}, default=None
        Whether a weight becomes the larger, or the mean, of both directions first.
    dtype : numpy dtype, optional
        Of the result; by default float64 if the weights are, else float32.

    Returns
    -------
    scipy.sparse.csr_matrix (n, n)
        Rows sum to one. A row without an edge keeps to itself: one on the diagonal.

    Raises
    ------
    InvalidInputError
        If the matrix is not square, or a weight is negative or not finite.

    Examples
    --------
    >>> affinity_transition(np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).toarray().tolist()
    [[0.0, 0.75, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    checks.check_choice("symmetrise", symmetrise, (None, "max", "mean"))
    weights = sp.csr_matrix(affinity)
    dtype = np.dtype(dtype or (np.float64 if weights.dtype == np.float64 else np.float32))
    weights = weights.astype(np.float64)
    if weights.shape[0] != weights.shape[1]:
        remedy = "Pass one row and one column for every sample."
        raise checks.expected("a square affinity matrix", f"shape {weights.shape}", remedy)
    if not np.isfinite(weights.data).all() or (weights.data < 0).any():
        remedy = "Pass similarities, not distances."
        raise checks.expected("weights that are finite and at least zero", "others", remedy)
    if symmetrise == "max":
        weights = weights.maximum(weights.T).tocsr()
    elif symmetrise == "mean":
        weights = ((weights + weights.T) / 2).tocsr()
    weights.eliminate_zeros()
    sums = np.asarray(weights.sum(axis=1)).ravel()
    if (sums == 0).any():
        weights = (weights + sp.diags((sums == 0).astype(np.float64))).tocsr()
        weights.eliminate_zeros()
        sums = np.where(sums == 0, 1.0, sums)
    weights.data = weights.data / np.repeat(sums, np.diff(weights.indptr))
    return weights.astype(dtype)
