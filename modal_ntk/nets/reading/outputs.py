"""What batches, outputs and errors of an estimator become on their way to a `NetView`, and what its loss tells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import skorch
import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.errors import ModalNTKError, UnmetNeedError
from modal_ntk.nets.datasets import samples_of
from modal_ntk.nets.encoded import loss_class

LOSSES = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, nn.BCELoss)
"""Losses that take every output for a label of its own."""


@contextmanager
def read_by(reader: str, X: Any) -> Iterator[None]:
    """Say which samples an estimator could not read; its own error is the cause.

    Parameters
    ----------
    reader : str
        Who reads them, for the message.
    X : samples
        What it was given.

    Yields
    ------
    None
        Nothing: read inside.
    """
    try:
        yield
    except ModalNTKError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, (torch.cuda.OutOfMemoryError, RecursionError)):
            raise
        shape = "" if checks.is_dataset(X) or not hasattr(X, "shape") else f" of shape {tuple(X.shape)}"
        kind = f"{getattr(X, 'dtype', type(X).__name__)}{shape}"
        remedy = "Pass the pool as it was trained on."
        got = f"{kind}: {type(error).__name__}: {checks.one_line(str(error))[:300]}"
        raise checks.expected(f"samples that {reader} can read", got, remedy) from error


def unwarned(batches: Any) -> Iterator[Any]:
    """Yield batches without torch's warning of arrays that cannot be written to."""
    # Torch warns of memory maps and other read-only arrays; nothing here writes to them.
    iterator = iter(batches)
    while True:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


def as_matrix(X: Any, name: str) -> Tensor:
    """Return samples as a matrix of floats, one flattened row per sample.

    Parameters
    ----------
    X : array, tensor, frame or sparse matrix (n, ...)
        Numbers.
    name : str
        What they are, for the message.

    Returns
    -------
    Tensor (n, d)
        On the CPU, float64 if the input was, else float32.

    Raises
    ------
    InvalidInputError
        If they are not one array of numbers.
    """
    if isinstance(X, Mapping):
        remedy = 'Name a layer, features="encoder", or pass a callable that returns a matrix.'
        raise checks.expected(f"{name} to be one matrix", f"a dict with keys {sorted(map(str, X))}", remedy)
    if checks.is_dataset(X):
        return as_matrix(samples_of(X, name), name)
    if hasattr(X, "toarray"):
        X = X.toarray()
    if isinstance(X, Tensor):
        return flat(X.detach().cpu()).to(torch.float64 if X.dtype == torch.float64 else torch.float32)
    array = np.asarray(X)
    if array.dtype.kind not in "fiub":
        remedy = "Encode it, or pass a callable that returns numbers."
        raise checks.expected(f"{name} to be numbers", f"an array of {array.dtype}", remedy)
    wanted = np.float64 if array.dtype == np.float64 else np.float32
    return flat(torch.from_numpy(np.array(array, dtype=wanted)))


def flat(values: Tensor) -> Tensor:
    """Return values (n, ...) with one row for each sample."""
    return values.reshape(len(values), -1)


def cast(inputs: Any, dtype: torch.dtype) -> Any:
    """Return inputs with their floating-point tensors of a type, in whatever nests them."""
    if isinstance(inputs, Mapping):
        return {key: cast(value, dtype) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(cast(value, dtype) for value in inputs)
    return inputs.to(dtype) if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs


def first_output(outputs: Any) -> Tensor:
    """Return what a module gave, or the first of several: the others are for its loss, as skorch has it."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def float_type(module: nn.Module) -> torch.dtype:
    """Return the type of float that a module computes in."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` has wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)


def trained_by(net: skorch.NeuralNet, loss: type[nn.Module]) -> bool:
    """Tell whether a fitted net's plain outputs are compared with labels by a loss, and not changed for predictions."""
    return isinstance(uncompiled(net.criterion_), loss) and net.predict_nonlinearity == "auto"


def plain_logits(net: skorch.NeuralNet) -> Callable[[Tensor], Tensor] | None:
    """Return what makes logits (n, C) of a fitted net's plain outputs, or None where their meaning must be seen."""
    if trained_by(net, nn.CrossEntropyLoss):
        return lambda out: out
    if trained_by(net, nn.BCEWithLogitsLoss):
        return lambda z: torch.stack([torch.zeros_like(z.flatten()), z.flatten()], dim=1)
    return None


def sums_to_one(values: Tensor) -> bool:
    """Tell whether rows of values (n, C) are probabilities."""
    return bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-3).all())


def on_simplex(values: Tensor) -> Tensor:
    """Return class probabilities (n, C), logarithms undone, or say that they are none."""
    if values.ndim == 2:
        for candidate in (values, values.exp()):
            if sums_to_one(candidate):
                return candidate
    got = f"outputs of shape {tuple(values.shape)} in [{values.min():.3g}, {values.max():.3g}]"
    raise UnmetNeedError(
        f"Expected probabilities, rows that sum to one, got {got}. "
        "Train with CrossEntropyLoss on logits, or set the net's predict_nonlinearity."
    )


def has_label_loss(net: Any) -> bool:
    """Tell whether a net's loss takes every output for a label of its own.

    Parameters
    ----------
    net : skorch net

    Returns
    -------
    bool
        Whether it is one of `LOSSES`; with a single output it is a net for two classes.
    """
    return issubclass(loss_class(net), LOSSES)


def gives_a_matrix(classifier: Any) -> bool:
    """Tell whether a fitted scikit-learn classifier was taught a matrix of labels.

    Parameters
    ----------
    classifier : estimator
        A classifier.

    Returns
    -------
    bool
        By what it says of itself: ``multilabel_``, several ``n_outputs_``, or a list of ``classes_``.
    """
    several = getattr(classifier, "n_outputs_", 1) != 1 or isinstance(getattr(classifier, "classes_", None), list)
    return bool(several or getattr(classifier, "multilabel_", False))


def stacked_columns(found: Any) -> Tensor:
    """Return a scikit-learn classifier's probabilities of several labels as one matrix.

    Parameters
    ----------
    found : array (n, K), or list of K arrays (n, 2)
        What ``predict_proba`` returned.

    Returns
    -------
    Tensor (n, K), float64
        Probabilities of the ones.
    """
    if isinstance(found, list):
        # Of a label that was never seen, or always, a forest returns one column.
        found = np.stack([part[:, 1] if part.shape[1] > 1 else 1 - part[:, 0] for part in found], axis=1)
    return torch.from_numpy(np.array(found, dtype=np.float64))
