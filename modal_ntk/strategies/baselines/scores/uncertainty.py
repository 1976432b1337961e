"""What the three uncertainty strategies share: score every sample by its probabilities, take the top."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import selection
from modal_ntk.checks.parameters import Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, QueryStrategy, Selection
from modal_ntk.strategies.wrappers.sharding import over_pool

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.nets import NetView

OverLabels = Literal["mean", "max"]


@dataclass(eq=False, kw_only=True, repr=False)
class UncertaintyStrategy(QueryStrategy):
    """Query the samples of largest uncertainty; ties are broken by seed.

    Parameters
    ----------
    over_labels : {"mean", "max"}, default="mean"
        Where a sample has several labels, each a question of yes or no, whether it counts by their mean uncertainty or
        by the largest. Not read otherwise.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    reads_labels: ClassVar[bool] = False
    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        "over_labels": [StrOptions({"mean", "max"})],
    }

    over_labels: OverLabels = "mean"

    @staticmethod
    @abstractmethod
    def _uncertainty(probabilities: Tensor) -> Tensor:
        """Return one value per row, the larger the less certain."""

    @classmethod
    def _pool_scores(cls, query: Query, over_labels: OverLabels = "mean") -> np.ndarray:
        several = over_labels if query.has_several_labels else None
        return np.concatenate(over_pool(query, partial(cls._shard_scores, over_labels=several)))

    @classmethod
    def _shard_scores(cls, view: NetView, X: Any, number: int, *, over_labels: OverLabels | None) -> np.ndarray:  # noqa: ARG003 - nothing is drawn
        if over_labels is None:
            return cls._uncertainty(view.probabilities(X)).numpy()
        yes = view.label_probabilities(X)
        # A label is a question of two classes.
        each = cls._uncertainty(torch.stack([1 - yes, yes], dim=2).flatten(0, 1)).reshape(yes.shape)
        return (each.mean(dim=1) if over_labels == "mean" else each.amax(dim=1)).numpy()

    def _select(self, query: Query) -> Selection:
        scores = self._pool_scores(query, self.over_labels)
        indices = selection.top_b(scores, query.n_instances, rng=query.rng)
        return Selection(indices, scores[indices])
