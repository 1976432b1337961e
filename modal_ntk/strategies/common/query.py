"""What a strategy is asked, once everything has been checked: learner, pool, batch size, labelled set, generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modal_ntk import checks

if TYPE_CHECKING:
    from modal_ntk.nets import NetView


@dataclass(frozen=True)
class Query:
    """What a strategy is asked, after every check.

    Parameters
    ----------
    view : NetView
        The learner, read-only.
    X_pool : samples (n, ...)
        The unlabelled samples.
    n_instances : int
        How many to choose.
    X_labeled : samples (l, ...) or None
        The labelled samples; None where there are none.
    y_labeled : numpy.ndarray (l,)
        Their labels, as the user gave them; for strategies that are `multilabel` also (l, K).
    rng : numpy.random.Generator
        The strategy's own generator.
    """

    view: NetView
    X_pool: Any
    n_instances: int
    X_labeled: Any
    y_labeled: np.ndarray
    rng: np.random.Generator

    @property
    def n_pool(self) -> int:
        """Number of samples in the pool."""
        return checks.n_rows(self.X_pool)

    @property
    def n_labeled(self) -> int:
        """Number of labelled samples."""
        return len(self.y_labeled)

    @property
    def has_several_labels(self) -> bool:
        """Whether a sample has several labels: by the labels, or without any by the fitted model."""
        if self.n_labeled:
            return self.y_labeled.ndim > 1
        return self.view.is_fitted and self.view.gives_several_labels(self.X_pool)

    def child_rng(self) -> np.random.Generator:
        """Return a generator of its own for one stage, so that stages do not share draws."""
        return np.random.default_rng(self.rng.integers(2**31, size=4))
