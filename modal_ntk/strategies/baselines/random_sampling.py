"""Uniform sampling without replacement: what every strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced


@dataclass(eq=False, kw_only=True, repr=False)
class RandomSampling(QueryStrategy):
    """Query samples uniformly at random, without replacement.

    Parameters
    ----------
    random_state : int, numpy generator or None, default=None
        Seed of the draw.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Scores are zero: no sample is preferred.

    Examples
    --------
    >>> import numpy as np
    >>> RandomSampling(random_state=0).select(None, np.zeros((4, 2)), 4).indices.tolist()
    [2, 0, 1, 3]
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reads_labels: ClassVar[bool] = False
    multilabel: ClassVar[bool] = True

    def _select(self, query: Query) -> Selection:
        indices = query.rng.permutation(query.n_pool)[: query.n_instances].astype(np.int64)
        return Selection(indices, np.zeros(query.n_instances))


random_sampling = RandomSampling()
modal_ntk_strategies = announced(
    random_sampling, "uniform without replacement; the control arm", "baseline of all five papers"
)
