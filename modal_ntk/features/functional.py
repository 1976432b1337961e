"""A module as a pure function of its parameters and a batch: evaluation mode, nothing of the user's touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.features.samples import Samples, as_samples, called
from modal_ntk.nets.traceless import no_trace


class FunctionalNet:
    """The function ``logits(parameters, batch)`` that a module computes in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K), or (n,) for a single one.
    dtype : torch.dtype, optional
        Type to compute in; the module's own by default. Copies are converted, the module is not.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.module = module
        trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trainable:
            remedy = "Set requires_grad on the parameters whose gradients make the kernel."
            raise checks.expected("a module with trainable parameters", "none", remedy)
        first = next(iter(trainable.values()))
        self.dtype, self.device = dtype or first.dtype, first.device
        # An embedding with a maximal norm rescales its table on every call, so it gets a table of its own.
        writes = any(getattr(part, "max_norm", None) is not None for part in module.modules())
        self.parameters = {name: self._converted(p, copy=writes) for name, p in trainable.items()}
        frozen = {name: p for name, p in module.named_parameters() if name not in trainable}
        # Buffers are copied, for a module may write to them even in evaluation mode.
        constants = {**frozen, **dict(module.named_buffers())}
        self.constants = {name: self._converted(t, copy=True) for name, t in constants.items()}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the module into evaluation mode inside, and leave it as found."""
        with no_trace(self.module), _plain_attention():
            self.module.eval()
            yield

    def __call__(self, parameters: dict[str, Tensor], batch: Samples) -> Tensor:
        """Return logits (n, K) of a batch under the given trainable parameters."""
        # The copy is for modules that change their input in place.
        out = called(self.module, {**parameters, **self.constants}, batch.clone())
        if not isinstance(out, Tensor) or out.ndim not in (1, 2) or len(out) != len(batch):
            got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            remedy = "Wrap it in a module that returns logits."
            raise checks.expected(f"outputs of shape ({len(batch)}, K) from the module", got, remedy)
        return out[:, None] if out.ndim == 1 else out

    def logits(self, batch: Samples) -> Tensor:
        """Return logits (n, K) of a batch, without gradients."""
        with torch.no_grad():
            return self(self.parameters, batch)

    def leaves(self) -> dict[str, Tensor]:
        """Return the trainable parameters as fresh leaves that share memory with the module's."""
        return {name: p.detach().requires_grad_() for name, p in self.parameters.items()}

    def batch(self, x: Any) -> Samples:
        """Move samples, a tensor or a dict of them, to the module's device, and floats to the type computed in."""
        return as_samples(x, lambda part: self._converted(part.to(self.device)))

    def _converted(self, tensor: Tensor, *, copy: bool = False) -> Tensor:
        plain = tensor.detach()
        plain = plain.to(self.dtype) if plain.is_floating_point() else plain
        return plain.clone() if copy else plain


def _plain_attention() -> AbstractContextManager[Any]:
    # Fused attention has no forward-mode derivative, and `torch.func` takes it one sample at a time.
    if not hasattr(nn, "attention"):  # torch before 2.3
        return nullcontext()
    return nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH)
