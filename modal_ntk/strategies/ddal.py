"""DDAL: diffuse what is known over the graph of the pool, explore what it does not reach, then refine."""

from __future__ import annotations

import warnings
from collections.abc import Set
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

from modal_ntk import checks, progress, selection, structure
from modal_ntk.checks.parameters import COUNT, POSITIVE, Constraints, Interval, StrOptions
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.selection.ahead.diffused import CRITERIA
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common import rows

if TYPE_CHECKING:
    from modal_ntk.selection.ahead.diffused import Criterion, TieBreak
    from modal_ntk.structure.graphs.graph import Search, Similarity, Symmetrise
    from modal_ntk.structure.graphs.reuse import GraphMemory, PlacedGraph

STEPS_WITH_TOL = 1000
"""Limit of the steps where a tolerance is set and no number of steps."""


@dataclass(eq=False, kw_only=True, repr=False)
class DDAL(DistanceStrategy):
    """Query the samples about which labels, diffused over a neighbour graph, say least.

    Labels walk T steps over the graph of all samples, labelled and not. Rows that no label reaches score zero
    and come first, which is exploration; when every row is reached, the rows where classes cancel come first,
    which is refinement.

    Parameters
    ----------
    n_neighbors : int, default=10
        Neighbours K of each row (the paper: 10 for the checkerboard and MNIST, 20 for CIFAR-10); lowered, with
        a warning, where there are fewer other rows.
    n_steps : int or None, default=None
        Steps T (the paper: 4, 5, 4). None takes the smallest T with K ** T above the number of rows, which
        gives these; with `tol` a limit of 1,000.
    tol : float or None, default=None
        Stop when no value changes by more in a step.
    criterion : {"min", "norm", "max_probability", "margin", "entropy"}, default="min"
        What is smallest for the rows queried: of the one-vs-all values chi, the least absolute one over the
        classes (equation 6) or the p-norm; of the multivariate probabilities, the largest, the gap of the two
        largest, or sum p log p.
    norm_order : float, default=2.0
        The p of "norm", from 1 to infinity.
    per_round : int or None, default=1
        Samples added in each inner round (the paper's P: 1, 1, 10), after which labels are diffused anew. None
        takes the whole batch in one round. A round costs one diffusion: large batches from large pools are
        quicker with more.
    oracle : callable or None, default=None
        Labels the picks of every inner round before the next: is called with pool indices (k,), returns k
        labels, which ``info`` hands back for the whole batch. None gives each pick its diffused class until
        the query ends, a random one where that is undecided.
    tie_break : {"random", "farthest"}, default="random"
        Among rows of equal score, hence in exploration: by seed; or (ours, not the paper's) the one most hops
        away from all labelled and chosen rows, then by seed.
    features : str or callable, default="auto"
        Where the graph is built: "embedding", the input of the net's last linear layer; "input", the samples
        themselves; the name of a layer; a callable from prepared samples to a matrix (n, d); "auto", the
        embedding of a fitted torch net, the samples where there is none.
    affinity : sparse matrix, callable or None, default=None
        Weights in place of a neighbour graph: a matrix (l + n, l + n) whose rows are the labelled samples,
        then the pool; or a callable from prepared samples in this order to such a matrix. Taken as it is.
    similarity : {"exp", "constant"} or callable, default="exp"
        The paper's m: what makes a weight of a negative squared distance over the row's largest.
    symmetrise : {None, "max", "mean"}, default="max"
        Whether weights of the neighbour graph become the larger, or the mean, of both directions. None keeps a
        row's own list alone, as the paper's equations do.
    self_loops : bool, default=False
        Whether each row is its own neighbour, too.
    search : {"auto", "exact", "approximate"}, default="auto"
        How neighbours are found: by scikit-learn, or by pynndescent (extra ``ann``); "auto" takes the exact
        search up to 100,000 rows.
    n_classes : int or None, default=None
        Number of classes C. None takes the number the fitted model knows, or that was seen.
    reuse_graph : bool, default=True
        Whether the graph is kept for the next query, and used again if the rows' features are the same. The picks are
        those of a graph made anew.
    random_state : int, numpy generator or None, default=None
        Seed of ties, of random temporary labels and of the approximate search.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Kushnir, Venturi, "Diffusion-Based Sampling for Deep Active Learning", equations 1 to 6, algorithm 1 and
    the appendix's variants. Decisions where the paper is silent: weights are exp(-rho / sigma), without self
    loops, and the larger of both directions, since its lemma supposes symmetric ones; P is the number added
    per inner round. In algorithm 1 the oracle answers
    inside a query; modAL asks after it, so by default a pick goes on with its diffused class.

    Rows that no label reaches all score zero. Among them a component of the graph that holds no label comes
    first, one row of it at random; without labels the first pick is random. With ``symmetrise=None`` walks
    follow a row's own list of neighbours, and a row that no other row lists, an outlier, informs nobody when
    it is labelled.

    Scores are the criterion at the time of the pick; the smaller the better. ``info`` holds the ``stage``
    ("exploring" while some pool row is unreached, else "refining"), ``n_unreached``, ``hops`` (number of
    pool rows 1, 2, ..., T hops from a label), ``n_components`` of the graph, ``n_uncovered`` (those without a
    label), ``n_explored`` (picks no label or earlier pick reached), ``n_rounds``, ``n_steps``,
    ``n_neighbors``, ``n_classes``, ``features``, ``graph_reused``, the oracle's ``labels`` and the seconds by
    stage. Memory beyond the features: the graph, 8 bytes (12 in float64) for each of its K n edges twice, and
    two arrays (n, C).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.5]])       # two groups, the first has a label
    >>> ddal = DDAL(n_neighbors=2, n_steps=2, random_state=0)
    >>> selected = ddal.select(None, X[1:], 3, X_labeled=X[:1], y_labeled=["left"])
    >>> sorted(selected.indices.tolist()), selected.info["stage"], selected.info["n_unreached"]
    ([1, 3, 4], 'exploring', 3)
    """

    _remade: ClassVar[frozenset[str]] = frozenset({"_memory"})
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "n_neighbors": [COUNT],
        "n_steps": [COUNT, None],
        "tol": [POSITIVE, None],
        "criterion": [StrOptions(set(CRITERIA))],
        "norm_order": [Interval(Real, 1, None, closed="both")],
        "per_round": [COUNT, None],
        "oracle": [callable, None],
        "tie_break": [StrOptions({"random", "farthest"})],
        "similarity": [StrOptions({"exp", "constant"}), callable],
        "symmetrise": [StrOptions({"max", "mean"}), None],
        "self_loops": ["boolean"],
        "search": [StrOptions({"auto", "exact", "approximate"})],
        "n_classes": [COUNT, None],
        "reuse_graph": ["boolean"],
    }

    n_neighbors: int = 10
    n_steps: int | None = None
    tol: float | None = None
    criterion: Criterion = "min"
    norm_order: float = 2.0
    per_round: int | None = 1
    oracle: Any = None
    tie_break: TieBreak = "random"
    features: Any = "auto"
    affinity: Any = None
    similarity: Similarity = "exp"
    symmetrise: Symmetrise = "max"
    self_loops: bool = False
    search: Search = "auto"
    n_classes: int | None = None
    reuse_graph: bool = True

    def _needed(self, n_labeled: int) -> Set[str]:
        return super()._needed(n_labeled) if self.affinity is None else self.needs

    def _select(self, query: Query) -> Selection:
        with progress.stage("graph"):
            graph, info = self._graph(query)
        n_steps = self._n_steps(graph.transition)
        selected = selection.select_by_diffusion(
            graph.transition,
            graph.nodes[: query.n_labeled],
            query.y_labeled,
            query.n_instances,
            candidates=graph.nodes[query.n_labeled :],
            n_steps=n_steps,
            n_classes=self._n_classes(query),
            criterion=self.criterion,
            norm_order=self.norm_order,
            tol=self.tol,
            per_round=self.per_round,
            oracle=self.oracle,
            tie_break=self.tie_break,
            device=query.view.device if query.view.net is not None else "cpu",
            random_state=query.child_rng(),
        )
        selected.info.update(info, n_steps=n_steps)
        return selected

    def _graph(self, query: Query) -> tuple[PlacedGraph, dict[str, Any]]:
        seed = int(query.rng.integers(2**31))  # drawn always, so that a reused graph changes no later draw
        n = query.n_labeled + query.n_pool
        if self.affinity is not None:
            given = structure.PlacedGraph(self._from_affinity(query, n), np.arange(n), False)
            return given, {"features": "affinity", "graph_reused": False}
        points = rows.read_rows(query, self.features)
        # The labelled rows come first, then the whole pool: one numbering for graph and labels.
        parts = [part.numpy() for part in (points.labeled, points.pool) if len(part)]
        n_neighbors = min(self.n_neighbors, n - 1)
        if n_neighbors < self.n_neighbors:
            message = f"DDAL: n_neighbors lowered from {self.n_neighbors} to {n_neighbors}, for {n} rows."
            warnings.warn(message, ModalNTKWarning, stacklevel=4)

        def build(placed: np.ndarray) -> sp.csr_matrix:
            if n == 1:
                return sp.identity(1, dtype=placed.dtype, format="csr")
            return structure.knn_transition(
                placed,
                n_neighbors,
                similarity=self.similarity,
                symmetrise=self.symmetrise,
                self_loops=self.self_loops,
                method=self.search,
                random_state=seed,
            )

        settings = (n_neighbors, self.similarity, self.symmetrise, self.self_loops, self.search)
        graph = self._remembered().get(parts, settings, build)
        info = {"features": points.source, "n_neighbors": n_neighbors, "graph_reused": graph.reused}
        return graph, info

    def _remembered(self) -> GraphMemory:
        if not self.reuse_graph:
            return structure.GraphMemory()
        if not hasattr(self, "_memory"):
            self._memory = structure.GraphMemory()
        return self._memory

    def _from_affinity(self, query: Query, n: int) -> sp.csr_matrix:
        affinity = self.affinity
        if callable(affinity):
            parts = [query.view.prepare(X) for X in (query.X_labeled, query.X_pool) if X is not None]
            affinity = affinity(sp.vstack(parts) if sp.issparse(parts[0]) else np.concatenate(parts))
        if getattr(affinity, "shape", None) != (n, n):
            got = f"one of shape {getattr(affinity, 'shape', None)}"
            remedy = "Its rows are the labelled samples, then the pool; pass a callable where these change."
            raise checks.expected(f"an affinity matrix of shape ({n}, {n})", got, remedy)
        return structure.affinity_transition(affinity)

    def _n_steps(self, transition: sp.csr_matrix) -> int:
        if self.n_steps is not None:
            return self.n_steps
        if self.tol is not None:
            return STEPS_WITH_TOL
        n = transition.shape[0]
        # Of a user's own graph the mean number of neighbours stands for K.
        return structure.n_diffusion_steps(n, self.n_neighbors if self.affinity is None else -(-transition.nnz // n))

    def _n_classes(self, query: Query) -> int:
        if self.n_classes is not None:
            return self.n_classes
        named = len(getattr(query.view, "classes", ())) if query.view.is_fitted else 0
        return named or max(2, len(np.unique(query.y_labeled)))


ddal = DDAL()
modal_ntk_strategies = announced(
    ddal, "least certain rows after diffusing labels over the neighbour graph", "DDAL (Kushnir, Venturi)"
)
