"""Uncertainty sampling by the entropy of the class probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modal_ntk.strategies.base import announced
from modal_ntk.strategies.baselines.scores.uncertainty import UncertaintyStrategy

if TYPE_CHECKING:
    from torch import Tensor


class Entropy(UncertaintyStrategy):
    """Query the samples whose class probabilities have the largest entropy.

    Parameters
    ----------
    over_labels : {"mean", "max"}, default="mean"
        Where a sample has several labels, each a question of yes or no, whether it counts by their mean uncertainty or
        by the largest. Not read otherwise.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.

    Notes
    -----
    The score is -sum p ln p, in nats; a probability of zero contributes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> Entropy(random_state=0).select(model, np.array([[-3.0], [0.1], [2.0]])).indices.tolist()
    [1]
    """

    @staticmethod
    def _uncertainty(probabilities: Tensor) -> Tensor:
        return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(dim=1)


entropy = Entropy()
modal_ntk_strategies = announced(entropy, "largest entropy of the class probabilities", "baseline of all five papers")
