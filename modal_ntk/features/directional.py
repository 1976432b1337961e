"""Gradients summed over samples, and how a step along one direction moves a net: no gradient of any one sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modal_ntk import checks
from modal_ntk.features.capture.independence import Independence
from modal_ntk.features.capture.proof import Draws, tolerance
from modal_ntk.features.capture.recurrent import StepByStep
from modal_ntk.features.capture.routes import Routes
from modal_ntk.features.cotangents import Combined
from modal_ntk.features.factors import products
from modal_ntk.features.functional import FunctionalNet, dense
from modal_ntk.features.reporting import let_out, warn
from modal_ntk.features.samples import Samples
from modal_ntk.nets.room import in_parts

Direction = dict[str, Tensor]
Weigh = Callable[[Tensor], Tensor]


def added(one: Direction, other: Direction) -> Direction:
    """Return the sum of two directions."""
    return {name: one[name] + gradient for name, gradient in other.items()}


class NotAutogradsError(RuntimeError):
    """A derivative differs from that by plain backward passes."""


def kernel_times(
    module: nn.Module,
    x: Any,
    x_from: Any,
    weights: Any,
    *,
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
    verify: bool = True,
) -> Tensor:
    """Multiply the full tangent kernel between samples and others by weights on the others' outputs.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor (n, ...), or several by name, and returns logits (n, K). Read in evaluation mode; untouched.
    x : Tensor (n, ...), or dict of them by argument
        Samples whose logits are moved.
    x_from : Tensor (m, ...), or dict of them by argument
        Samples that move them.
    weights : Tensor (m, K)
        Weights of the outputs of `x_from`.
    batch_size : int, default=512
        Samples taken at once.
    dtype : torch.dtype, optional
        Type to compute in; the module's by default.
    verify : bool, default=True
        Whether every batch is compared with a plain backward pass, and samples are checked not to depend on one
        another.

    Returns
    -------
    Tensor (n, K)
        The sum over j of Theta(x_i, x_j) weights_j, with Theta (K, K) the kernel of two samples.

    Raises
    ------
    InvalidInputError
        If an argument is unusable, or samples depend on one another.

    Warns
    -----
    ModalNTKWarning
        If the second derivative that serves is missing or not right, and per-sample gradients are taken instead.

    Notes
    -----
    The kernel is J J', so one backward pass makes J' weights, a direction in the parameters, and a second pass its
    product with J: the cost is linear in both numbers of samples.

    Examples
    --------
    >>> net = nn.Linear(1, 2, bias=False)
    >>> kernel_times(net, torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), torch.ones(2, 2)).tolist()
    [[8.0, 8.0]]
    """
    net = FunctionalNet(module, dtype)
    left, right = net.batch(x), net.batch(x_from)
    size = checks.check_integer("batch_size", batch_size)
    given = torch.as_tensor(weights).to(device=net.device, dtype=net.held_dtype)
    pass_ = Directional(net, verify=verify)
    with net.evaluating():
        direction = {name: torch.zeros_like(p) for name, p in net.parameters.items()}

        def pulled(start: int, stop: int) -> Direction:
            def part(logits: Tensor) -> Tensor:
                own = given[start:stop]
                if len(given) != len(right) or own.shape != logits.shape:
                    got = f"shape {tuple(given.shape)}"
                    what = f"weights of shape ({len(right)}, {logits.shape[1]})"
                    raise checks.expected(what, got, "Pass one weight per sample and output.")
                return own

            return pass_.pulled_back(right[start:stop], part)

        for found in in_parts(pulled, len(right), size):
            for name, gradient in found.items():
                direction[name] += gradient

        def pushed(start: int, stop: int) -> Tensor:
            return pass_.pushed(left[start:stop], direction, by_two_backward_passes)[1]

        moved = in_parts_if_known(pushed, len(left), size, "second derivatives")
        if moved is not None:
            return moved
        routes = Routes(net, left)
        return torch.cat(list(in_parts(lambda i, j: _by_sample(routes, left[i:j], direction), len(left), size)))


def in_parts_if_known(work: Callable[[int, int], Tensor], n: int, step: int, derivative: str) -> Tensor | None:
    """Return what `in_parts` gives, as one; None, with a warning, if torch does not know the derivative that it takes.

    Parameters
    ----------
    work, n, step
        As for `in_parts`.
    derivative : str
        Its name, for the warning.

    Returns
    -------
    Tensor (n, ...) or None
        What was made.
    """
    try:
        return torch.cat(list(in_parts(work, n, step)))
    except RuntimeError as error:
        let_out(error)
        reason = str(error).splitlines()[0]
    warn(f"No {derivative} of this module ({reason}): per-sample gradients are taken instead.")
    return None


def _by_sample(routes: Routes, samples: Samples, direction: Direction) -> Tensor:
    gradients = routes.gradients(samples, Combined(samples, "full").weights)
    out = torch.zeros_like(gradients.recording.logits).flatten()
    for name in gradients.names:
        out += products(gradients.factor(name, joint=False), direction[name].to(out).flatten())
    return out.view_as(gradients.recording.logits)


class Directional:
    """Sums of gradients over a batch, and products of its Jacobian with a direction, each proved.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    verify : bool, default=True
        Whether batches are proved.
    """

    def __init__(self, net: FunctionalNet, *, verify: bool = True) -> None:
        self.net, self.verify = net, verify
        self._draws = Draws()
        self._independence = Independence(net, self._draws)

    def pulled_back(self, samples: Samples, weigh: Weigh) -> Direction:
        """Return the gradient of weighted outputs summed over a batch.

        Parameters
        ----------
        samples : Tensor (n, ...) or NamedTensors
            The batch.
        weigh : callable
            From logits (n, K) to weights (n, K).

        Returns
        -------
        dict of str to Tensor
            By parameter.
        """
        if not self.verify or len(samples) == 1:
            return _pulled_back(self.net, samples, weigh)[2][0]
        rows = self._draws.rows(len(samples))
        logits, weights, (of_part, of_rest) = _pulled_back(self.net, samples, weigh, rows)
        self._independence.check(samples, logits)
        # Gradients may tie samples together where values do not.
        if not self._apart(self.net, samples[rows], weights[rows], of_part):
            exact = self._independence.exact_net
            whole = exact.batch(samples)
            of_part_exact = _pulled_back(exact, whole, lambda _: weights, rows)[2][0]
            if self.net.dtype == torch.float64 or not self._apart(exact, whole[rows], weights[rows], of_part_exact):
                remedy = "Look for statistics over the batch, and for random numbers."
                what = "gradients that do not depend on which samples share a batch"
                raise checks.expected(what, "others for some samples alone than for all together", remedy)
        return added(of_part, of_rest)

    def _apart(self, net: FunctionalNet, part: Samples, weights: Tensor, together: Direction) -> bool:
        alone = _pulled_back(net, part, lambda _: weights)[2][0]
        size = sum(float(g.norm()) ** 2 for g in alone.values()) ** 0.5
        error = sum(float((alone[name] - together[name]).norm()) ** 2 for name in alone) ** 0.5
        return error <= tolerance(net.dtype) * size

    def pushed(self, samples: Samples, direction: Direction, push: Any) -> tuple[Tensor, Tensor]:
        """Return logits (n, K) and how fast they move along a direction (n, K).

        Parameters
        ----------
        samples : Tensor (n, ...) or NamedTensors
            The batch.
        direction : dict of str to Tensor
            By parameter, in its shape here.
        push : callable
            How: `by_forward_mode` or `by_two_backward_passes`.

        Returns
        -------
        tuple of Tensor (n, K)
            Logits and their change.

        Raises
        ------
        NotAutogradsError
            If the change is not that of plain backward passes.
        """
        logits, change = push(self.net, samples, direction)
        if not self.verify:
            return logits, change
        self._independence.check(samples, change, lambda net, part: push(net, part, _on(net, direction))[1])
        self._independence.check(samples, logits)
        if self._is_right(self.net, samples, direction, change):
            return logits, change
        if self.net.dtype != torch.float64:
            net = self._independence.exact_net
            exact, along = net.batch(samples), _on(net, direction)
            if self._is_right(net, exact, along, push(net, exact, along)[1]):
                return logits, change
        raise NotAutogradsError("it differs from backward passes")

    def _is_right(self, net: FunctionalNet, samples: Samples, direction: Direction, change: Tensor) -> bool:
        # Random weights of the outputs: their sum of changes is the product of one gradient with the direction.
        weights = self._draws.weights(len(change), change.shape[1], change)
        gradient = _pulled_back(net, samples, lambda _: weights)[2][0]
        pairs = [(g.double(), direction[name].double()) for name, g in gradient.items()]
        want = float(sum((g * v).sum() for g, v in pairs))
        got = float((weights.double() * change.double()).sum())
        size = float(sum(g.norm() * v.norm() for g, v in pairs))
        return abs(got - want) <= tolerance(net.dtype) * (abs(want) + 0.01 * size)


def _on(net: FunctionalNet, direction: Direction) -> Direction:
    return {name: direction[name].to(p) for name, p in net.parameters.items()}


def _pulled_back(
    net: FunctionalNet, samples: Samples, weigh: Weigh, rows: list[int] | None = None
) -> tuple[Tensor, Tensor, list[Direction]]:
    # Logits, their weights, and the gradient: if rows are given that of these samples' outputs, and of the others'.
    leaves = net.leaves()
    with torch.enable_grad():
        logits = net(leaves, samples)
    seen = logits.detach().to(net.held_dtype)
    weights = weigh(seen)
    parts = [weights]
    if rows is not None:
        of_rows = torch.zeros_like(weights)
        of_rows[rows] = weights[rows]
        parts = [of_rows, weights - of_rows]
    held: list[Direction] = []
    for part in parts:
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if logits.requires_grad:
            along, more = part.to(logits.dtype), part is not parts[-1]
            found = torch.autograd.grad(logits, list(leaves.values()), along, retain_graph=more, allow_unused=True)
        held.append(
            {
                name: torch.zeros_like(p, dtype=net.held_dtype) if g is None else dense(g).to(net.held_dtype)
                for (name, p), g in zip(leaves.items(), found, strict=True)
            }
        )
    return seen, weights, held


class _AsBackward(TorchFunctionMode):
    # Forward mode knows nothing of two things that stop gradients on their way back: lines of padding, and no_grad.
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not torch.is_grad_enabled():
            return _mapped(out, lambda t: forward_ad.unpack_dual(t).primal)
        if func is F.embedding:
            call = {**dict(zip(("input", "weight", "padding_idx"), args, strict=False)), **(kwargs or {})}
            padding = call.get("padding_idx")
            if padding is not None:
                fixed = (call["input"] == padding % len(call["weight"]))[..., None]
                out = torch.where(fixed, out.detach(), out)
        return out


def _mapped(out: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(out, Tensor):
        return function(out) if out.is_floating_point() else out
    if type(out) in (tuple, list):
        return type(out)(_mapped(value, function) for value in out)
    return out


def by_forward_mode(net: FunctionalNet, samples: Samples, direction: Direction) -> tuple[Tensor, Tensor]:
    """Return logits and their change, by one forward-mode pass."""
    # With gradients enabled, for fused inference functions have no derivative of any mode.
    with torch.enable_grad(), forward_ad.dual_level(), warnings.catch_warnings(), _AsBackward(), StepByStep():
        # Loading its forward-mode rules, torch warns of a function of its own.
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        duals = {name: forward_ad.make_dual(p, direction[name].to(p)) for name, p in net.leaves().items()}
        logits, change = forward_ad.unpack_dual(net(duals, samples))
    seen = logits.detach().to(net.held_dtype)
    return seen, torch.zeros_like(seen) if change is None else change.detach().to(net.held_dtype)


def by_two_backward_passes(net: FunctionalNet, samples: Samples, direction: Direction) -> tuple[Tensor, Tensor]:
    """Return logits and their change; the gradient is linear in the weights of the outputs, so its derivative tells."""
    leaves = net.leaves()
    with torch.enable_grad():
        logits = net(leaves, samples)
        seen = logits.detach().to(net.held_dtype)
        if not logits.requires_grad:
            return seen, torch.zeros_like(seen)
        weights = torch.zeros_like(logits, requires_grad=True)
        found = torch.autograd.grad(logits, list(leaves.values()), weights, create_graph=True, allow_unused=True)
        terms = [
            (dense(g) * direction[name].to(g)).sum() for name, g in zip(leaves, found, strict=True) if g is not None
        ]
        total = torch.stack(terms).sum()
        if not total.requires_grad:  # no derivative of the second order is known
            raise NotAutogradsError("it has no second derivative")
        (out,) = torch.autograd.grad(total, weights)
    return seen, out.detach().to(net.held_dtype)
