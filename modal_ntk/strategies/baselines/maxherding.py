"""MaxHerding: cover the pool softly, by similarity rather than by balls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modal_ntk import selection
from modal_ntk.checks.parameters import POSITIVE, Constraints
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common.rows import Rows, read_rows

if TYPE_CHECKING:
    import numpy as np

    from modal_ntk.selection.herding import Kernel


@dataclass(eq=False, kw_only=True, repr=False)
class MaxHerding(DistanceStrategy):
    """Query the samples that add most to the similarity of every sample to its most similar labelled one.

    Parameters
    ----------
    kernel : float or callable, default=1.0
        The similarity of two samples: a number is the width of a Gaussian, ``exp(-|x - y|^2 / width^2)``; a function
        takes float64 tensors (n, d) and (m, d) of features to their similarities (n, m), such as
        ``lambda x, y: x @ y.T``.
    normalise : bool, default=True
        Whether features are scaled to length one first. They are not centred: a column that is large and nearly the
        same for all samples drowns the others, so take it out, or standardise such features before.
    features : str or callable, default="auto"
        Where similarities are taken: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a function from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none. The paper's are self-supervised.
    random_state : int, numpy generator or None, default=None
        Seed of choices made after nothing more can be gained; nothing else is random.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Bae, Noh, Sutherland, "Generalized Coverage for More Robust Low-Budget Active Learning" (2024), algorithm 1: each
    choice maximises the sum over the pool of the largest similarity to a labelled or chosen sample. ProbCover is the
    case of a similarity of one within a radius and zero beyond. Ties take the lowest position.
    Scores are what each choice added to the sum. ``info`` holds the ``coverage`` of the pool afterwards, the mean of
    those largest similarities, the ``features`` used and the seconds by stage. A matrix of all similarities is kept
    in memory only for pools of up to sixteen thousand samples.

    Examples
    --------
    >>> import numpy as np
    >>> pool = np.array([[0.0], [0.1], [0.2], [5.0], [9.0]])
    >>> MaxHerding(normalise=False).select(None, pool, 3).indices.tolist()
    [1, 3, 4]
    """

    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "kernel": [POSITIVE, callable],
        "normalise": ["boolean"],
    }

    kernel: float | Kernel = 1.0
    normalise: bool = True
    features: Any = "auto"

    def _select(self, query: Query) -> Selection:
        rows = read_rows(query, self.features, normalise=self.normalise)
        return self._herd(query, rows, self.kernel)

    @staticmethod
    def _herd(query: Query, rows: Rows, kernel: float | Kernel, weights: np.ndarray | None = None) -> Selection:
        picks = selection.max_herding(
            rows.pool,
            query.n_instances,
            centers=rows.labeled,
            weights=weights,
            kernel=kernel,
            device=query.view.device,
            random_state=query.child_rng(),
        )
        picks.info["features"] = rows.source
        return picks


maxherding = MaxHerding()
modal_ntk_strategies = announced(
    maxherding,
    "adds most to every sample's similarity to its most similar labelled one (generalised coverage)",
    "MaxHerding (Bae et al. 2024)",
)
