"""A module as a pure function of its parameters and a batch: evaluation mode, nothing of the user's touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk import checks
from modal_ntk.features.reading import plainly, unwrapped
from modal_ntk.features.reporting import let_out
from modal_ntk.features.samples import Samples, as_samples, called

_HALF = (torch.float16, torch.bfloat16)


class FunctionalNet:
    """The function ``logits(parameters, batch)`` that a module computes in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K), or (n,) for a single one. A compiled
        or data-parallel module is read as the one inside.
    dtype : torch.dtype, optional
        Type to compute in; the module's own by default. Copies are converted, the module is not.

    Attributes
    ----------
    parameters : dict of str to Tensor
        The trainable parameters; a complex one (...) as its real and imaginary parts (..., 2).
    held_dtype : torch.dtype
        Type in which gradients are held and added up: float32 for half precision, else the type computed in.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise checks.expected("dtype to be a torch type of floats", repr(dtype), "Pass dtype=torch.float64.")
        self._given = module
        self.module, prefix = unwrapped(module)
        trainable = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if not trainable:
            remedy = "Set requires_grad on the parameters whose gradients make the kernel."
            raise checks.expected("a module with trainable parameters", "none", remedy)
        first = next(iter(trainable.values()))
        self.dtype, self.device = dtype or first.dtype.to_real(), first.device
        self.held_dtype = torch.float32 if self.dtype in _HALF else self.dtype
        self.complex = {prefix + name for name, p in trainable.items() if p.is_complex()}
        # An embedding with a maximal norm rescales its table on every call, so it gets a table of its own.
        writes = any(getattr(part, "max_norm", None) is not None for part in self.module.modules())
        self.parameters = {prefix + name: _real(self._converted(p, copy=writes)) for name, p in trainable.items()}
        self._prefix = prefix
        frozen = {name: p for name, p in self.module.named_parameters() if name not in trainable}
        # Buffers are copied, for a module may write to them even in evaluation mode.
        constants = {**frozen, **dict(self.module.named_buffers())}
        self.constants = {name: self._converted(t, copy=True) for name, t in constants.items()}
        self._tied = _has_twins(self.module)
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the module into evaluation mode inside, and leave it as found."""
        with plainly(self.module, self.device) as restore:
            before, self._restore = self._restore, restore
            try:
                yield
            finally:
                self._restore = before

    def __call__(self, parameters: dict[str, Tensor], batch: Samples) -> Tensor:
        """Return logits (n, K) of a batch under the given trainable parameters."""
        named = {
            name.removeprefix(self._prefix): torch.view_as_complex(p) if name in self.complex else p
            for name, p in parameters.items()
        }
        try:
            # The copy is for modules that change their input in place.
            out = called(self.module, {**named, **self.constants}, batch.clone(), tied=self._tied)
        finally:
            self._restore()
        return _as_logits(out, len(batch))

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

    def direction(self, direction: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return vectors given in the parameters' own shapes in the form and type in which they are held here."""
        return {
            name: _real(direction[name].to(self.device)).to(p).reshape(p.shape) for name, p in self.parameters.items()
        }

    def in_own_shapes(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by parameter, complex ones as such."""
        return {name: torch.view_as_complex(g) if name in self.complex else g for name, g in gradients.items()}

    def exact(self) -> FunctionalNet:
        """Return the same module in float64."""
        net = FunctionalNet(self._given, torch.float64)
        net._restore = self._restore
        return net

    def _converted(self, tensor: Tensor, *, copy: bool = False) -> Tensor:
        plain = tensor.detach()
        if plain.is_floating_point():
            plain = plain.to(self.dtype)
        elif plain.is_complex():
            plain = plain.to(torch.promote_types(self.dtype, torch.complex32))
        return plain.clone() if copy else plain


def differentiated(
    logits: Tensor, targets: list[Any], along: Tensor, names: Iterable[str], *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Return the gradients of weighted outputs by some targets, dense; None where they do not depend on one.

    Parameters
    ----------
    logits, along : Tensor (n, K)
        Outputs and their weights.
    targets : list of Tensor or GradientEdge
        What to differentiate by.
    names : iterable of str
        The parameters concerned, for the message.
    retain_graph : bool, default=False
        Whether the outputs will be differentiated again.

    Returns
    -------
    tuple of Tensor or None
        One for each target.

    Raises
    ------
    InvalidInputError
        If torch cannot.
    """
    try:
        found = torch.autograd.grad(logits, targets, along, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        let_out(error)
        remedy = "Freeze them with requires_grad_(False), or replace the operation."
        what = f"a module that can be differentiated by {', '.join(names)}"
        raise checks.expected(what, f"the error {error}", remedy) from error
    return tuple(None if g is None else dense(g) for g in found)


def dense(gradient: Tensor) -> Tensor:
    """Return a gradient as a plain tensor: tables may have sparse ones."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def _has_twins(module: nn.Module) -> bool:
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return len({id(tensor) for _, tensor in every}) < len(every)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _as_logits(out: Any, n: int) -> Tensor:
    if isinstance(out, Tensor) and not out.is_complex():
        if n == 1 and out.ndim <= 1 and out.numel():
            return out.reshape(1, -1)  # a squeezed sample
        if out.ndim in (1, 2) and len(out) == n:
            return out[:, None] if out.ndim == 1 else out
    got = f"shape {tuple(out.shape)} of {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
    raise checks.expected(f"outputs of shape ({n}, K) from the module", got, "Wrap it in a module that returns logits.")
