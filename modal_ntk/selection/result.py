"""What every selection hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Selection:
    """Chosen samples, with what is known about the choice.

    Parameters
    ----------
    indices : numpy.ndarray (b,), int64
        Positions in the pool (rows of the kernel for `look_ahead`), unique, in the order chosen.
    scores : numpy.ndarray (b,), float64
        The acquisition value of each, finite; its meaning is the strategy's.
    info : dict
        What the method learned on the way; strategies put ``seconds`` for their stages here.
    """

    indices: np.ndarray
    scores: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)


def filled_up(
    indices: list[int], scores: list[float], n_rows: int, n_instances: int, rng: np.random.Generator
) -> Selection:
    """Return what was chosen of some rows, with others by chance where it is short; these have score zero."""
    rest = rng.permutation(np.setdiff1d(np.arange(n_rows), indices))[: n_instances - len(indices)]
    chosen = np.concatenate([np.array(indices, np.int64), rest])
    return Selection(chosen, np.concatenate([np.array(scores, float), np.zeros(len(rest))]))
