"""Find labels that contradict what similar samples teach."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from modal_ntk import checks, kernels, nets
from modal_ntk.kernels.rows import KernelRows
from modal_ntk.pruning.base import checked_data, fitted_view

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


def find_label_conflicts(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_neighbors: int = 5,
    kernel: Literal["pseudo", "labelled", "loss"] = "pseudo",
    method: Literal["auto", "exact", "sketch"] = "auto",
    memory_budget: int = 2**32,
    sketch_dim: int = 1024,
    random_state: Any = None,
) -> LabelConflicts:
    """Rank labelled samples by how much they contradict samples of other labels that teach the same.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        Fitted, to these labels if need be; read, never changed.
    X, y : samples (n, ...) and labels (n,)
        What is to be looked through.
    n_neighbors : int, default=5
        Number of most similar samples, of its own and of other labels, that are compared for each.
    kernel : {"pseudo", "labelled", "loss"}, default="pseudo"
        What "similar" means: the same effect on the sum of all outputs, whatever the labels (pNTK); on the outputs
        signed by label (lpNTK); or on the loss.
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
        ``indices``, ``scores`` and ``opponents``.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.
    UnmetNeedError
        If there is no fitted net.

    Notes
    -----
    Appendix C.4 of lpNTK (Guo et al., ICLR 2024): samples that a net represents alike and that bear different labels
    undo each other, as flipped labels do. The score is the mean cosine with the most similar samples of other labels
    minus that with the most similar of its own. With more than four classes the labelled kernel of two such samples
    need not be negative, since their signs agree on all other outputs; hence the kernel without labels is the default,
    and labels are compared directly. Takes n squared inner products, in blocks.

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
    >>> int(find_label_conflicts(net, X, y).indices[0])
    7
    """
    checks.check_choice("kernel", kernel, ("pseudo", "labelled", "loss"))
    n_neighbors = checks.check_integer("n_neighbors", n_neighbors)
    data = checked_data(X, y, random_state)
    view = fitted_view(estimator, data, prefit=True)
    with view.no_trace():
        n_outputs = view.logits(nets.take_rows(data.X, np.arange(1))).shape[1]
        rows = kernels.kernel_rows(
            nets.logit_module(view, data.X),
            nets.stacked_inputs(view, data.X),
            kind=kernel,
            labels=nets.class_columns(view, data.y, n_outputs),
            method=method,
            memory_budget=memory_budget,
            sketch_dim=sketch_dim,
            random_state=data.seed(),
        )
    scores, opponents = _scores(rows, np.unique(data.y, return_inverse=True)[1], n_neighbors)
    order = np.lexsort((data.rng.random(len(data)), -scores))
    return LabelConflicts(order.astype(np.int64), scores, opponents)


def _scores(rows: KernelRows, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.sqrt(np.maximum(rows.diagonal(), 0)).astype(np.float64)
    # A sample without gradient resembles none: cosines of zero.
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    n = len(labels)
    scores, opponents = np.empty(n), np.empty(n, dtype=np.int64)
    step = max(1, _BLOCK_BYTES // (n * lengths.itemsize))
    for start in range(0, n, step):
        stop = min(start + step, n)
        cosines = rows.block(start, stop) * inverse[start:stop, None] * inverse
        own = labels[start:stop, None] == labels
        others = np.where(own, -np.inf, cosines)
        opponents[start:stop] = others.argmax(axis=1)
        own[np.arange(stop - start), np.arange(start, stop)] = False
        scores[start:stop] = _mean_of_largest(others, k) - _mean_of_largest(np.where(own, cosines, -np.inf), k)
    return scores, opponents


def _mean_of_largest(values: np.ndarray, k: int) -> np.ndarray:
    # Of fewer than k the mean of those; of none zero.
    k = min(k, values.shape[1])
    largest = np.partition(values, values.shape[1] - k, axis=1)[:, -k:]
    there = np.isfinite(largest)
    return np.where(there, largest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
