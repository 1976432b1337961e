"""WAAL's query: uncertain samples that a critic takes for unlabelled."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modal_ntk import checks, selection
from modal_ntk.checks.parameters import NOT_NEGATIVE, SHARE, Constraints
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.wrappers.sharding import over_pool

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.nets import NetView


@dataclass(eq=False, kw_only=True, repr=False)
class WAAL(QueryStrategy):
    """Query samples that are uncertain to the classifier and unlike the labelled ones to a critic.

    Parameters
    ----------
    coefficient : float, default=5.0
        Weight of the critic beside the uncertainty, the paper's selection coefficient (5 for Fashion-MNIST and
        SVHN, 10 for CIFAR-10 and STL-10).
    standardise : bool, default=False
        Whether uncertainty and critic are each divided by their standard deviation over the pool first (ours), so
        that `coefficient` weighs the order of one against that of the other. The paper adds them as they are: the
        losses of a confident classifier vary by tens, the critic by less than one.
    mixture : float, default=0.5
        Share of the worst label's loss in the uncertainty; the sum of all labels' losses has the rest.
    critic : callable or None, default=None
        None: the critic of a `modal_ntk.nets.WAALClassifier`. Or a function from prepared samples to values (n,),
        large where a sample is unlike the labelled ones, by which any classifier will do.
    official_code : bool, default=False
        Whether the first term is the length of the vector of losses, as in the authors' code, instead of the largest.
    random_state : int, numpy generator or None, default=None
        Seed of the order of equal scores.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Shui et al., "Deep Active Learning: Unified and Principled Method for Query and Training" (2020), section 3.4:
    the score is m max_y(-log p_y) + (1 - m) sum_y(-log p_y) - c g(x), and the smallest are taken. Both losses are
    least where the prediction is uniform. Probabilities that are no softmax of known logits are cut at 1e-12.

    The sum grows with the number of classes, the critic does not leave [0, 1]: with many classes or a confident
    classifier `coefficient` has to be larger for the critic to matter. ``scores`` holds the scores, rising;
    ``info`` the two parts of each pick, ``uncertainty`` and ``critic``, as they are, and their standard deviations
    over the pool, ``spread``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> pool = np.array([[-3.0], [0.1], [0.0], [2.0]])
    >>> WAAL(critic=lambda X: X[:, 0] > 0, random_state=0).select(model, pool, 2).indices.tolist()
    [1, 3]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "critic"})
    reads_labels: ClassVar[bool] = False
    _parameter_constraints: ClassVar[Constraints] = {
        "coefficient": [NOT_NEGATIVE],
        "standardise": ["boolean"],
        "mixture": [SHARE],
        "critic": [callable, None],
        "official_code": ["boolean"],
    }

    coefficient: float = 5.0
    standardise: bool = False
    mixture: float = 0.5
    critic: Any = None
    official_code: bool = False

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - labels change no need
        return self.needs if self.critic is None else self.needs - {"critic"}

    def _select(self, query: Query) -> Selection:
        parts = over_pool(query, self._of_shard)
        uncertainty, g = (np.concatenate(column) for column in zip(*parts, strict=True))
        spread = {"uncertainty": float(uncertainty.std()), "critic": float(g.std())}
        # A term that is the same everywhere orders nothing; its deviation may be a rounding away from zero.
        per, per_g = (float(term.std()) if self.standardise and np.ptp(term) > 0 else 1.0 for term in (uncertainty, g))
        scores = uncertainty / per - self.coefficient * g / per_g
        # Smallest first; `top_b` takes the largest and orders equals by seed.
        indices = selection.top_b(-scores, query.n_instances, rng=query.rng)
        info = {"uncertainty": uncertainty[indices], "critic": g[indices], "spread": spread}
        return Selection(indices, scores[indices], info)

    def _of_shard(self, view: NetView, X: Any, number: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002
        if self.critic is None:
            logits, values = view.logits_and_critic(X)  # one pass for both
            log_p, g = logits.double().log_softmax(dim=1), values.double().numpy()
        else:
            g = _values_of(self.critic(view.prepare(X)), checks.n_rows(X))
            log_p = _log_probabilities(view, X)
        return self._uncertainty(log_p).numpy(), g

    def _uncertainty(self, log_p: Tensor) -> Tensor:
        losses = -log_p
        worst = losses.norm(dim=1) if self.official_code else losses.amax(dim=1)
        return self.mixture * worst + (1 - self.mixture) * losses.sum(dim=1)


def _log_probabilities(view: NetView, X: Any) -> Tensor:
    if view.net is not None:
        return view.logits(X).double().log_softmax(dim=1)
    return view.probabilities(X).clamp_min(1e-12).log()


def _values_of(values: Any, n_pool: int) -> np.ndarray:
    values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(array) != n_pool or not np.isfinite(array).all():
        got = f"an array of shape {np.shape(values)}" + ("" if np.isfinite(array).all() else " with NaN or infinity")
        raise checks.expected(f"{n_pool} finite values from the critic", got, "Return one for each sample.")
    return array


waal = WAAL()
modal_ntk_strategies = announced(
    waal,
    "uncertain to the classifier and unlike the labelled samples to a critic it was trained against",
    "Shui et al., AISTATS 2020",
)
