"""What the three uncertainty strategies share: score every sample by its probabilities, take the top."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modal_ntk import selection
from modal_ntk.selection.result import Selection
from modal_ntk.strategies.base import Query, QueryStrategy
from modal_ntk.strategies.sharding import over_pool

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.nets import NetView


class UncertaintyStrategy(QueryStrategy):
    """Query the samples of largest uncertainty; ties are broken by seed.

    Parameters
    ----------
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    reads_labels: ClassVar[bool] = False

    def __init__(self, *, random_state: Any = None) -> None:
        self.random_state = random_state

    @staticmethod
    @abstractmethod
    def _uncertainty(probabilities: Tensor) -> Tensor:
        """Return one value per row, the larger the less certain."""

    @classmethod
    def _pool_scores(cls, query: Query) -> np.ndarray:
        return np.concatenate(over_pool(query, cls._shard_scores))

    @classmethod
    def _shard_scores(cls, view: NetView, X: Any, number: int) -> np.ndarray:  # noqa: ARG003 - nothing is drawn
        return cls._uncertainty(view.probabilities(X)).numpy()

    def _select(self, query: Query) -> Selection:
        scores = self._pool_scores(query)
        indices = selection.top_b(scores, query.n_instances, rng=query.rng)
        return Selection(indices, scores[indices])
