"""Uncertainty sampling by the gap between the two most probable classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modal_ntk.strategies.base import announced
from modal_ntk.strategies.baselines.scores.uncertainty import UncertaintyStrategy

if TYPE_CHECKING:
    from torch import Tensor


class Margin(UncertaintyStrategy):
    """Query the samples whose two most probable classes are closest.

    Parameters
    ----------
    over_labels : {"mean", "max"}, default="mean"
        Where a sample has several labels, each a question of yes or no, whether it counts by their mean uncertainty or
        by the largest. Not read otherwise.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.

    Notes
    -----
    The score is p_(2) - p_(1), the negative margin, so that larger is less certain.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> Margin(random_state=0).select(model, np.array([[-3.0], [0.1], [2.0]])).indices.tolist()
    [1]
    """

    @staticmethod
    def _uncertainty(probabilities: Tensor) -> Tensor:
        top = probabilities.topk(min(2, probabilities.shape[1]), dim=1).values
        return top[:, -1] - top[:, 0]


margin = Margin()
modal_ntk_strategies = announced(
    margin, "smallest gap between the two most probable classes", "baseline of all five papers"
)
