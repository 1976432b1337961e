"""Per-sample gradients by BackPACK, for the layers on which it is proved right.

BackPACK marks the modules that it watches, so it works on a copy. It leaves some parameters without gradients and some
with wrong ones, neither of which it says; hence the list below, a check that every gradient is there, and the
comparison with autograd that `modal_ntk.features.capture.routes` makes for each parameter before it trusts any route.

Lengths of gradients do not come from here: BackPACK's ``BatchL2Grad`` is wrong on grouped convolutions, and elsewhere
it is what the factors give.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter

import torch
from torch import Tensor, nn

from modal_ntk.features.functional import FunctionalNet
from modal_ntk.features.samples import NamedTensors, Samples, called

# Not Embedding, which fails in float64 and is wrong at the padding line, nor any convolution with same padding.
PROVED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


class BackpackCopy:
    """A copy of a module that BackPACK watches.

    Parameters
    ----------
    net : FunctionalNet
        The module, in evaluation mode; not changed.
    example : Tensor (n, ...) or NamedTensors
        A batch, to count how often each layer is called.
    """

    def __init__(self, net: FunctionalNet, example: Samples) -> None:
        with warnings.catch_warnings():
            # Importing BackPACK imports torchvision, which warns beside a CPU-only torch; nothing here uses it.
            warnings.simplefilter("ignore", UserWarning)
            from backpack import backpack, extend
            from backpack.extensions import BatchGrad
        self._enter = lambda: backpack(BatchGrad())
        self.module = copy.deepcopy(net.module).to(net.dtype)
        calls: Counter[str] = Counter()
        handles = [
            part.register_forward_hook(lambda *_, name=name: calls.update([name]))
            for name, part in self.module.named_modules()
        ]
        with torch.no_grad():
            called(self.module, {}, example.clone())
        for handle in handles:
            handle.remove()
        uses = Counter(id(p) for part in self.module.modules() for p in part.parameters(recurse=False))
        self.names: list[str] = []
        for name, part in self.module.named_modules():
            mine = list(part.named_parameters(name, recurse=False))
            if type(part) not in PROVED or calls[name] != 1 or getattr(part, "padding", 0) == "same":
                continue
            if all(uses[id(p)] == 1 for _, p in mine):
                extend(part)
                self.names += [path for path, p in mine if p.requires_grad]
        self.parameters = dict(self.module.named_parameters())

    def gradients(self, batch: Samples, cotangents: Tensor) -> dict[str, Tensor]:
        """Differentiate weighted outputs of each sample.

        Parameters
        ----------
        batch : Tensor (n, ...) or NamedTensors
            Samples.
        cotangents : Tensor (n, r, K)
            Weights of the outputs.

        Returns
        -------
        dict of str to Tensor (n, r, p)
            Flattened gradients of those parameters that BackPACK gave any to.
        """
        found: dict[str, list[Tensor]] = {}
        for direction in cotangents.unbind(1):
            with torch.enable_grad(), warnings.catch_warnings():
                # BackPACK's hooks warn where inputs are whole numbers; they need no gradient of those.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                out = called(self.module, {}, _attached(batch))
                with self._enter():
                    (out.reshape(len(batch), -1) * direction).sum().backward()
            for name in self.names:
                gradient = self.parameters[name].__dict__.pop("grad_batch", None)
                if gradient is not None:
                    found.setdefault(name, []).append(gradient.detach().flatten(1))
            self.module.zero_grad(set_to_none=True)
        return {name: torch.stack(g, 1) for name, g in found.items() if len(g) == cotangents.shape[1]}


def _attached(batch: Samples) -> Samples:
    # BackPACK's hooks run backward as far as the inputs, so those that can have a gradient are given one.
    if isinstance(batch, NamedTensors):
        return NamedTensors({k: v.clone().requires_grad_(v.is_floating_point()) for k, v in batch.parts.items()})
    return batch.clone().requires_grad_(batch.is_floating_point())
