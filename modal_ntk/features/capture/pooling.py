"""Pooling in other words than torch's, to the same values.

Max-pooling by small windows that do not overlap is made of maxima of whole arrays, on a processor much the faster way.
Averages over all pixels are means, as in torch, but for a step that lays them out in memory anew and of which the graph
does not tell that it keeps samples apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from modal_ntk.features.capture.layers import per_axis

# Beyond this many pixels to a window the passes over them cost what torch's own loop does.
_SMALL = 4


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return what `torch.nn.functional.max_pool2d` returns, and differentiates to, by the faster way if it serves.

    Parameters
    ----------
    input : Tensor (..., height, width)
        Pixels.
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As there.

    Returns
    -------
    Tensor (..., height // k, width // k)
        Maxima; of equal pixels the first takes the gradient, as in torch.

    Examples
    --------
    >>> max_pool2d(torch.tensor([[[1.0, 2.0, 5.0], [4.0, 3.0, 6.0]]]), 2)
    tensor([[[4.]]])
    """
    size = per_axis(kernel_size, 2)
    plain = per_axis(padding, 2) == [0, 0] and per_axis(dilation, 2) == [1, 1] and not (ceil_mode or return_indices)
    apart = not stride or per_axis(stride, 2) == size
    if plain and apart and size[0] * size[1] <= _SMALL and input.device.type == "cpu":
        return Maxima.apply(input, size)
    slow: Any = F.max_pool2d  # its two types depend on the last argument
    return slow(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Return what `torch.nn.functional.adaptive_avg_pool2d` returns: a mean, if all pixels give one.

    Parameters
    ----------
    input : Tensor (..., height, width)
        Pixels.
    output_size : int or pair of int
        As there.

    Returns
    -------
    Tensor (..., *output_size)
        Averages.

    Examples
    --------
    >>> adaptive_avg_pool2d(torch.tensor([[[1.0, 2.0], [4.0, 5.0]]]), 1)
    tensor([[[3.]]])
    """
    if output_size in (1, (1, 1), [1, 1]) and input.ndim in (3, 4):
        return input.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(input, output_size)


class Maxima(torch.autograd.Function):
    """Maxima of windows, and where they were."""

    # Keeps where a later pixel of the window was larger than those before; nothing that a change in place could spoil.
    @staticmethod
    def forward(ctx: FunctionCtx, pixels: Tensor, size: list[int]) -> Tensor:
        """Return the maxima of pixels (..., height, width) in windows of a size."""
        best, *others = (corner.contiguous() for corner in _corners(pixels, size))
        larger = []
        for other in others:
            # Ones and zeros of the pixels' own type, by which a gradient is multiplied without being converted.
            larger.append(torch.gt(other, best, out=torch.empty_like(best)))
            best = torch.maximum(best, other)
        ctx.save_for_backward(*larger)
        ctx.shape, ctx.size = pixels.shape, size  # type: ignore[attr-defined]
        return best if others else best.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient at the pixels."""
        pixels = gradient.new_zeros(ctx.shape)
        first, *others = _corners(pixels, ctx.size)
        for other, larger in zip(reversed(others), reversed(ctx.saved_tensors), strict=True):
            taken = gradient * larger
            other.copy_(taken)
            gradient = gradient - taken
        first.copy_(gradient)
        return pixels, None


def _corners(pixels: Tensor, size: list[int]) -> list[Tensor]:
    """Return, for each place in the window, the pixels at it in all windows."""
    high, wide = size
    height, width = pixels.shape[-2] // high * high, pixels.shape[-1] // wide * wide
    return [pixels[..., i:height:high, j:width:wide] for i in range(high) for j in range(wide)]
