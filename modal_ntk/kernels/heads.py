"""Small heads on frozen features, in the parametrisation that neural-tangent theory is written in."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from modal_ntk import checks


class NTKLinear(nn.Module):
    """Linear layer whose weights are standard normal and whose output is scaled by one over root fan-in.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of inputs and outputs.
    generator : torch.Generator
        Source of the weights.
    dtype : torch.dtype
        Type of the weights.
    bias : bool, default=False
        Whether to add a bias, standard normal and not scaled.
    """

    def __init__(
        self, n_in: int, n_out: int, *, generator: torch.Generator, dtype: torch.dtype, bias: bool = False
    ) -> None:
        super().__init__()
        self.scale = 1.0 / math.sqrt(n_in)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype, device=generator.device))

        self.weight = drawn(n_out, n_in)
        self.bias = drawn(n_out) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (..., n_in) to outputs (..., n_out)."""
        return nn.functional.linear(x * self.scale, self.weight, self.bias)


def ntk_head(
    n_features: int,
    n_hidden: int,
    n_outputs: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    bias: bool = False,
) -> nn.Module:
    """Build a freshly drawn Linear-ReLU-Linear head in NTK parametrisation.

    Parameters
    ----------
    n_features, n_hidden, n_outputs : int
        Widths.
    generator : torch.Generator
        Source of the weights; its device is the head's.
    dtype : torch.dtype, default=torch.float64
        Type of the weights.
    bias : bool, default=False
        Whether the layers have biases.

    Returns
    -------
    torch.nn.Module
        A sequential module from (n, n_features) to (n, n_outputs).

    Notes
    -----
    NTKCPL, section 3.3, asks for the kernel of a freshly initialised two-layer classifier and leaves its scaling
    open; here weights are N(0, 1) and outputs are divided by the root of the fan-in. The paper's batch
    normalisation is left out: its kernel would depend on which rows share a batch.

    Examples
    --------
    >>> head = ntk_head(4, 8, 3, generator=torch.Generator().manual_seed(0))
    >>> head(torch.zeros(2, 4, dtype=torch.float64)).shape
    torch.Size([2, 3])
    """
    widths = [
        checks.check_integer(name, value)
        for name, value in (("n_features", n_features), ("n_hidden", n_hidden), ("n_outputs", n_outputs))
    ]
    first, second = (
        NTKLinear(n_in, n_out, generator=generator, dtype=dtype, bias=bias)
        for n_in, n_out in itertools.pairwise(widths)
    )
    return nn.Sequential(first, nn.ReLU(), second)
