"""What two labelled samples are to each other: interchangeable, unrelated, contradictory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modal_ntk import checks


@dataclass(frozen=True)
class SampleRelations:
    """Relations between samples of rows and of columns.

    Parameters
    ----------
    interchangeable, unrelated, contradictory : numpy.ndarray (n, m), bool
        Pairs of each kind; a pair may be of none.
    sign : numpy.ndarray (n, m), int8
        Sign of the cosine: 1 for an acute angle, -1 for an obtuse one, 0 for a right one.
    """

    interchangeable: np.ndarray
    unrelated: np.ndarray
    contradictory: np.ndarray
    sign: np.ndarray

    def __repr__(self) -> str:
        """Tell the number of pairs of each kind."""
        counts = ", ".join(f"{name}={int(values.sum())}" for name, values in vars(self).items() if name != "sign")
        return f"SampleRelations(pairs={self.sign.size}, {counts})"


def sample_relations(
    kernel: Any, *, rows: Any = None, columns: Any = None, threshold: float = 0.75, unrelated: float = 0.1
) -> SampleRelations:
    """Sort pairs of samples by how far learning one is learning the other.

    Parameters
    ----------
    kernel : array or Tensor (n, m)
        Labelled kernel k(u, o) between samples of rows and of columns.
    rows : array-like (n,), optional
        The samples of the rows with themselves, k(u, u); by default the diagonal of a square kernel.
    columns : array-like (m,), optional
        The same for the columns, k(o, o).
    threshold : float, default=0.75
        Pairs are interchangeable if both k(u, o) / k(u, u) and k(u, o) / k(o, o) are at least this, contradictory if
        both are at most minus this. The paper has it above 1/2 and up to 1 without naming a value; the default is the
        middle.
    unrelated : float, default=0.1
        Pairs are unrelated if neither ratio is further than this from zero; the paper says "about zero".

    Returns
    -------
    SampleRelations
        Three matrices of truth values, and the sign of the angle, by which alone the paper's main text sorts.

    Raises
    ------
    InvalidInputError
        If shapes disagree, or a threshold is out of range.

    Notes
    -----
    lpNTK (Guo et al., ICLR 2024), section 2.3 and appendix C, with the representation of the main text. A sample
    without gradient is unrelated to every other.

    Examples
    --------
    >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.1]])
    >>> found = sample_relations(features @ features.T)
    >>> found.interchangeable[0].tolist(), found.contradictory[0].tolist(), found.unrelated[0].tolist()
    ([True, True, False, False], [False, False, False, True], [False, False, True, False])
    """
    matrix = np.asarray(kernel.detach().cpu().numpy() if hasattr(kernel, "detach") else kernel)
    if matrix.ndim != 2:
        raise checks.expected("a kernel of shape (n, m)", f"shape {matrix.shape}", "Pass a matrix.")
    if not checks.check_number("threshold", threshold, maximum=1) > 0.5:
        raise checks.expected("threshold above 1/2 and up to 1", threshold, "The paper's range.")
    limit = checks.check_number("unrelated", unrelated, maximum=1)
    if limit >= threshold:
        remedy = "Else a pair would be of two kinds."
        raise checks.expected(f"unrelated below threshold={threshold}", unrelated, remedy)
    own = _own("rows", rows, matrix, 0)[:, None]
    other = _own("columns", columns, matrix, 1)[None, :]
    largest, smallest = np.maximum(own, other), np.minimum(own, other)
    exists = smallest > 0
    return SampleRelations(
        interchangeable=exists & (matrix >= threshold * largest),
        unrelated=~exists | (np.abs(matrix) <= limit * smallest),
        contradictory=exists & (matrix <= -threshold * largest),
        sign=np.sign(matrix).astype(np.int8),
    )


def _own(name: str, values: Any, matrix: np.ndarray, axis: int) -> np.ndarray:
    if values is None:
        if matrix.shape[0] != matrix.shape[1]:
            remedy = "Pass each sample's kernel with itself."
            raise checks.expected(f"{name} for a kernel of shape {matrix.shape}", None, remedy)
        return matrix.diagonal()
    own = np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
    if own.shape != (matrix.shape[axis],):
        raise checks.expected(f"{matrix.shape[axis]} values in {name}", f"shape {own.shape}", "One for each sample.")
    return own
