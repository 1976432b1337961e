"""What strategies have asked for: the classes of the labels, and the images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.analysis.statistics import BASELINE as RANDOM
from modal_ntk.bench.experiment.datasets import Dataset, load_dataset
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.storage.store import Row
from modal_ntk.errors import ModalNTKError, UnknownNameError

_PASS = "Pass it: `modal-ntk report DIR --dataset FILE.npz`, or dataset= in Python."
_SPLIT = ("test_size", "validation", "imbalance", "pool_size", "split_seed")


@dataclass(frozen=True)
class Queried:
    """The classes of the labels of one strategy.

    Parameters
    ----------
    strategy : str
        Its name.
    budgets : numpy.ndarray (n_rounds,)
        Numbers of labels.
    counts : numpy.ndarray (n_rounds, C)
        Labels of each class by then, mean over the seeds.
    evenness : numpy.ndarray (n_rounds,)
        `evenness` of each seed's counts, mean over the seeds.
    """

    strategy: str
    budgets: np.ndarray
    counts: np.ndarray
    evenness: np.ndarray


def evenness(counts: np.ndarray) -> np.ndarray:
    """Return how even classes are.

    Parameters
    ----------
    counts : numpy.ndarray (..., C)
        Labels of each class.

    Returns
    -------
    numpy.ndarray (...)
        Entropy of the shares over that of C equal ones: 1 if all classes are equal, 0 if there is only one.

    Examples
    --------
    >>> evenness(np.array([[5, 5, 0, 0], [3, 3, 3, 3]]))
    array([0.5, 1. ])
    """
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1) / np.log(max(counts.shape[-1], 2)))


def find_data(protocol: Mapping[str, Any], dataset: str | os.PathLike[str] | Dataset | None) -> Dataset | str:
    """Find the data set of a comparison.

    Parameters
    ----------
    protocol : dict
        Of the store, with the data set's name and fingerprint.
    dataset : str, path, Dataset or None
        What the caller names; by default the one of that name.

    Returns
    -------
    Dataset or str
        The data; or, if none was named and none found, why not.

    Raises
    ------
    ModalNTKError
        If the caller names one that cannot be had, or another than the comparison's.
    """
    wanted = protocol.get("fingerprint")
    if dataset is not None:
        data = _as_run(dataset if isinstance(dataset, Dataset) else load_dataset(dataset), protocol)
        if data.fingerprint != wanted:
            got = f"{data.name} with fingerprint {data.fingerprint}"
            raise checks.expected(f"the data set with fingerprint {wanted}", got, "Pass the comparison's own.")
        return data
    name = str(protocol.get("dataset", ""))
    if name.endswith(".npz"):  # a store may come from anywhere, and names no path to open
        return f"the store names a file. {_PASS}"
    try:
        data = _as_run(load_dataset(name), protocol)
    except UnknownNameError:
        return f"none is called {checks.one_line(name)} here. {_PASS}"
    except ModalNTKError as error:
        return checks.one_line(str(error))
    return data if data.fingerprint == wanted else f"{name} here is not the data set of this comparison. {_PASS}"


def _as_run(data: Dataset, protocol: Mapping[str, Any]) -> Dataset:
    # Split, imbalance and pool size are in the store where they are not the defaults.
    named = {key: protocol[key] for key in _SPLIT if key in protocol}
    if not named or data.fingerprint == protocol.get("fingerprint"):
        return data
    return Protocol.from_dict({"dataset": data.name, "strategies": (RANDOM,), **named}).carved(data)


def count_classes(rows: Iterable[Row], data: Dataset) -> dict[str, Queried]:
    """Count the classes of the labels, strategy by strategy.

    Parameters
    ----------
    rows : iterable of Row
        Of the store.
    data : Dataset
        Whose pool was queried.

    Returns
    -------
    dict of str to Queried
        By strategy, in the order of the rows.

    Raises
    ------
    InvalidInputError
        If a row names samples that the pool does not have.
    """
    by_seed: dict[str, dict[int, dict[int, np.ndarray]]] = defaultdict(lambda: defaultdict(dict))
    n_classes = len(data.classes)
    for row in sorted(rows, key=lambda row: (row.strategy, row.seed, row.n_labels)):
        added = np.bincount(data.y_train[_indices(row, data)], minlength=n_classes)
        so_far = by_seed[row.strategy][row.seed]
        before = next(reversed(so_far.values()), np.zeros(n_classes, np.int64))
        so_far[row.n_labels] = before + added
    return {strategy: _mean(strategy, list(seeds.values())) for strategy, seeds in by_seed.items()}


def _indices(row: Row, data: Dataset) -> np.ndarray:
    return checks.check_rows(f"the rows queried by {row.strategy}", row.indices, len(data.y_train))


def _mean(strategy: str, seeds: list[dict[int, np.ndarray]]) -> Queried:
    budgets = sorted(set.intersection(*(set(counts) for counts in seeds)))
    counts = np.array([[by_budget[n] for n in budgets] for by_budget in seeds]).reshape(len(seeds), len(budgets), -1)
    return Queried(strategy, np.array(budgets), counts.mean(axis=0), evenness(counts).mean(axis=0))


def first_images(rows: Iterable[Row], data: Dataset, *, n_rounds: int = 6, n_images: int = 8) -> dict[str, list[Row]]:
    """Choose what to show of the images queried: the first rounds of the lowest seed.

    Parameters
    ----------
    rows : iterable of Row
        Of the store.
    data : Dataset
        Whose pool was queried.
    n_rounds, n_images : int
        At most so many rounds, and images of each.

    Returns
    -------
    dict of str to list of Row
        By strategy, with indices cut; empty if the samples are no images of one channel or three.
    """
    if data.x_train.ndim != 4 or data.x_train.shape[1] not in (1, 3):
        return {}
    chosen: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.strategy, row.seed, row.round)):
        shown = chosen.setdefault(row.strategy, [])
        if len(shown) < n_rounds and (not shown or shown[0].seed == row.seed) and row.indices:
            shown.append(replace(row, indices=tuple(_indices(row, data)[:n_images].tolist())))
    return chosen
