"""For each parameter of a module, the way by which its per-sample gradients are had; each way proved before use.

Before anything large is computed, two samples are differentiated one at a time by plain autograd, and a route serves a
parameter only if it gives the same. What fails takes the next route: factors (or BackPACK), then `torch.func`,
then one sample at a time. So a layer that mixes up axes, or one that a library gets wrong, costs time and not truth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.features.backpack_route import BackpackCopy
from modal_ntk.features.cotangents import cotangents
from modal_ntk.features.factors import Dense, Factor, n_bytes
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.per_sample import looped_gradients, vectorised_gradients
from modal_ntk.features.recording import Recording, record
from modal_ntk.features.samples import Samples

FACTORED, BACKPACK, TORCH_FUNC, LOOP, NONE = "factored", "backpack", "torch.func", "loop", "none"

# A wrong route is wrong by as much as the gradient itself; rounding, even of reduced-precision products, is far below.
_TOLERANCE = 2e-2


@dataclass(frozen=True)
class SampleGradients:
    """Per-sample gradients of one batch, by parameter, each made when asked for.

    Parameters
    ----------
    recording : Recording
        What the factored route saw.
    written : dict of str to Tensor (n, r, p)
        Gradients by the other routes.
    """

    recording: Recording
    written: dict[str, Tensor]

    def factor(self, name: str, *, joint: bool, rows: slice = slice(None)) -> Factor:
        """Return the gradients of one parameter by some samples: n rows (`joint`) or n * r."""
        if name in self.written:
            written = self.written[name][rows]
            return Dense(written.flatten(1) if joint else written.flatten(0, 1))
        found = self.recording.factor(name, joint=joint, rows=rows)
        if found is None:
            raise checks.expected(f"one use of {name} for every batch", "another than before", "Fix what varies.")
        return found


class Routes:
    """The routes of a module's parameters.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    x : Tensor (n, ...) or NamedTensors
        Samples; the first and the last are used.
    explicit : bool, default=False
        Whether gradients are to be written out: BackPACK where it is proved, `torch.func` elsewhere.

    Attributes
    ----------
    by_name : dict of str to str
        "factored", "backpack", "torch.func", "loop", or "none" where the outputs do not depend on the parameter.
    bytes_by_name : dict of str to int
        What one sample's factor of a parameter takes, of those that have factors.
    n_outputs : int
        Number of logits.
    backpack_error : str or None
        What BackPACK raised, if it was tried and could not follow the module.
    bytes_per_direction : int
        About what one weighted output of one sample takes.
    """

    def __init__(self, net: FunctionalNet, x: Samples, *, explicit: bool = False) -> None:
        if len(x) == 0:
            raise checks.expected("at least one sample", "none", "Pass a batch.")
        self.net = net
        self.by_name: dict[str, str] = {}
        self.bytes_by_name: dict[str, int] = {}
        self.backpack_error: str | None = None
        self._copy: BackpackCopy | None = None
        pair = x[[0, -1]]
        alone = torch.cat([net.logits(pair[:1]), net.logits(pair[1:])])
        _check_independent(net.logits(pair), alone)
        self.n_outputs = alone.shape[1]
        # Different weights for the two tell the samples apart even where they are copies of one another.
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(2, 1, self.n_outputs, generator=generator, dtype=torch.float64).to(alone)
        self._truth = looped_gradients(net, pair, weights, list(net.parameters))
        self._scale = max(float(g.norm()) for g in self._truth.values())
        self._settle(pair, weights, explicit)
        del self._truth

    def _settle(self, pair: Samples, weights: Tensor, explicit: bool) -> None:
        recording = record(self.net, pair, weights)
        if explicit:
            self._prove_backpack(pair, weights)
        else:
            for name in recording.names:
                factor = recording.factor(name, joint=True)
                if factor is not None and self._right(name, factor.dense()):
                    self.by_name[name] = FACTORED
                    self.bytes_by_name[name] = n_bytes(factor) // len(pair)
        self._layout = self._factored_calls(recording)
        reached = recording.names | recording.uncovered
        for name in self.net.parameters:
            if name not in reached and not self._truth[name].any():
                self.by_name[name] = NONE
        self._prove_vectorised(pair, weights)
        held = max(self.bytes_by_name.values(), default=0)
        written = sum(p.nbytes for name, p in self.net.parameters.items() if self._is_written(name))
        # Beside what is recorded, autograd keeps about as much again, and writing gradients out takes copies.
        self.bytes_per_direction = 3 * written + 2 * held + 2 * recording.n_bytes // len(pair)

    def _factored_calls(self, recording: Recording) -> list[tuple[tuple[str, ...], int]]:
        return [call for call in recording.layout if any(self.by_name.get(name) == FACTORED for name in call[0])]

    def _is_written(self, name: str) -> bool:
        return self.by_name[name] in (BACKPACK, TORCH_FUNC, LOOP)

    def _right(self, name: str, gradient: Tensor) -> bool:
        truth = self._truth[name]
        if gradient.numel() != truth.numel():
            return False
        error = float((gradient.reshape(truth.shape) - truth).norm())
        # Written so that a NaN counts as wrong.
        return error <= _TOLERANCE * float(truth.norm()) + 1e-6 * self._scale

    def _prove_backpack(self, pair: Samples, weights: Tensor) -> None:
        try:
            self._copy = BackpackCopy(self.net, pair)
            found = self._copy.gradients(pair, weights)
        except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            # What BackPACK raises on a module that it cannot follow; `torch.func` then serves all of it.
            self.backpack_error = f"{type(error).__name__}: {error}"
            return
        self.by_name.update({name: BACKPACK for name, g in found.items() if self._right(name, g)})

    def _prove_vectorised(self, pair: Samples, weights: Tensor) -> None:
        left = [name for name in self.net.parameters if name not in self.by_name]
        if not left:
            return
        try:
            found = vectorised_gradients(self.net, pair, weights, left)
            reason = "it gives other gradients than autograd there"
        except (RuntimeError, NotImplementedError, ValueError) as error:
            found, reason = {}, f"{type(error).__name__}: {error}".splitlines()[0]
        self.by_name.update({name: TORCH_FUNC for name, g in found.items() if self._right(name, g)})
        looped = [name for name in left if name not in self.by_name]
        if looped:
            self.by_name.update(dict.fromkeys(looped, LOOP))
            message = f"torch.func cannot batch {', '.join(looped)} ({reason}): one sample at a time, which is slow."
            warnings.warn(message, ModalNTKWarning, stacklevel=5)

    def names(self) -> list[str]:
        """Return the parameters with gradients, in the module's order."""
        return [name for name in self.net.parameters if self.by_name[name] != NONE]

    def weights(self, batch: Samples, kind: str, signs: Any, labels: Any) -> Tensor:
        """Return the weights of the outputs that make a kind of kernel, as `cotangents` does: (n, r, K).

        Parameters
        ----------
        batch : Tensor (n, ...) or NamedTensors
            Samples; their outputs are computed only for the kinds that depend on them.
        kind, signs, labels
            As in `cotangents`.
        """
        blank = torch.zeros(len(batch), self.n_outputs, dtype=self.net.dtype, device=self.net.device)
        return cotangents(kind, self.net.logits(batch) if kind in ("loss", "mse") else blank, signs, labels)

    def gradients(self, batch: Samples, cotangents: Tensor | Callable[[Tensor], Tensor]) -> SampleGradients:
        """Differentiate a batch, each parameter by its route.

        Parameters
        ----------
        batch : Tensor (n, ...) or NamedTensors
            Samples.
        cotangents : Tensor (n, r, K), or callable
            Weights of the outputs, or what makes them of the logits (n, K).

        Returns
        -------
        SampleGradients
            The gradients.

        Raises
        ------
        InvalidInputError
            If the module calls other layers for this batch than it did at first.
        """
        if callable(cotangents) and any(self._is_written(name) for name in self.by_name):
            cotangents = cotangents(self.net.logits(batch))
        written = {} if callable(cotangents) else self._written(batch, cotangents)
        if FACTORED not in self.by_name.values():
            return SampleGradients(Recording(len(batch), [], [], set()), written)
        recording = record(self.net, batch, cotangents, find_attached=False)
        if self._factored_calls(recording) != self._layout:
            remedy = "Use method='explicit', or a module that does the same for every batch."
            raise checks.expected("the same layers called for every batch", "others than for the first", remedy)
        return SampleGradients(recording, written)

    def _written(self, batch: Samples, cotangents: Tensor) -> dict[str, Tensor]:
        written: dict[str, Tensor] = {}
        by_route = {route: [n for n, r in self.by_name.items() if r == route] for route in (TORCH_FUNC, LOOP)}
        if by_route[TORCH_FUNC]:
            written.update(vectorised_gradients(self.net, batch, cotangents, by_route[TORCH_FUNC]))
        if by_route[LOOP]:
            written.update(looped_gradients(self.net, batch, cotangents, by_route[LOOP]))
        if self._copy is not None and BACKPACK in self.by_name.values():
            found = self._copy.gradients(batch, cotangents)
            written.update({name: found[name] for name, route in self.by_name.items() if route == BACKPACK})
        return written


def _check_independent(together: Tensor, alone: Tensor) -> None:
    if not torch.allclose(together, alone, rtol=1e-2, atol=1e-3 * max(float(alone.abs().max()), 1e-30)):
        remedy = "A normalisation without running statistics does that: replace it or track statistics."
        what = "outputs that do not depend on which samples share a batch"
        raise checks.expected(what, "others for two samples than for each alone", remedy)
