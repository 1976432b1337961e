"""Find labels that contradict what similar samples teach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from modal_ntk import checks, kernels, nets
from modal_ntk.kernels.rows import KernelRows
from modal_ntk.pruning.base import Labelled, checked_data, fitted_view, label_columns

_BLOCK_BYTES = 2**27


class LabelConflicts(NamedTuple):
    """Samples in order of suspicion.

    Parameters
    ----------
    indices : numpy.ndarray (n,), int64
        All rows, the most suspicious first.
    scores : numpy.ndarray (n,), float64
        Suspicion of each row, in the order of the rows: from -2, at home among its label, to 2, among another.
    opponents : numpy.ndarray (n,), int64
        The row of another label that each resembles most: with it the two contradict each other.
    """

    indices: np.ndarray
    scores: np.ndarray
    opponents: np.ndarray

    @property
    def suspects(self) -> np.ndarray:
        """Rows with a score above zero, which resemble other labels more than their own; the most suspicious first."""
        return self.indices[self.scores[self.indices] > 0]


def find_label_conflicts(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_neighbors: int = 5,
    kernel: Literal["pseudo", "labelled", "loss"] = "pseudo",
    n_folds: int | None = None,
    method: Literal["auto", "exact", "sketch"] = "auto",
    memory_budget: int = 2**32,
    sketch_dim: int = 1024,
    random_state: Any = None,
) -> LabelConflicts:
    """Rank labelled samples by how much they contradict samples of other labels that teach the same.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Fitted, to these labels if need be; read, never changed. With `n_folds` clones of it are trained.
    X, y : samples (n, ...) and labels (n,)
        What is to be looked through.
    n_neighbors : int, default=5
        Number of most similar samples, of its own and of other labels, that are compared for each.
    kernel : {"pseudo", "labelled", "loss"}, default="pseudo"
        What "similar" means: the same effect on the sum of all outputs, whatever the labels (pNTK); on the outputs
        signed by label (lpNTK); or on the loss.
    n_folds : int or None, default=None
        Judge each row out of fold: by a clone trained on the other folds, against their rows, so that no net has
        learnt the label that is judged. Takes that many trainings and kernels. None reads `estimator` as it is.
    method : {"auto", "exact", "sketch"}, default="auto"
        As in `modal_ntk.kernels.kernel_rows`.
    memory_budget : int, default=2**32
        Bytes that the gradients of all samples may take.
    sketch_dim : int, default=1024
        Numbers kept for each parameter where gradients are sketched.
    random_state : int, numpy generator or None, default=None
        Seed of the sketch and of the order of equal scores.

    Returns
    -------
    LabelConflicts
        ``indices``, ``scores``, ``opponents``, and ``suspects``, the rows with a score above zero.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.
    UnmetNeedError
        If there is no fitted net, or none to train.

    Notes
    -----
    Appendix C.4 of lpNTK (Guo et al., ICLR 2024): samples that a net represents alike and that bear different labels
    undo each other, as flipped labels do. The score is the mean cosine with the most similar samples of other labels
    minus that with the most similar of its own. With more than four classes the labelled kernel of two such samples
    need not be negative, since their signs agree on all other outputs; hence the kernel without labels is the default,
    and labels are compared directly. Zero is the natural cut-off: above it a sample resembles the others' samples more
    than its own. Takes n squared inner products, in blocks.

    Examples
    --------
    >>> import skorch, torch
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = (rng.normal(size=(60, 2)) + 6 * y[:, None] - 3).astype("float32")
    >>> y[7] = 0                                                      # flipped
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0
    ... ).fit(X, y)
    >>> found = find_label_conflicts(net, X, y)
    >>> found.suspects.tolist(), int(found.indices[0])
    ([7], 7)
    """
    checks.check_choice("kernel", kernel, ("pseudo", "labelled", "loss"))
    n_neighbors = checks.check_integer("n_neighbors", n_neighbors)
    if n_folds is not None:
        checks.check_integer("n_folds", n_folds, minimum=2)
    data = checked_data(X, y, random_state)
    options = {"method": method, "memory_budget": memory_budget, "sketch_dim": sketch_dim}
    labels = np.unique(data.y, return_inverse=True)[1]
    if n_folds is None:
        view = fitted_view(estimator, data, True, instead="n_folds=5")
        rows = similarity_rows(view, data, kernel, data.seed(), **options)
        scores, opponents = conflict_scores(rows, labels, n_neighbors)
    else:
        scores, opponents = np.empty(len(data)), np.empty(len(data), dtype=np.int64)
        for judged, others in _folds(data, n_folds):
            part = Labelled(nets.take_rows(data.X, others), data.y[others], data.rng)
            rows = similarity_rows(fitted_view(estimator, part, prefit=False), data, kernel, data.seed(), **options)
            scores[judged], opponents[judged] = conflict_scores(rows, labels, n_neighbors, judged, others)
    order = np.lexsort((data.rng.random(len(data)), -scores))
    return LabelConflicts(order.astype(np.int64), scores, opponents)


def _folds(data: Labelled, n_folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    counts = np.unique(data.y, return_counts=True)[1]
    if counts.min() < n_folds:
        remedy = "Lower n_folds, or leave out labels that occur so rarely."
        raise checks.expected(f"every label at least n_folds={n_folds} times", f"one {counts.min()} times", remedy)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=data.seed())
    yield from ((judged, others) for others, judged in splitter.split(np.zeros(len(data)), data.y))


def similarity_rows(view: nets.NetView, data: Labelled, kind: Any, seed: int, **options: Any) -> KernelRows:
    """Return a net's kernel over labelled samples.

    Parameters
    ----------
    view : NetView
        Of a fitted net.
    data : Labelled
        The samples.
    kind : {"pseudo", "labelled", "loss"}
        As in `modal_ntk.kernels.kernel_rows`, like the `options`.
    seed : int
        Of a sketch.
    **options
        Method and limits.

    Returns
    -------
    KernelRows
        Over all samples.
    """
    with view.no_trace():
        return kernels.kernel_rows(
            nets.logit_module(view, data.X),
            nets.stacked_inputs(view, data.X),
            kind=kind,
            labels=None if kind == "pseudo" else label_columns(view, data),
            random_state=seed,
            **options,
        )


def conflict_scores(
    rows: KernelRows, labels: np.ndarray, k: int, judged: np.ndarray | None = None, others: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much samples resemble those of other labels more than those of their own.

    Parameters
    ----------
    rows : KernelRows
        Of n samples.
    labels : numpy.ndarray (n,)
        Their labels.
    k : int
        How many of the most similar count.
    judged, others : numpy.ndarray, optional
        Numbers of the samples that are judged, and of those they are compared with; by default all.

    Returns
    -------
    tuple
        Scores, and numbers of the most similar sample of another label, one for each that is judged.
    """
    inverse = rows.inverse_lengths()
    judged = np.arange(len(labels)) if judged is None else judged
    others = np.arange(len(labels)) if others is None else others
    columns = rows if len(others) == len(labels) else rows.take(others)
    scores, opponents = np.empty(len(judged)), np.empty(len(judged), dtype=np.int64)
    step = max(1, _BLOCK_BYTES // (len(others) * inverse.itemsize))
    for start in range(0, len(judged), step):
        block = judged[start : start + step]
        cosines = rows.take(block).cross(columns) * inverse[block, None] * inverse[others]
        own = labels[block, None] == labels[others]
        foreign = np.where(own, -np.inf, cosines)
        own &= block[:, None] != others
        here = slice(start, start + len(block))
        opponents[here] = others[foreign.argmax(axis=1)]
        scores[here] = _mean_of_largest(foreign, k) - _mean_of_largest(np.where(own, cosines, -np.inf), k)
    return scores, opponents


def _mean_of_largest(values: np.ndarray, k: int) -> np.ndarray:
    # Of fewer than k the mean of those; of none zero.
    k = min(k, values.shape[1])
    largest = np.partition(values, values.shape[1] - k, axis=1)[:, -k:]
    there = np.isfinite(largest)
    return np.where(there, largest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
