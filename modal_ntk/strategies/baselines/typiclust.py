"""TypiClust: one typical sample from each of the clusters that are least labelled."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modal_ntk import selection, structure
from modal_ntk.checks.parameters import COUNT, Constraints, Interval, StrOptions
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common.rows import read_rows

if TYPE_CHECKING:
    from modal_ntk.selection.typical import Distance, Neighbors


@dataclass(eq=False, kw_only=True, repr=False)
class TypiClust(DistanceStrategy):
    """Query the most typical sample of each cluster, the least labelled and largest clusters first.

    Parameters
    ----------
    n_neighbors : int, default=20
        Neighbours for the typicality; lowered to half the samples among which they are looked for.
    max_clusters : int, default=500
        Upper limit of the number of clusters, else the number of labels there will be.
    min_cluster_size : int, default=5
        Clusters of at most so many samples are used only when the others are used up.
    distance : {"euclidean", "squared"}, default="euclidean"
        Typicality is one over the mean distance, as in the paper, or squared distance, as in the authors' code.
    neighbors : {"remaining", "cluster"}, default="remaining"
        Where neighbours are looked for: among a cluster's samples that are neither labelled nor chosen yet, as
        in the authors' code, or among all its samples.
    mini_batch_above : int or None, default=50
        Number of clusters above which k-means runs on mini-batches of 5,000; None for never.
    n_init : int, default=1
        Number of starts of the k-means.
    normalise : bool, default=True
        Whether features are scaled to length one first.
    features : str or callable, default="auto"
        Where distances are taken: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a function from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none. The paper's are self-supervised.
    random_state : int, numpy generator or None, default=None
        Seed of the k-means; nothing else is random.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Hacohen, Dekel, Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets" (2022),
    algorithm 1. Clusters are of the labelled and unlabelled samples together. A batch larger than the number of
    clusters takes further rounds through them in the same order. Scores are typicalities, with 1e-5 added to the
    mean distance as in the authors' code, and zero for the last sample of a cluster, where that code gives NaN.
    ``info`` holds ``n_clusters``, ``n_covered`` (clusters with a label before the query), the ``features`` used and
    the seconds by stage.

    Examples
    --------
    >>> import numpy as np
    >>> pool = np.array([[0.0], [0.1], [0.3], [5.0], [5.1]])
    >>> strategy = TypiClust(normalise=False, min_cluster_size=0, random_state=0)
    >>> strategy.select(None, pool, 2).indices.tolist()
    [0, 3]
    """

    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "n_neighbors": [COUNT],
        "max_clusters": [COUNT],
        "min_cluster_size": [Interval(Integral, 0, None, closed="left")],
        "distance": [StrOptions({"euclidean", "squared"})],
        "neighbors": [StrOptions({"remaining", "cluster"})],
        "mini_batch_above": [Interval(Integral, 0, None, closed="left"), None],
        "n_init": [COUNT],
        "normalise": ["boolean"],
    }

    n_neighbors: int = 20
    max_clusters: int = 500
    min_cluster_size: int = 5
    distance: Distance = "euclidean"
    neighbors: Neighbors = "remaining"
    mini_batch_above: int | None = 50
    n_init: int = 1
    normalise: bool = True
    features: Any = "auto"

    def _select(self, query: Query) -> Selection:
        rows = read_rows(query, self.features, normalise=self.normalise)
        points = rows.joined()
        clusters = structure.kmeans_clusters(
            points.numpy(),
            min(query.n_labeled + query.n_instances, self.max_clusters),
            n_init=self.n_init,
            mini_batch_above=self.mini_batch_above,
            random_state=query.child_rng(),
        ).labels
        picks = selection.select_typical(
            points,
            clusters,
            query.n_labeled,
            query.n_instances,
            n_neighbors=self.n_neighbors,
            min_cluster_size=self.min_cluster_size,
            distance=self.distance,
            neighbors=self.neighbors,
            device=query.view.device,
        )
        picks.info.update(
            n_clusters=int(clusters.max()) + 1,
            n_covered=len(np.unique(clusters[: query.n_labeled])),
            features=rows.source,
        )
        return picks


typiclust = TypiClust()
modal_ntk_strategies = announced(
    typiclust,
    "the most typical sample of each cluster, least labelled and largest clusters first",
    "TypiClust (Hacohen et al. 2022)",
)
