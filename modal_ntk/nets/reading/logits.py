"""A learner's net as what gradients need: a module from samples to logits, its inputs, its class numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from skorch.dataset import Dataset, unpack_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler, default_collate

from modal_ntk import checks
from modal_ntk.nets.datasets import in_order
from modal_ntk.nets.encoded import numbers_of
from modal_ntk.nets.reading.outputs import (
    first_output,
    on_simplex,
    plain_logits,
    sums_to_one,
    trained_by,
    uncompiled,
    unwarned,
)
from modal_ntk.nets.reading.view import NetView
from modal_ntk.nets.rows import take_rows


class LogitModule(nn.Module):
    """A net with its output turned into logits; it shares the net's parameters.

    Parameters
    ----------
    module : torch.nn.Module
        The net.
    to_logits : callable
        From its output to logits (n, C).
    """

    def __init__(self, module: nn.Module, to_logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.to_logits = to_logits

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Map samples to logits."""
        return self.to_logits(first_output(self.module(*inputs, **named)))


def logit_module(view: NetView, X: Any) -> nn.Module:
    """Return a view's net as a module whose softmax is the class probabilities.

    Parameters
    ----------
    view : NetView
        A view of a learner with a fitted net.
    X : samples (n, ...)
        As users pass them; the first is sent through the net if its output's meaning must be seen.

    Returns
    -------
    torch.nn.Module
        From samples to logits (n, C), as `NetView.logits` gives them, differentiable: the net's outputs where it
        is trained by cross-entropy, or by squared error on what are no probabilities; logarithms of probabilities
        (clamped at 1e-12); or (0, z) for one logit z.

    Raises
    ------
    UnmetNeedError
        If the net's outputs are no probabilities and its criterion does not tell what they are.

    Examples
    --------
    >>> import skorch
    >>> net = skorch.NeuralNetClassifier(nn.Linear(2, 3), criterion=nn.CrossEntropyLoss).initialize()
    >>> logit_module(NetView(net), np.zeros((1, 2), "float32"))(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """
    net, module = view.net, view.module
    view._refuse_several_labels(X)
    outputs = view.probe(X) if checks.n_rows(X) > 0 else torch.zeros(0)
    if (to_logits := plain_logits(net)) is not None:
        return LogitModule(module, to_logits)
    # The accessor is skorch's own resolution of `predict_nonlinearity`; it has no public name.
    to_output = net._get_predict_nonlinearity()
    values = to_output(outputs)
    if trained_by(net, nn.MSELoss) and not sums_to_one(values):
        return LogitModule(module, to_output)
    if torch.equal(on_simplex(values), values):
        return LogitModule(module, lambda out: to_output(out).clamp_min(1e-12).log())
    return LogitModule(module, to_output)


def label_logit_module(view: NetView, X: Any) -> nn.Module:
    """Return a view's net as a module whose sigmoids are the probabilities of several labels of a sample.

    Parameters
    ----------
    view : NetView
        A view of a learner with a fitted net, trained by a loss that takes every output for a label.
    X : samples (n, ...)
        As users pass them; the first is sent through the net, to count its outputs.

    Returns
    -------
    torch.nn.Module
        From samples to logits (n, K), differentiable: the net's outputs, or of probabilities, where it is trained by
        ``nn.BCELoss``, their logits (kept off zero and one by a rounding).

    Raises
    ------
    InvalidInputError
        If the net has no output for each of several labels.

    Examples
    --------
    >>> import skorch
    >>> net = skorch.NeuralNet(nn.Linear(2, 3), criterion=nn.BCEWithLogitsLoss).initialize()
    >>> label_logit_module(NetView(net), np.zeros((1, 2), "float32"))(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """
    view.label_probabilities(take_rows(X, np.arange(min(1, checks.n_rows(X)))))
    if isinstance(uncompiled(view.net.criterion_), nn.BCELoss):
        return LogitModule(view.module, lambda p: torch.logit(p, eps=torch.finfo(p.dtype).eps))
    return LogitModule(view.module, lambda out: out)


