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
