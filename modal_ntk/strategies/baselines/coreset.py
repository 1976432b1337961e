"""CoreSet: greedy k-centre, the sample farthest from everything labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modal_ntk import selection
from modal_ntk.checks.parameters import Constraints, StrOptions
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common.rows import read_rows

if TYPE_CHECKING:
    from modal_ntk.selection.k_center import First


@dataclass(eq=False, kw_only=True, repr=False)
class CoreSet(DistanceStrategy):
    """Query the samples farthest from the labelled set and from each other.

    Parameters
    ----------
    features : str or callable, default="auto"
        Where distances are taken: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a function from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none.
    first : {"random", "first"}, default="random"
        The first choice where nothing is labelled: by seed, or row 0 as in public code.
    random_state : int, numpy generator or None, default=None
        Seed of a random first choice; nothing else is random.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (2018), algorithm 1;
    ties take the lowest position. Scores are Euclidean distances to the nearest labelled or already chosen
    sample. ``info`` holds the ``radius`` that remains and the ``features`` used. One pass over the pool a choice,
    on the net's device; memory beyond the features is a few numbers a sample.

    Examples
    --------
    >>> import numpy as np
    >>> pool = np.array([[1.0], [4.0], [6.0], [7.0]])
    >>> CoreSet().select(None, pool, 2, X_labeled=np.array([[0.0]]), y_labeled=["a"]).indices.tolist()
    [3, 1]
    """

    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "first": [StrOptions({"random", "first"})],
    }

    features: Any = "auto"
    first: First = "random"

    def _select(self, query: Query) -> Selection:
        rows = read_rows(query, self.features)
        picks = selection.k_center_greedy(
            rows.pool,
            query.n_instances,
            centers=rows.labeled,
            first=self.first,
            device=query.view.device,
            random_state=query.child_rng(),
        )
        picks.info["features"] = rows.source
        return picks


coreset = CoreSet()
modal_ntk_strategies = announced(
    coreset, "farthest from the labelled set and from each other (greedy k-centre)", "CoreSet (Sener, Savarese 2018)"
)