def input_batches(view: NetView, X: Any) -> Iterator[Tensor | dict[str, Tensor]]:
    """Yield samples as the net's own data loader batches them.

    Parameters
    ----------
    view : NetView
        A view of a learner with a net.
    X : samples (n, ...)
        As users pass them.

    Yields
    ------
    Tensor (m, ...), or dict of them by argument
        The inputs of one batch, in order.

    Raises
    ------
    InvalidInputError
        If the net takes several inputs that have no names.
    """
    net = view.net
    loader = in_order(net.get_iterator(net.get_dataset(view.prepare(X)), training=False))
    if _only_stacks(loader):
        rows, size = loader.dataset.X, loader.batch_size
        parts = (rows[start : start + size] for start in range(0, len(rows), size))
        yield from (part.clone() if isinstance(part, Tensor) else torch.from_numpy(np.array(part)) for part in parts)
        return
    for batch in unwarned(loader):
        inputs, _ = unpack_data(batch)
        values = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
        if not all(isinstance(value, Tensor) for value in values):
            remedy = "Let the module's forward take each input by name, and pass a dict of them."
            raise checks.expected("samples that are one tensor, or several by name", type(inputs).__name__, remedy)
        yield inputs if isinstance(inputs, Tensor) else dict(inputs)


def _only_stacks(loader: Any) -> bool:
    # A loader that does no more than stack consecutive rows of an array does so one Python call per row, which
    # costs small nets a tenth of their pass: such rows are cut from the array at once. Exact types, for whoever
    # derives from them may do more.
    dataset: Any = getattr(loader, "dataset", None)
    if type(loader) is not DataLoader or type(dataset) is not Dataset:
        return False
    plain = type(loader.sampler) is SequentialSampler and loader.collate_fn is default_collate
    if not plain or loader.batch_size is None or loader.drop_last or loader.pin_memory:
        return False
    rows = dataset.X
    if type(rows) in (np.ndarray, np.memmap):
        return rows.ndim > 1 and rows.dtype.kind in "fiub"
    return type(rows) is Tensor and rows.ndim > 1


def stacked_inputs(view: NetView, *parts: Any) -> Tensor | dict[str, Tensor]:
    """Return samples as the net's own data loader prepares them, all in one.

    Parameters
    ----------
    view : NetView
        A view of a learner with a net.
    *parts : samples (n, ...)
        As users pass them; one after another. None is left out.

    Returns
    -------
    Tensor (n, ...), or dict of them by argument
        The inputs of all samples, in order.

    Examples
    --------
    >>> import skorch
    >>> net = skorch.NeuralNetClassifier(torch.nn.Linear(2, 3), batch_size=2).initialize()
    >>> stacked_inputs(NetView(net), np.zeros((3, 2), "float32"), None, np.ones((1, 2), "float32")).shape
    torch.Size([4, 2])
    """
    batches: list[Any] = [batch for X in parts if X is not None for batch in input_batches(view, X)]
    if isinstance(batches[0], dict):
        return {name: _stacked([batch[name] for batch in batches], view.device) for name in batches[0]}
    return _stacked(batches, view.device)


def _stacked(parts: list[Any], device: torch.device) -> Tensor:
    # A pool may lie on the GPU while labelled samples do not: all go where the net is then.
    if len({part.device for part in parts}) > 1:
        parts = [part.to(device) for part in parts]
    return torch.cat(parts)


def class_columns(view: NetView, y: Any, n_outputs: int) -> np.ndarray:
    """Return for each label the column of the logits that is its own.

    Parameters
    ----------
    view : NetView
        A view of a learner with a fitted net.
    y : array-like (l,)
        Labels as users pass them.
    n_outputs : int
        Number of columns.

    Returns
    -------
    numpy.ndarray (l,), int64
        Positions in the learner's classes where these name every column; else the labels themselves, which is
        what a plain skorch net trains on, and of which it may not have seen all yet.

    Raises
    ------
    InvalidInputError
        If a label is neither.
    """
    labels, classes = np.asarray(y), view.classes
    if (view.is_encoded or len(classes) == n_outputs) and set(labels.tolist()) <= set(classes.tolist()):
        return numbers_of(labels, classes)
    whole = labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool((labels % 1 == 0).all()))
    if whole and (len(labels) == 0 or (labels.min() >= 0 and labels.max() < n_outputs)):
        return labels.astype(np.int64)
    got = f"labels {np.unique(labels)[:5].tolist()} with classes {classes[:5].tolist()}"
    raise checks.expected(f"labels that belong to the net's {n_outputs} outputs", got, "Pass classes= to the net.")
