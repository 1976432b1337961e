"""Compiled passes over the covariance: how many rows a pick would turn, and how far it would move them.

The arg max is formed only where it can move. Training on candidate i turns row x's outputs m into m + g r, with
g = G_xi / s and r the candidate's residual. Three filters come before a full arg max, each exact in floating point
because adding and multiplying are monotone: a row whose gap between the reference class and its strongest rival
exceeds |g| (max r - min r) keeps its answer; the two classes with the extreme residuals are compared outright; the
other rivals are compared in order of their present output until the next could not win even with the largest
remaining residual.
"""

from __future__ import annotations

import numba
import numpy as np

from modal_ntk.structure.threads import threads_of_torch

_N_RIVALS = 4


def count_mismatches(
    covariance: np.ndarray,
    mean: np.ndarray,
    labels: np.ndarray,
    candidates: np.ndarray,
    rows: np.ndarray,
    reference: np.ndarray,
    floor: float,
) -> np.ndarray:
    """Count, for every candidate, the rows whose predicted class would differ from the reference.

    Parameters
    ----------
    covariance : numpy.ndarray (n, n)
        Posterior covariance, float32 or float64.
    mean : numpy.ndarray (n, C)
        Posterior mean, of the same type.
    labels : numpy.ndarray (n,)
        Class each row would be trained with.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to count over.
    reference : numpy.ndarray (n,)
        Class each row is compared with.
    floor : float
        A candidate whose variance is no larger changes nothing.

    Returns
    -------
    numpy.ndarray (m,), int64
        Counts, equal to those of an arg max (lower class first) over ``mean + (G / s) * r`` formed entry by entry.
    """
    outputs, wanted = np.ascontiguousarray(mean[rows]), reference[rows]
    by_class = np.ascontiguousarray(outputs.T)
    one, rounding = mean.dtype.type(1), 8 * np.finfo(mean.dtype).eps
    with threads_of_torch():
        own, rivals, their_classes, slack = _rivals(outputs, wanted, rounding)
        return _count(
            covariance, mean, labels, candidates, rows, first_of_run(rows), one, rounding,
            outputs, by_class, wanted, own, rivals, their_classes, slack, floor,
        )  # fmt: skip


@numba.njit(parallel=True, cache=True)
def _rivals(outputs, reference, rounding):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # The strongest classes beside the reference, and how much room each row has before its answer can move.
    n_rows, n_classes = outputs.shape
    own = np.empty(n_rows, outputs.dtype)
    values = np.full((n_rows, _N_RIVALS), -np.inf, outputs.dtype)
    classes = np.full((n_rows, _N_RIVALS), -1, np.int32)
    slack = np.empty(n_rows, outputs.dtype)
    for e in numba.prange(n_rows):
        own[e] = outputs[e, reference[e]]
        largest = abs(own[e])
        for c in range(n_classes):
            value = outputs[e, c]
            largest = max(largest, abs(value))
            if c == reference[e] or value <= values[e, _N_RIVALS - 1]:
                continue
            t = _N_RIVALS - 1
            while t > 0 and value > values[e, t - 1]:
                values[e, t], classes[e, t] = values[e, t - 1], classes[e, t - 1]
                t -= 1
            values[e, t], classes[e, t] = value, c
        # Half a unit in the last place is lost at most three times on either side; eight are ample.
        slack[e] = abs(own[e] - values[e, 0]) - rounding * largest
    return own, values, classes, slack


def first_of_run(rows: np.ndarray) -> int:
    """Tell whether rows are consecutive: a slice is read faster than a list of positions.

    Parameters
    ----------
    rows : numpy.ndarray (e,)
        Row numbers.

    Returns
    -------
    int
        The first of them, or -1 if they are not consecutive.
    """
    return int(rows[0]) if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))) else -1


# Sums may be reordered, which lets the compiler use vector instructions.
@threads_of_torch()
@numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def sum_changes(covariance, candidates, rows, first, floor, squared):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sum, for every candidate, the absolute or squared gains G_xi / s over the rows.

    Parameters
    ----------
    covariance : numpy.ndarray (n, n)
        Posterior covariance, float32 or float64.
    candidates : numpy.ndarray (m,)
        Rows to try.
    rows : numpy.ndarray (e,)
        Rows to sum over.
    first : int
        See `first_of_run`.
    floor : float
        A candidate whose variance is no larger has gain zero.
    squared : bool
        Whether gains are squared.

    Returns
    -------
    numpy.ndarray (m,), float64
        Sums.
    """
    sums = np.zeros(len(candidates), np.float64)
    for k in numba.prange(len(candidates)):
        i = candidates[k]
        variance = covariance[i, i]
        if variance <= floor:
            continue
        line = covariance[i, first : first + len(rows)] if first >= 0 else covariance[i][rows]
        total = 0.0
        if squared:
            for e in range(len(rows)):
                total += line[e] * line[e]
            sums[k] = total / variance / variance
        else:
            for e in range(len(rows)):
                total += abs(line[e])
            sums[k] = total / variance
    return sums


@threads_of_torch()
@numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def multiply(matrix, vector):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Multiply a matrix and a vector, summing in double precision whatever the matrix is held in.

    Parameters
    ----------
    matrix : numpy.ndarray (n, m)
        Rows in memory order, float32 or float64; read once.
    vector : numpy.ndarray (m,), float64
        The vector.

    Returns
    -------
    numpy.ndarray (n,), float64
        The product.
    """
    products = np.empty(len(matrix), np.float64)
    for i in numba.prange(len(matrix)):
        total = 0.0
        for j in range(matrix.shape[1]):
            total += matrix[i, j] * vector[j]
        products[i] = total
    return products


