"""Recurrent layers step by step, in the layer functions that are watched and batched; torch's own are neither.

The fused kernels have no rule for per-sample gradients, `torch.func` cannot batch them, and cuDNN's have no backward
pass in evaluation mode. Written out they are linear layers and arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

State = tuple[Tensor, ...]


def _long_short(given: Tensor, kept: Tensor, state: State) -> State:
    enter, forget, new, leave = (given + kept).chunk(4, 1)
    cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _gated(given: Tensor, kept: Tensor, state: State) -> State:
    (reset, update, new), (kept_reset, kept_update, kept_new) = given.chunk(3, 1), kept.chunk(3, 1)
    new = torch.tanh(new + torch.sigmoid(reset + kept_reset) * kept_new)
    return (new + torch.sigmoid(update + kept_update) * (state[0] - new),)


def _by(bend: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, State], State]:
    return lambda given, kept, _state: (bend(given + kept),)


_STEPS: dict[Any, Callable[[Tensor, Tensor, State], State]] = {
    torch.lstm: _long_short, torch.gru: _gated, torch.rnn_tanh: _by(torch.tanh), torch.rnn_relu: _by(torch.relu)
}  # fmt: skip
_CELLS = {getattr(torch, f"{layer.__name__}_cell"): step for layer, step in _STEPS.items()}


def written_out(func: Any, args: tuple[Any, ...]) -> Callable[[], Any] | None:
    """Return what computes the same as one of torch's recurrent functions, step by step; None of any other call.

    Parameters
    ----------
    func : callable
        As a function mode is given it.
    args : tuple
        Its arguments, in any of its forms: whole sequences, packed ones, or a single step.

    Returns
    -------
    callable or None
        Gives the outputs, and the last state of every layer and direction; or the next state.
    """
    if func in _CELLS:
        return lambda: _next(_CELLS[func], *args)
    if func not in _STEPS:
        return None
    packed = not isinstance(args[3], bool)
    x, sizes, states, weights, has_biases, n_layers, dropout, training, both = (
        args if packed else (args[0], None, *args[1:8])
    )
    if dropout and training:
        return None
    start = states if isinstance(states, (tuple, list)) else (states,)

    def run() -> tuple[Tensor, ...]:
        rows_first = packed or args[8]
        own = _by_layer(weights, has_biases, n_layers * (1 + both))
        out, last = _layers(_STEPS[func], x if rows_first else x.transpose(0, 1), sizes, tuple(start), own, both)
        return out if rows_first else out.transpose(0, 1), *last

    return run


def states_of(func: Any, args: tuple[Any, ...]) -> Any:
    """Return the states that one of torch's recurrent functions starts from, among its arguments."""
    return args[2] if func in _STEPS and isinstance(args[1], Tensor) and not isinstance(args[3], bool) else args[1]


def _next(
    step: Any,
    x: Tensor,
    state: Tensor | State,
    by_input: Tensor,
    by_state: Tensor,
    input_bias: Tensor | None = None,
    state_bias: Tensor | None = None,
) -> Tensor | State:
    now = (state,) if isinstance(state, Tensor) else tuple(state)
    new = step(F.linear(x, by_input, input_bias), F.linear(now[0], by_state, state_bias), now)
    return new[0] if isinstance(state, Tensor) else new


def _by_layer(weights: list[Tensor], has_biases: bool, n: int) -> Iterator[tuple[Any, ...]]:
    # Two matrices, two biases or none, and a projection or none, for each layer and direction.
    each = len(weights) // n
    for number in range(n):
        own = weights[number * each : (number + 1) * each]
        biases = own[2:4] if has_biases else (None, None)
        yield (*own[:2], *biases, own[-1] if each % 2 else None)


def _layers(
    step: Any, x: Tensor, sizes: Tensor | None, state: State, weights: Iterator[tuple[Any, ...]], both: bool
) -> tuple[Tensor, State]:
    last: list[State] = []
    outputs: list[Tensor] = []
    for number, own in enumerate(weights):
        backward = both and number % 2 == 1
        out, end = _direction(step, x, sizes, tuple(part[number] for part in state), own, backward)
        outputs.append(out)
        last.append(end)
        if backward or not both:
            x, outputs = torch.cat(outputs, -1) if both else out, []
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _direction(
    step: Any, x: Tensor, sizes: Tensor | None, state: State, weights: tuple[Any, ...], backward: bool
) -> tuple[Tensor, State]:
    by_input, by_state, input_bias, state_bias, projection = weights
    given = F.linear(x, by_input, input_bias)
    # Of packed sequences, the longest first, a step has the rows of those that are long enough.
    steps = list(given.unbind(1)) if sizes is None else list(given.split(sizes.tolist()))
    outputs: list[Tensor] = []
    for one in reversed(steps) if backward else steps:
        whole = len(one) == len(state[0])
        now = state if whole else tuple(part[: len(one)] for part in state)
        new = step(one, F.linear(now[0], by_state, state_bias), now)
        if projection is not None:
            new = (F.linear(new[0], projection), *new[1:])
        outputs.append(new[0])
        state = new if whole else tuple(torch.cat([a, b[len(one) :]]) for a, b in zip(new, state, strict=True))
    outputs = outputs[::-1] if backward else outputs
    return (torch.stack(outputs, 1) if sizes is None else torch.cat(outputs)), state


class StepByStep(TorchFunctionMode):
    """While active, recurrent layers are written out."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, or what stands for it."""
        stepwise = written_out(func, args)
        return func(*args, **(kwargs or {})) if stepwise is None else stepwise()
