"""Labels diffused over a graph: random-walk steps, with the labelled rows clamped after each."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from modal_ntk import checks
from modal_ntk.environment.late import torch
from modal_ntk.errors import ModalNTKWarning

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["one_vs_all", "multivariate"]


def n_diffusion_steps(n: int, n_neighbors: int) -> int:
    """Return the number of steps after which a walk may have seen the whole graph.

    Parameters
    ----------
    n : int
        Number of rows.
    n_neighbors : int
        Neighbours K of each row; one counts as two.

    Returns
    -------
    int
        The smallest T with K ** T > n.

    Notes
    -----
    DDAL takes T near log_K N; this rounding gives the three published settings.

    Examples
    --------
    >>> n_diffusion_steps(2000, 10), n_diffusion_steps(10000, 10), n_diffusion_steps(50000, 20)
    (4, 5, 4)
    """
    n = checks.check_integer("n", n)
    base = max(2, checks.check_integer("n_neighbors", n_neighbors))
    steps = 1
    while base**steps <= n:
        steps += 1
    return steps


def diffuse(
    transition: Any,
    labeled: Any,
    labels: Any,
    n_classes: int,
    n_steps: int,
    mode: Mode = "one_vs_all",
    *,
    tol: float | None = None,
) -> Any:
    """Diffuse labels over a graph.

    Parameters
    ----------
    transition : scipy sparse matrix, array, or sparse torch tensor (n, n)
        Rows that sum to one.
    labeled : array-like (l,)
        Row numbers of the labelled rows; may be empty.
    labels : array-like (l,) of int
        Their classes, 0 to C-1.
    n_classes : int
        Number of classes C.
    n_steps : int
        Number of steps T; with `tol` their limit.
    mode : {"one_vs_all", "multivariate"}, default="one_vs_all"
        Whether a labelled row holds +1 for its class and -1 for each other, and others start from 0; or it
        holds its class with probability one, and others start from 1/C.
    tol : float or None, default=None
        Stop when no value changes by more in a step.

    Returns
    -------
    numpy.ndarray or Tensor (n, C)
        Values in [-1, 1], or rows of the simplex, in the type, and on the device, of the transition matrix. A
        row that no label reaches in T steps is exactly 0, or 1/C, throughout.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Warns
    -----
    ModalNTKWarning
        If `tol` was not met within the steps.

    Notes
    -----
    DDAL, equation 3 and algorithm 1, and its multivariate variant. What is diffused is the difference from the
    starting value, so that unreached rows stay tied and are not ordered by rounding.

    Examples
    --------
    >>> line = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    >>> diffuse(line, [0, 2], [0, 1], 2, 1).tolist()
    [[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]
    >>> diffuse(line, [0], [0], 2, 1, "multivariate").tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5]]
    """
    checks.check_choice("mode", mode, ("one_vs_all", "multivariate"))
    n_steps = checks.check_integer("n_steps", n_steps, minimum=0)
    if tol is not None:
        checks.check_positive("tol", tol)
    where: Any
    held: Any
    where, held = clamped(transition, labeled, labels, n_classes, mode)
    if hasattr(transition, "detach"):
        held = torch.as_tensor(held, dtype=transition.dtype, device=transition.device)
        where = torch.as_tensor(where, device=transition.device)
        values = held.new_zeros((transition.shape[0], n_classes))
    else:
        transition = float_csr(transition)
        held = held.astype(transition.dtype)
        values = np.zeros((transition.shape[0], n_classes), transition.dtype)
    values[where] = held
    for _ in range(n_steps):
        # On the CPU SciPy's product, in one thread: threads that meet after every step wait for the slowest each time.
        before, values = values, transition @ values
        values[where] = held
        if tol is not None and float(abs(values - before).max()) <= tol:
            break
    else:
        if tol is not None:
            message = f"Diffusion still changed by more than tol={tol} after {n_steps} steps: raise n_steps or tol."
            warnings.warn(message, ModalNTKWarning, stacklevel=2)
    return finished(values, mode, n_classes)


def float_csr(matrix: Any) -> sp.csr_matrix:
    """Return a matrix in compressed rows of floats, in double precision if it held others."""
    rows = sp.csr_matrix(matrix)
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def finished(values: Any, mode: Mode, n_classes: int) -> Any:
    """Return values from differences, in place.

    Parameters
    ----------
    values : numpy.ndarray or Tensor (n, C)
        Differences from the starting value, diffused.
    mode : {"one_vs_all", "multivariate"}
        See `diffuse`.
    n_classes : int
        Number of classes C.

    Returns
    -------
    numpy.ndarray or Tensor (n, C)
        What `diffuse` returns.
    """
    if not bool((values == values).all()):
        raise checks.expected("a transition matrix of finite numbers", "NaN or infinity", "Make one by knn_transition.")
    if mode == "multivariate":
        values += 1 / n_classes
    # Rounding may step over the ends by a little.
    low, high = (-1, 1) if mode == "one_vs_all" else (0, 1)
    return values.clip(low, high, out=values) if isinstance(values, np.ndarray) else values.clamp_(low, high)


def clamped(transition: Any, labeled: Any, labels: Any, n_classes: int, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Return the labelled rows and what they hold.

    Parameters
    ----------
    transition, labeled, labels, n_classes, mode
        As for `diffuse`.

    Returns
    -------
    rows : numpy.ndarray (l,)
        The labelled rows.
    start : numpy.ndarray (l, C)
        What they hold at every step, as differences from the starting value of all others.
    """
    if len(transition.shape) != 2 or transition.shape[0] != transition.shape[1]:
        got = f"shape {tuple(transition.shape)}"
        raise checks.expected("a square transition matrix", got, "Make one by knn_transition.")
    n_classes = checks.check_integer("n_classes", n_classes)
    rows = checks.check_rows("labeled", labeled, int(transition.shape[0]))
    classes = checks.check_rows("labels", labels, None, length=len(rows))
    if len(classes) and classes.max() >= n_classes:
        got = f"class {classes.max()}"
        raise checks.expected(f"classes below n_classes={n_classes}", got, "Count classes from zero.")
    one_hot = np.eye(n_classes)[classes]
    return rows, 2 * one_hot - 1 if mode == "one_vs_all" else one_hot - 1 / n_classes


def as_torch(transition: sp.csr_matrix, device: Any) -> Tensor:
    """Return a transition matrix as a sparse torch tensor.

    Parameters
    ----------
    transition : scipy.sparse.csr_matrix (n, n)
        The matrix.
    device : torch.device or str
        Where to.

    Returns
    -------
    Tensor (n, n)
        In compressed rows.
    """
    with warnings.catch_warnings():
        # torch says once that this layout is in beta; nothing more than its product is used.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(
            torch.from_numpy(transition.indptr),
            torch.from_numpy(transition.indices),
            torch.from_numpy(transition.data),
            size=transition.shape,
            check_invariants=True,
        )
    return matrix.to(device)