@threads_of_torch()
@numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def sum_shifted_changes(gains, dots, shift_norms, residual_norms):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sum, for every candidate, the lengths of d + g r over the rows.

    Parameters
    ----------
    gains : numpy.ndarray (m, e)
        The gains g.
    dots : numpy.ndarray (m, e)
        Inner products d . r.
    shift_norms : numpy.ndarray (e,)
        Squared lengths of the shifts d.
    residual_norms : numpy.ndarray (m,)
        Squared lengths of the residuals r.

    Returns
    -------
    numpy.ndarray (m,), float64
        Sums.
    """
    sums = np.zeros(len(gains), np.float64)
    for k in numba.prange(len(gains)):
        total = 0.0
        for e in range(gains.shape[1]):
            squared = shift_norms[e] + gains[k, e] * (2 * dots[k, e] + gains[k, e] * residual_norms[k])
            # Rounding may leave a length of zero slightly negative.
            total += np.sqrt(max(squared, 0.0))
        sums[k] = total
    return sums


# fmt: off
@numba.njit(parallel=True, cache=True)
def _count(  # type: ignore[no-untyped-def]  # noqa: ANN202
    covariance, mean, labels, candidates, rows, first, one, rounding,  # noqa: ANN001
    outputs, by_class, reference, own, values, classes, slack, floor,  # noqa: ANN001
):
    # fmt: on
    n_rows = len(rows)
    wrong = np.empty(n_rows, np.int64)
    for e in range(n_rows):
        tied = values[e, 0] == own[e] and _lower_tie(outputs, e, reference[e])
        wrong[e] = values[e, 0] > own[e] or tied
    already = wrong.sum()
    counts = np.empty(len(candidates), np.int64)
    for k in numba.prange(len(candidates)):
        i = candidates[k]
        variance = covariance[i, i]
        counts[k] = already
        if variance <= floor:
            continue
        residual = -mean[i]
        residual[labels[i]] += 1
        extremes = _extremes(residual)
        scale = one / variance
        span = extremes[0] - extremes[2]
        reach = abs(scale) * (span + rounding * (span + max(abs(extremes[0]), abs(extremes[2]))))
        line = covariance[i, first : first + n_rows] if first >= 0 else covariance[i][rows]
        open_rows = np.empty(n_rows, np.int32)
        n_open = 0
        for e in range(n_rows):
            open_rows[n_open] = e
            n_open += abs(line[e]) * reach >= slack[e]
        change = 0
        for position in range(n_open):
            e = open_rows[position]
            change += _loses(e, line[e] * scale, residual, extremes, outputs, by_class, reference, own, values, classes)
            change -= wrong[e]
        counts[k] += change
    return counts


@numba.njit(cache=True)
def _lower_tie(outputs, e, reference):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for c in range(reference):  # noqa: SIM110 - compiled code has no generators
        if outputs[e, c] == outputs[e, reference]:
            return True
    return False


@numba.njit(cache=True)
def _extremes(residual):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Largest and smallest residual, then the same without those two classes; and the two classes.
    high, low = residual.argmax(), residual.argmin()
    next_high, next_low = residual[low], residual[high]
    for c in range(len(residual)):
        if c not in (high, low):
            next_high, next_low = max(next_high, residual[c]), min(next_low, residual[c])
    return residual[high], next_high, residual[low], next_low, high, low


@numba.njit(cache=True)
def _loses(e, gain, residual, extremes, outputs, by_class, reference, own, values, classes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # Whether another class than the reference wins row e; among equals the lower class does.
    target = reference[e]
    after = own[e] + gain * residual[target]
    for c in (extremes[4], extremes[5]):
        value = by_class[c, e] + gain * residual[c]
        if c != target and (value > after or (value == after and c < target)):
            return True
    most = max(gain * extremes[1], gain * extremes[3])
    for t in range(values.shape[1]):
        if values[e, t] + most < after:
            return False
        c = classes[e, t]
        value = values[e, t] + gain * residual[c]
        if value > after or (value == after and c < target):
            return True
    for c in range(outputs.shape[1]):
        value = outputs[e, c] + gain * residual[c]
        if value > after or (value == after and c < target):
            return True
    return False
