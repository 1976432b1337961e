"""Samples sent through a net: its outputs, and what its layers make of them on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from skorch.dataset import get_len, unpack_data
from skorch.utils import multi_indexing
from torch import Tensor, nn

from modal_ntk import checks, progress
from modal_ntk.errors import UnmetNeedError
from modal_ntk.nets.cached_pool import held
from modal_ntk.nets.datasets import in_order
from modal_ntk.nets.reading.estimator import EstimatorView
from modal_ntk.nets.reading.outputs import as_matrix, cast, first_output, flat, float_type, read_by, unwarned
from modal_ntk.nets.rows import take_rows

Layer = str | Callable[[Any], Any] | None


class PassView(EstimatorView):
    """Samples sent through the net: its outputs, embeddings and features."""

    def embeddings(self, X: Any, layer: Layer = None) -> Tensor:
        """Return an inner representation of every sample, flattened to one row.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.
        layer : str, callable or None, default=None
            None: the input of the linear layer that runs last, the penultimate activation. A name from
            ``module.named_modules()``: that layer's output. A callable: is given the prepared samples.

        Returns
        -------
        Tensor (n, d)
            The embedding, on the CPU.

        Raises
        ------
        UnmetNeedError
            If there is no fitted torch net, or it has no linear layer and none is named.
        UnknownNameError
            If no layer has that name.
        """
        if callable(layer):
            return as_matrix(layer(self.prepare(X)), "the embedding callable's result")
        self._require_net("embedding")
        cached = held(X, layer or "embedding", self, partial(self.embeddings, layer=layer))
        if cached is not None:
            return cached
        with self._recording(layer) as last:
            batches = (self._embedded(last, outputs) for outputs in self._forward(self.prepare(X)))
            found = stacked(batches, checks.n_rows(X))
        return checked("embedding of the net", found)

    def _embedded(self, last: dict[str, Tensor], outputs: Any) -> Tensor:
        if "output" not in last:
            name = type(self.module).__name__
            remedy = "Name the embedding layer instead."
            raise UnmetNeedError(f"Expected a net that calls its linear layers, got {name}, which calls none. {remedy}")
        found, n = last.pop("output"), len(first_output(outputs))
        if not isinstance(found, Tensor) or found.ndim == 0 or len(found) != n:
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            got = f"{shape}, as of a layer called for each sample, sent some of them, or with several outputs"
            remedy = "Name a layer that is called once for all samples, or pass a callable."
            raise checks.expected(f"one row of the embedding for each of {n} samples", got, remedy)
        return flat(found.detach().cpu())

    def features(self, X: Any, source: Layer = "input") -> Tensor:
        """Return the features that stay fixed while the net learns.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them.
        source : str or callable, default="input"
            "input": the samples themselves, flattened. A layer's name: the output of that (frozen) layer.
            A callable: is given the prepared samples.

        Returns
        -------
        Tensor (n, d)
            The features, on the CPU.
        """
        if source == "input":
            return as_matrix(self.prepare(X), 'the pool under features="input"')
        return self.embeddings(X, source)

    def probe(self, X: Any) -> Tensor:
        """Return the net's outputs for the first sample, as a proof that it can read such samples.

        Parameters
        ----------
        X : samples (n, ...)
            As users pass them, at least one.

        Returns
        -------
        Tensor (1, ...)
            What the module returned.

        Raises
        ------
        InvalidInputError
            If the net cannot read it, with its own error as the cause.
        """
        return self._outputs(take_rows(X, np.zeros(1, np.int64)))

    def _outputs(self, X: Any) -> Tensor:
        outputs = self._forward(self.prepare(X))
        batches = (first_output(out).detach().cpu() for out in outputs)
        # Minus infinity is the logarithm of no chance at all, which outputs may be.
        return checked("outputs of the net", stacked(batches, checks.n_rows(X)), lambda x: x.isnan() | (x == torch.inf))

    def _forward(self, X: Any) -> Iterator[Any]:
        net = self.net
        dtype = float_type(self.module)
        with self.no_trace():
            for batch in unwarned(in_order(net.get_iterator(net.get_dataset(X), training=False))):
                inputs, target = unpack_data(batch)
                # Lists and float64 arrays meet a float32 net every day; the module's own type decides.
                for outputs in self._evaluated(cast(inputs, dtype), target, X):
                    yield outputs
                    progress.advance(len(first_output(outputs)), "row")

    def _evaluated(self, inputs: Any, target: Any, X: Any) -> Iterator[Any]:
        # A batch; where the GPU has no room for it in halves, and for these again: a sample's outputs are its own.
        try:
            with read_by("the net", X):
                found = [self.net.evaluation_step((inputs, target), training=False)]
        except torch.cuda.OutOfMemoryError:
            if get_len(inputs) < 2:
                raise
            found = []
        yield from found
        if not found:
            torch.cuda.empty_cache()
            half = get_len(inputs) // 2
            for part in (slice(half), slice(half, None)):
                yield from self._evaluated(multi_indexing(inputs, part), multi_indexing(target, part), X)

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        # A compiled module does not call the hooks of its parts, so the one inside stands in for it.
        held = vars(self.net)
        before = held["module_"]
        held["module_"] = self.module
        try:
            yield
        finally:
            held["module_"] = before

    @contextmanager
    def _recording(self, layer: str | None) -> Iterator[dict[str, Tensor]]:
        # What runs last overwrites, so the head's input stays even where linear layers are called out of order.
        last: dict[str, Tensor] = {}
        modules = dict(self.module.named_modules())
        if layer is not None and layer not in modules:
            remedy = "Names come from module.named_modules()."
            raise checks.unknown_name("layer", layer, [name for name in modules if name], remedy)
        linear = [part for part in modules.values() if isinstance(part, nn.Linear)]
        if layer is None and not linear:
            name = type(self.module).__name__
            raise UnmetNeedError(f"Expected a net with a linear layer, got {name}. Name the embedding layer instead.")

        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            last["output"] = inputs[0] if layer is None else output

        handles = [part.register_forward_hook(record) for part in (linear if layer is None else [modules[layer]])]
        try:
            with self._as_written():
                yield last
        finally:
            for handle in handles:
                handle.remove()


def stacked(batches: Iterator[Tensor], n: int) -> Tensor:
    """Return batches in one tensor of `n` rows, filled as they come: no second copy of all of them is held."""
    first = next(batches)
    if first.ndim == 0:
        return torch.cat([first, *batches])
    found, end = first.new_empty((max(n, len(first)), *first.shape[1:])), 0
    for batch in chain([first], batches):
        if batch.shape[1:] != found.shape[1:] or batch.dtype != found.dtype or end + len(batch) > len(found):
            return torch.cat([found[:end], batch, *batches])
        found[end : end + len(batch)] = batch
        end += len(batch)
    return found[:end]


_BLOCK = 2**22  # entries that are looked at together


def checked(what: str, values: Tensor, bad: Callable[[Tensor], Tensor] = lambda x: ~x.isfinite()) -> Tensor:
    """Return values (n, ...) unless some are bad, which by default are those not finite."""
    blocks = values.split(max(1, _BLOCK // max(1, values[:1].numel())))
    return checks.check_outputs(what, values, torch.cat([flat(bad(block)).any(dim=1) for block in blocks]).numpy())
