"""The one check of labels: one for each sample, of one kind, none missing."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from modal_ntk.checks.wording import expected


def check_labels(y: Any, n_samples: int, *, multilabel: bool = False) -> np.ndarray:
    """Return labels as a one-dimensional array, one for each labelled sample.

    Parameters
    ----------
    y : array-like (n_samples,)
        Labels of any kind scikit-learn knows; a column is flattened.
    n_samples : int
        How many there should be.
    multilabel : bool, default=False
        Whether a matrix of zeros and ones will do, a column for each of several labels of one sample.

    Returns
    -------
    numpy.ndarray (n_samples,), or (n_samples, K) int64
        The labels, their values unchanged; objects that are all numbers, or all booleans, as an array of these.

    Raises
    ------
    InvalidInputError
        If the number differs, there is more than one column, a label is missing (None, NaN, ``pandas.NA``, masked),
        or labels are of several kinds, such as strings beside numbers.

    Examples
    --------
    >>> check_labels(["ant", "bee"], 2).tolist()
    ['ant', 'bee']
    >>> check_labels(["ant", None], 2)
    Traceback (most recent call last):
    modal_ntk.errors.InvalidInputError: Expected a label for every labelled sample, got None, NaN or a missing value,
    first in row 1. Move unlabelled rows to the pool.
    """
    labels = _as_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and multilabel and labels.dtype.kind in "biufO":
        return _indicators(labels, n_samples)
    if labels.ndim != 1:
        remedy = "Pass one column; a matrix is for several labels of one sample, where these are supported."
        raise expected("one label per sample", f"labels of shape {labels.shape}", remedy)
    _check_number(labels, n_samples)
    missing = np.fromiter(map(_is_missing, labels), bool, n_samples) if labels.dtype == object else _missing(labels)
    if missing.any():
        remedy = "Move unlabelled rows to the pool."
        got = f"None, NaN or a missing value, first in row {int(missing.argmax())}"
        raise expected("a label for every labelled sample", got, remedy)
    return _of_one_kind(labels)


def _check_number(labels: np.ndarray, n_samples: int) -> None:
    if len(labels) != n_samples:
        remedy = "Pass X_labeled and y_labeled that belong together."
        raise expected(f"{n_samples} labels, one for each labelled sample", f"{len(labels)} labels", remedy)


def _indicators(labels: np.ndarray, n_samples: int) -> np.ndarray:
    _check_number(labels, n_samples)
    right = np.isin(labels, (0, 1))
    if not right.all():
        got = f"others, first in row {int((~right).any(axis=1).argmax())}"
        remedy = "Pass a column of zeros and ones for each label, as sklearn.preprocessing.MultiLabelBinarizer does."
        raise expected("a matrix of labels to hold zeros and ones", got, remedy)
    return labels.astype(np.int64)


def _as_array(y: Any) -> np.ndarray:
    if hasattr(y, "toarray"):
        y = y.toarray()
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    if isinstance(y, np.ma.MaskedArray):
        # What is masked out has no label, whatever lies beneath.
        if not np.ma.is_masked(y):
            return np.asarray(y.data)
        held = np.array(y.data, dtype=object)
        held[np.ma.getmaskarray(y)] = None
        return held
    if isinstance(y, (list, tuple)) and all(np.ndim(value) == 0 for value in y):
        # NumPy would make one array of strings of ["ant", None] and of ["ant", 1].
        values = np.empty(len(y), dtype=object)
        values[:] = y
        return values if len({type(value) for value in y}) > 1 else np.asarray(y)
    try:
        return np.asarray(y)
    except ValueError as error:
        raise expected("one label per sample", f"labels of unlike lengths ({error})", "Pass a vector.") from error


def _missing(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind in "fc":
        return ~np.isfinite(labels)
    return np.isnat(labels) if labels.dtype.kind in "mM" else np.zeros(len(labels), bool)


def _is_missing(value: Any) -> bool:
    # pandas.NA answers no comparison; NaN differs from itself.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and bool(value != value or abs(value) == float("inf"))


def _of_one_kind(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind in "cV":
        # The words that scikit-learn's own checks of estimators look for.
        advice = "Complex data not supported: pass" if labels.dtype.kind == "c" else "Pass"
        remedy = f"{advice} strings, integers or booleans."
        raise expected("labels that are names or numbers", f"an array of {labels.dtype}", remedy)
    if labels.dtype.kind == "S":
        raise expected("labels that are names or numbers", "bytes", "Decode them: [label.decode() for label in y].")
    if labels.dtype != object:
        return labels
    kinds = {_kind(value): value for value in labels}
    if len(kinds) > 1:
        examples = ", ".join(f"{value!r} ({kind})" for kind, value in sorted(kinds.items()))
        raise expected("labels of one kind", examples, "Make them all strings: y.astype(str).")
    kind = next(iter(kinds), "string")
    if kind in ("number", "boolean"):
        return np.array(labels.tolist())
    if kind != "string":
        value = next(iter(kinds.values()))
        raise expected("labels that are strings, numbers or booleans", f"{value!r}", "Name each class by a string.")
    return labels


def _kind(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "boolean"
    if isinstance(value, Real):
        return "number"
    return "string" if isinstance(value, str) else type(value).__name__
