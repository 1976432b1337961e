"""ProbCover: cover as much of the pool as possible with balls of one radius."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np

from modal_ntk import progress, selection, structure
from modal_ntk.checks.parameters import COUNT, POSITIVE, Constraints, Interval, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common.rows import Rows, read_rows


@dataclass(eq=False, kw_only=True, repr=False)
class ProbCover(DistanceStrategy):
    """Query the samples whose balls cover most of what no labelled sample's ball covers.

    Parameters
    ----------
    delta : float or "purity", default="purity"
        Radius of the balls. "purity" takes the largest at which a share `purity` of the balls holds samples of
        one cluster only; the paper's radii (0.75 on CIFAR-10, on the unit sphere) belong to its own features.
    purity : float, default=0.95
        That share.
    n_classes : int or None, default=None
        Number of clusters for the purity. None takes the number of classes of the fitted model, or else of the
        labels; with fewer than two of these, `n_instances`, at least two.
    normalise : bool, default=True
        Whether features are scaled to length one first.
    n_init : int, default=10
        Number of starts of the k-means for the purity.
    features : str or callable, default="auto"
        Where distances are taken: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a function from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none. The paper's are self-supervised.
    random_state : int, numpy generator or None, default=None
        Seed of the k-means, and of choices made after everything is covered.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Yehuda et al., "Active Learning Through a Covering Lens" (2022), algorithm 1. A ball is open and holds its own
    centre; ties take the lowest position. The authors' code loses the last rows of a pool below 500 and may
    choose labelled or chosen samples again once everything is covered; here what is left is then chosen by seed.
    The purity is found exactly, without a grid of radii. Scores are the numbers of newly covered samples.
    ``info`` holds ``delta``, the ``coverage`` of the pool afterwards, ``n_classes`` (with "purity"), the
    ``features`` used and the seconds by stage. The graph of balls is never kept in memory.

    Examples
    --------
    >>> import numpy as np
    >>> pool = np.array([[0.0], [1.0], [2.0], [7.0], [8.0]])
    >>> ProbCover(delta=1.5, normalise=False).select(None, pool, 2).indices.tolist()
    [1, 3]
    """

    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "delta": [POSITIVE, StrOptions({"purity"})],
        "purity": [Interval(Real, 0, 1, closed="right")],
        "n_classes": [Interval(Integral, 2, None, closed="left"), None],
        "normalise": ["boolean"],
        "n_init": [COUNT],
    }

    delta: float | Literal["purity"] = "purity"
    purity: float = 0.95
    n_classes: int | None = None
    normalise: bool = True
    n_init: int = 10
    features: Any = "auto"

    def _select(self, query: Query) -> Selection:
        rows = read_rows(query, self.features, normalise=self.normalise)
        with progress.stage("radius"):
            delta, info = self._radius(query, rows)
        picks = selection.greedy_cover(
            rows.pool,
            query.n_instances,
            delta,
            centers=rows.labeled,
            device=query.view.device,
            random_state=query.child_rng(),
        )
        picks.info.update(info, delta=delta, features=rows.source)
        return picks

    def _radius(self, query: Query, rows: Rows) -> tuple[float, dict[str, Any]]:
        rng = query.child_rng()  # drawn always, so that naming a radius changes no later draw
        if not isinstance(self.delta, str):
            return float(self.delta), {}
        points, n_classes = rows.joined(), self._n_classes(query)
        clusters = structure.kmeans_clusters(points.numpy(), n_classes, n_init=self.n_init, random_state=rng)
        labels = torch.from_numpy(clusters.labels)
        radius = selection.purity_radius(points, labels, self.purity, device=query.view.device)
        return radius, {"n_classes": n_classes}

    def _n_classes(self, query: Query) -> int:
        if self.n_classes is not None:
            return self.n_classes
        view = query.view
        named = len(getattr(view, "classes", ())) if view.is_fitted else 0
        seen = query.y_labeled.shape[1] if query.y_labeled.ndim > 1 else len(np.unique(query.y_labeled))
        known = max(named, seen)
        return known if known > 1 else max(2, query.n_instances)


probcover = ProbCover()
modal_ntk_strategies = announced(
    probcover, "largest share of the pool covered by balls of one radius", "ProbCover (Yehuda et al. 2022)"
)
