"""Whether samples depend on one another: a part of a batch on its own, compared with the same samples in the whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.errors import InvalidInputError
from modal_ntk.features.capture.proof import Draws, agree, tolerance
from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.reporting import let_out
from modal_ntk.features.samples import Samples

Together = Callable[[FunctionalNet, Samples], Tensor]
_Found = TypeVar("_Found")


class Independence:
    """A check for the batches of one module.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode.
    draws : Draws
        Chooses the parts.
    """

    def __init__(self, net: FunctionalNet, draws: Draws) -> None:
        self.net, self.draws = net, draws

    @cached_property
    def exact_net(self) -> FunctionalNet:
        """The module in float64: the judge where rounding may be to blame."""
        return self.net.exact()

    def check(self, batch: Samples, together: Tensor, compute: Together = FunctionalNet.logits) -> None:
        """Compare what is computed for some samples of a batch alone with what it is for all together.

        Parameters
        ----------
        batch : Tensor (n, ...) or NamedTensors
            Samples.
        together : Tensor (n, ...)
            What was computed for them, outputs by default.
        compute : callable, optional
            What computes it.

        Raises
        ------
        InvalidInputError
            If they differ by more than rounding, or the module does not take a part of the batch.
        """
        if len(batch) == 1:
            return
        rows = self.draws.rows(len(batch))
        self.compare(batch, rows, self.alone(compute, batch[rows]), together, compute)

    def compare(
        self, batch: Samples, rows: list[int], alone: Tensor, together: Tensor, compute: Together = FunctionalNet.logits
    ) -> None:
        """Compare what was computed for some samples alone with what was for all, as `check` does."""
        dtype = max((self.net.dtype, together.dtype), key=tolerance)
        if agree(alone, together[rows], float(together.abs().max()), dtype):
            return
        if self.net.dtype != torch.float64 and self._in_float64(compute, batch, rows):
            return
        remedy = (
            "Normalisation without running statistics does that, and dropout that stays on: replace them, or track "
            "statistics."
        )
        what = "outputs that do not depend on which samples share a batch"
        raise checks.expected(what, "others for some samples alone than for all together", remedy)

    def alone(self, compute: Callable[[FunctionalNet, Samples], _Found], part: Samples) -> _Found:
        """Compute something for a part of a batch, with an error of ours if the module takes no part."""
        try:
            return compute(self.net, part)
        except InvalidInputError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            let_out(error)
            remedy = "Normalise with running statistics, and treat every sample alike however many there are."
            what = "a module that takes samples that share a batch with fewer others"
            raise checks.expected(what, f"the error {error}", remedy) from error

    def _in_float64(self, compute: Together, batch: Samples, rows: list[int]) -> bool:
        # Rounding can be large where a net magnifies it, or a rectifier stands near zero; in float64 it is not.
        try:
            net, exact = self.exact_net, self.exact_net.batch(batch)
            together, alone = compute(net, exact), compute(net, exact[rows])
        except (RuntimeError, TypeError, ValueError) as error:
            let_out(error)
            return False
        return agree(alone, together[rows], float(together.abs().max()), torch.float64)
