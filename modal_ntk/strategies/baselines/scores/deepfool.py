"""DeepFool active learning: samples that a small change would put into another class."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modal_ntk import checks, features, nets, selection
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, Constraints
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.wrappers.sharding import over_pool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from modal_ntk.features.boundary import Walk
    from modal_ntk.nets import NetView


@dataclass(eq=False, kw_only=True, repr=False)
class DeepFool(QueryStrategy):
    """Query the samples nearest to the decision boundary, by the length of an adversarial perturbation.

    Parameters
    ----------
    max_steps : int, default=50
        Most steps that a perturbation may take.
    n_rivals : int or None, default=None
        How many classes beside the predicted one are looked at, the most probable first; None, all. Each step
        takes as many backward passes; the authors of DeepFool look at 9.
    overshoot : float, default=0.0
        By what share steps are made longer; the authors of DeepFool use 0.02.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Ducoffe, Precioso, "Adversarial Active Learning for Deep Networks: a Margin Based Approach", with the
    perturbations of Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool", algorithm 2; see
    `modal_ntk.features.walk_to_boundary`. The nearest class is the nearest: two public versions of this strategy
    always take the last one, as their running minimum is never updated. Perturbations are of what the net is
    given: behind the earlier steps of a Pipeline and the data set's transforms; of several inputs all floats are
    perturbed together.

    Scores are the negative squared lengths, so that larger is nearer. A sample that has not arrived after
    `max_steps` counts with the length so far; one whose logits do not depend on it comes last. ``info`` has the
    number of both as ``n_not_arrived``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> module = torch.nn.Linear(1, 2, bias=False)
    >>> _ = module.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))       # the boundary is at zero
    >>> net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, classes=[0, 1]).initialize()
    >>> selected = DeepFool().select(net, np.array([[-3.0], [0.5], [2.0]], dtype="float32"), 3)
    >>> selected.indices.tolist(), selected.scores.tolist()
    ([1, 2, 0], [-0.25, -4.0, -9.0])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "probabilities"})
    reads_labels: ClassVar[bool] = False
    _parameter_constraints: ClassVar[Constraints] = {
        "max_steps": [COUNT],
        "n_rivals": [COUNT, None],
        "overshoot": [NOT_NEGATIVE],
    }

    max_steps: int = 50
    n_rivals: int | None = None
    overshoot: float = 0.0

    def _select(self, query: Query) -> Selection:
        parts = over_pool(query, self._of_shard)
        squared = np.concatenate([lengths for lengths, _ in parts])
        # Scores are finite by contract, so what cannot be moved at all is put at the end of the scale.
        scores = -np.minimum(squared, np.finfo(np.float64).max)
        indices = selection.top_b(scores, query.n_instances, rng=query.rng)
        return Selection(indices, scores[indices], {"n_not_arrived": sum(n for _, n in parts)})

    def _of_shard(self, view: NetView, X: Any, number: int) -> tuple[np.ndarray, int]:  # noqa: ARG002 - nothing is drawn
        logits = nets.logit_module(view, X)
        # The query leaves no trace, so neither this nor the mode stays: gradients are of the inputs alone.
        logits.eval().requires_grad_(False)
        with _differentiable(view.module):
            walks = [self._walk(logits, _on(view, batch)) for batch in nets.input_batches(view, X)]
        squared = np.concatenate([walk.squared_lengths.cpu().numpy() for walk in walks])
        return squared, sum(int((~walk.arrived).sum()) for walk in walks)

    def _walk(self, logits: nn.Module, inputs: Tensor | dict[str, Tensor]) -> Walk:
        parts: dict[Any, Tensor] = {0: inputs} if not isinstance(inputs, dict) else dict(inputs)
        moving = [name for name, part in parts.items() if part.is_floating_point()]
        if not moving:
            remedy = "Use a strategy that needs probabilities or embeddings alone."
            got = ", ".join(sorted({str(part.dtype) for part in parts.values()}))
            raise checks.expected("inputs of a float type, which can be moved a little", got, remedy)

        def of_the_moving(values: list[Tensor], rows: Tensor) -> Tensor:
            if not isinstance(inputs, dict):
                return logits(values[0])
            still = {name: part[rows] for name, part in parts.items() if name not in moving}
            return logits(**still, **dict(zip(moving, values, strict=True)))

        return features.walk_to_boundary(
            of_the_moving,
            [parts[name] for name in moving],
            max_steps=self.max_steps,
            n_rivals=self.n_rivals,
            overshoot=self.overshoot,
        )


def _on(view: NetView, batch: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    # Lists and float64 arrays meet a float32 net every day; the module's own type decides.
    dtype = next((p.dtype for p in view.module.parameters() if p.is_floating_point()), None)

    def moved(part: Tensor) -> Tensor:
        return part.to(view.device, dtype if part.is_floating_point() else None)

    return {name: moved(part) for name, part in batch.items()} if isinstance(batch, dict) else moved(batch)


def _differentiable(module: nn.Module) -> AbstractContextManager[Any]:
    # The GPU's own recurrent layers have no backward pass in evaluation mode.
    recurrent = any(isinstance(part, torch.nn.RNNBase) for part in module.modules())
    return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


deepfool = DeepFool()
modal_ntk_strategies = announced(
    deepfool, "smallest perturbation that changes the prediction", "Ducoffe, Precioso; baseline of WAAL"
)
