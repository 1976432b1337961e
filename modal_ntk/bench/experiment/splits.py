"""Data sets cut to a protocol: another split, a validation set, an imbalanced or smaller pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.model_selection import train_test_split

from modal_ntk import checks
from modal_ntk.bench.experiment.datasets import Dataset


def carve(
    data: Dataset,
    *,
    test_size: float | None = None,
    n_validation: int = 0,
    imbalance: float | Sequence[float] = 1.0,
    pool_size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Return a data set split anew, in this order, from one seed.

    Parameters
    ----------
    data : Dataset
        As loaded; not changed.
    test_size : float or None, default=None
        Share of all samples that becomes the test set, with the classes' shares kept; None keeps the split.
    n_validation : int, default=0
        Samples that leave the training part for a validation set, with the classes' shares kept.
    imbalance : float or sequence of float (C,), default=1
        Ratio of the pool's first class to its last: of m samples, m being the size of the rarest class, class k
        (from 0 to C - 1) keeps ``m * ratio ** (-k / (C - 1))``, rounded, and at least one. A ratio of one keeps all.
        A sequence gives the share that each class keeps of its own samples.
    pool_size : int or None, default=None
        Samples of the pool, drawn from what is left; None keeps all.
    seed : int, default=0
        Seed of every draw.

    Returns
    -------
    Dataset
        The same object if nothing is asked for; else rows of the pool keep their order.

    Raises
    ------
    InvalidInputError
        If more is asked for than there is.

    Examples
    --------
    >>> from modal_ntk.bench import load_dataset
    >>> small = carve(load_dataset("digits"), imbalance=10, pool_size=200, n_validation=100)
    >>> small.x_train.shape, small.y_validation.shape, small.x_test.shape
    ((200, 64), (100,), (540, 64))
    """
    rng = np.random.default_rng(seed)
    if test_size is not None:
        data = _resplit(data, test_size, int(rng.integers(2**31)))
    if n_validation:
        data = _with_validation(data, n_validation, int(rng.integers(2**31)))
    if not np.array_equal(imbalance, 1.0):
        data = _rows(data, _imbalanced(data.y_train, len(data.classes), imbalance, rng))
    if pool_size is not None:
        n = len(data.y_train)
        if pool_size > n:
            raise checks.expected(f"pool_size of at most {n}, which is what is left", pool_size, "Lower pool_size.")
        data = _rows(data, rng.choice(n, pool_size, replace=False))
    return data


def _resplit(data: Dataset, test_size: float, seed: int) -> Dataset:
    X, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    train, test = _stratified(y, test_size, seed)
    return replace(data, x_train=X[train], y_train=y[train], x_test=X[test], y_test=y[test])


def _with_validation(data: Dataset, n_validation: int, seed: int) -> Dataset:
    kept, apart = _stratified(data.y_train, n_validation, seed)
    apart_x, apart_y = data.x_train[apart], data.y_train[apart]
    return replace(_rows(data, kept), x_validation=apart_x, y_validation=apart_y)


def _stratified(y: np.ndarray, size: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        kept, apart = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=y)
    except ValueError as error:
        raise checks.expected(f"to set {size} of {len(y)} samples apart", str(error), "Set fewer apart.") from error
    return np.sort(kept), np.sort(apart)


def _imbalanced(
    y: np.ndarray, n_classes: int, imbalance: float | Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    counts = np.bincount(y, minlength=n_classes)
    if isinstance(imbalance, (int, float)):
        if imbalance < 1:
            remedy = "To make the first class the rare one, pass each class's share."
            raise checks.expected("imbalance of at least 1, first class to last", imbalance, remedy)
        wanted = counts.min() * float(imbalance) ** (-np.arange(n_classes) / max(1, n_classes - 1))
    elif len(imbalance) != n_classes or max(imbalance) > 1:
        remedy = "Give each class the share of its samples that it keeps."
        raise checks.expected(f"{n_classes} shares of at most 1 in imbalance", repr(tuple(imbalance)), remedy)
    else:
        wanted = counts * np.asarray(imbalance, dtype=float)
    sizes = np.maximum(1, np.round(np.minimum(wanted, counts)).astype(int))
    picked = [rng.choice(np.flatnonzero(y == k), min(sizes[k], counts[k]), replace=False) for k in range(n_classes)]
    return np.concatenate(picked)


def _rows(data: Dataset, rows: np.ndarray) -> Dataset:
    rows = np.sort(rows)
    return replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
