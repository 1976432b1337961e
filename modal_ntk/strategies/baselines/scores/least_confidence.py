"""Uncertainty sampling by the probability of the most probable class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modal_ntk.strategies.base import announced
from modal_ntk.strategies.baselines.scores.uncertainty import UncertaintyStrategy

if TYPE_CHECKING:
    from torch import Tensor


class LeastConfidence(UncertaintyStrategy):
    """Query the samples whose most probable class is least probable.

    Parameters
    ----------
    over_labels : {"mean", "max"}, default="mean"
        Where a sample has several labels, each a question of yes or no, whether it counts by their mean uncertainty or
        by the largest. Not read otherwise.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.

    Notes
    -----
    The score is 1 - max p.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> LeastConfidence(random_state=0).select(model, np.array([[-3.0], [0.1], [2.0]])).indices.tolist()
    [1]
    """

    @staticmethod
    def _uncertainty(probabilities: Tensor) -> Tensor:
        return 1 - probabilities.max(dim=1).values


least_confidence = LeastConfidence()
modal_ntk_strategies = announced(
    least_confidence, "smallest probability of the most probable class", "baseline of all five papers"
)
