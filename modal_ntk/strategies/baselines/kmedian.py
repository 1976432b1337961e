"""K-Median: samples that stand for the pool, by k-means or by k-medoids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from modal_ntk import selection
from modal_ntk.checks.parameters import COUNT, Constraints, StrOptions
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common import rows


@dataclass(eq=False, kw_only=True, repr=False)
class KMedian(DistanceStrategy):
    """Query samples that stand for the pool: one for each of `n_instances` clusters of it.

    Parameters
    ----------
    method : {"kmeans", "kmedoids"}, default="kmeans"
        "kmeans": the sample nearest to each centre of k-means, as in public code. "kmedoids": medoids, samples
        with a small sum of distances to all others, as the name says.
    n_init : int, default=1
        Number of starts; the best is kept.
    features : str or callable, default="auto"
        Where distances are taken: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a function from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none.
    random_state : int, numpy generator or None, default=None
        Seed.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    The baseline of WAAL (Shui et al. 2020), there called K-Median; what is labelled plays no part. The largest
    cluster comes first; scores are the sizes of clusters. A pool with fewer distinct samples than asked for gives
    one of each, then the others farthest first with score zero. ``info`` holds the ``features`` used and,
    with "kmedoids", the ``cost`` (sum of distances) and ``n_iter``.

    Examples
    --------
    >>> import numpy as np
    >>> pool = np.array([[0.0], [1.0], [5.0], [20.0], [21.0], [22.0], [23.0]])
    >>> KMedian(random_state=0).select(None, pool, 2).indices.tolist()
    [4, 1]
    """

    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "method": [StrOptions({"kmeans", "kmedoids"})],
        "n_init": [COUNT],
    }

    method: Literal["kmeans", "kmedoids"] = "kmeans"
    n_init: int = 1
    features: Any = "auto"

    def _select(self, query: Query) -> Selection:
        X = rows.read(query.view, query.X_pool, self.features)
        choose = selection.nearest_to_centers if self.method == "kmeans" else selection.k_medoids
        picks = choose(
            X, query.n_instances, n_init=self.n_init, device=query.view.device, random_state=query.child_rng()
        )
        picks.info["features"] = rows.name_of(query.view, self.features)
        return picks


kmedian = KMedian()
modal_ntk_strategies = announced(
    kmedian, "samples that stand for the pool, one for each cluster of it", "baseline of WAAL (Shui et al. 2020)"
)
