"""VarianceDesign: query what leaves the kernel's regression least uncertain over the pool. No clusters, no labels."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import selection
from modal_ntk.checks.parameters import Constraints, StrOptions
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.common import kernel_query
from modal_ntk.strategies.common.rows import needs_of

if TYPE_CHECKING:
    from modal_ntk.selection.ahead.lookahead import Precision


@dataclass(eq=False, kw_only=True, repr=False)
class VarianceDesign(QueryStrategy):
    """Query the samples that take most posterior variance from the whole pool, under a neural tangent kernel.

    A Gaussian process with the network's kernel knows, before any label is bought, how sure it will be everywhere.
    Greedily, each pick is the sample after which the variance summed over candidates and labelled samples is least.

    Parameters
    ----------
    kernel : {"infinite", "net"}, default="infinite"
        Whose kernel: "infinite", an infinitely wide two-layer head on fixed features, in closed form; "net", the
        empirical kernel of the learner's own net as it stands.
    features : str or callable, default="input"
        For "infinite", the fixed features: "input", the samples themselves; the name of a frozen layer of the net;
        or a callable from prepared samples to a matrix (n, d).
    feature_scaling : {"center_l2", "l2", "standard", None}, default="center_l2"
        For "infinite", what is done to the features first: columns of mean zero and then rows of length one; the latter
        alone; columns of mean zero and deviation one; or nothing.
    n_candidates : int or None, default=10000
        Size of the random part of the pool that may be picked, and over which variance is summed; None takes all.
    rel_jitter : float, default=1e-6
        Jitter of the regression relative to the kernel's mean diagonal.
    dtype : {"float32", "float64"}, default="float32"
        Type the kernel is held in. Angles and sums are in double precision either way; in single a sample counts as
        known once its variance is below 1e-5 of the mean.
    memory_budget : int, default=2**32
        Bytes the kernel may take; a larger one is refused before anything is computed.
    random_state : int, numpy generator or None, default=None
        Seed of the subset and of ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    With posterior covariance G given the labelled samples, sample i lowers the summed variance by ``sum_x G_xi^2 /
    G_ii``: transductive or V-optimal experimental design (Yu, Bi, Tresp, "Active learning via transductive experimental
    design", 2006), ALC for Gaussian processes (Cohn 1996). Labels decide nothing, so a round depends on which samples
    are labelled alone, and starts from none. One product with the kernel a pick; memory is the kernel and one column a
    label.

    Scores are the falls of the variance summed over candidates and labelled samples; the larger the better. ``info``
    holds the number of candidates, the jitter and the seconds by stage.

    Examples
    --------
    Three samples lie in one direction and one in another: the middle one of the three is taken first.

    >>> import numpy as np
    >>> X = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, 1.0]])
    >>> VarianceDesign(random_state=0).select(None, X, 2).indices.tolist()
    [1, 3]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    _without: ClassVar[dict[str, dict[str, Any]]] = {
        "gradients": {"kernel": "infinite", "features": "input"},
        "embedding": {"features": "input"},
    }
    _parameter_constraints: ClassVar[Constraints] = {
        **kernel_query.CONSTRAINTS,
        "kernel": [StrOptions({"infinite", "net"})],
    }

    kernel: Literal["infinite", "net"] = "infinite"
    features: Any = "input"
    feature_scaling: kernel_query.Scaling = "center_l2"
    n_candidates: int | None = 10000
    rel_jitter: float = 1e-6
    dtype: Precision = "float32"
    memory_budget: int = 2**32

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - labels decide nothing
        return {"gradients"} if self.kernel == "net" else self.needs | needs_of(self.features, auto=False)

    def _check_query(self, query: Query) -> None:
        kernel_query.check_memory(query, self.n_candidates, self.dtype, self.memory_budget)

    def _select(self, query: Query) -> Selection:
        few, positions = kernel_query.candidates_of(query, self.n_candidates)
        if self.kernel == "net":
            kernel = kernel_query.net_kernel(few, kind="pseudo", dtype=self.dtype)
        else:
            fixed = kernel_query.stacked(few, lambda X: query.view.features(X, self.features))
            kernel, _ = kernel_query.head_kernel(
                fixed, query, n_hidden=None, n_outputs=1, kind="pseudo", scaling=self.feature_scaling, dtype=self.dtype
            )
        picks = selection.look_ahead(
            kernel,
            np.zeros(len(kernel), np.int64),  # any targets: the variance asks for none
            np.arange(query.n_labeled),
            query.n_instances,
            objective="variance",
            rel_jitter=self.rel_jitter,
            dtype=self.dtype,
            random_state=query.child_rng(),
        )
        info = {"n_candidates": len(positions), "jitter": picks.info["jitter"]}
        return Selection(positions[picks.indices - query.n_labeled], picks.scores, info)


variance_design = VarianceDesign()
modal_ntk_strategies = announced(
    variance_design,
    "largest fall of the pool's posterior variance under a neural tangent kernel (V-optimal design)",
    "Transductive experimental design (Yu, Bi, Tresp 2006)",
)
