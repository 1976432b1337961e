"""lpNTK: query the samples that teach most of what labelled ones do not teach yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import kernels, nets, progress, selection, structure
from modal_ntk.checks.parameters import COUNT, SHARE, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.common.kernel_query import candidates_of

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.kernels import KernelRows

Rule = Literal["coverage", "clusters"]
Budget = Literal["auto", "small", "large"]


@dataclass(eq=False, kw_only=True, repr=False)
class LpNTK(QueryStrategy):
    """Query by what samples teach each other under the labelled pseudo-kernel, with the model's labels for the pool.

    Parameters
    ----------
    rule : {"coverage", "clusters"}, default="coverage"
        "coverage": one by one the sample that adds most to the sum, over the candidates, of how interchangeable each is
        with the labelled or chosen sample most like it. "clusters": what the paper finds of training data, carried
        over, by `budget`; in our studies it was behind random sampling.
    budget : {"auto", "small", "large"}, default="auto"
        For "clusters", what is worth a label. "large": the farthest points, each the sample least similar to what is
        labelled or chosen already. "small": random members of the largest cluster of each predicted class, then of the
        second largest, and so on. "auto": "small" while the labels there will be after the query are at most
        `small_share` of all samples, "large" from then on.
    small_share : float, default=0.05
        Where "auto" switches. The paper finds the largest cluster alone the better teacher at 1 and at 5 % of the
        data, and that from about 85 % on it is what should be thinned out; between these it says nothing.
    skip_redundant : bool, default=True
        For "clusters", whether samples that are more similar to a labelled or another pool sample than to themselves
        come last.
    cluster_share : float, default=0.1
        For "clusters" and "small", number of clusters as a share of a class.
    n_candidates : int or None, default=10000
        Size of the random part of the pool that is looked at; None takes all.
    method : {"auto", "exact", "sketch"}, default="auto"
        As in `modal_ntk.kernels.kernel_rows`.
    memory_budget : int, default=2**31
        Bytes that exact gradients of all candidates and labelled samples may take, above which "auto" projects them and
        "exact" is refused. It covers no more than these, see Notes.
    sketch_dim : int, default=1024
        Numbers kept for each parameter where gradients are sketched.
    random_state : int, numpy generator or None, default=None
        Seed of subset, sketch and draws.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Guo et al., "lpNTK: Better Generalisation with Less Data via Sample Interaction During Learning" (ICLR 2024),
    equation 3, sections 3.2 and 4, appendix E.2. The paper prunes labelled data; as a query strategy the method is this
    library's reading of it. The kernel needs labels: the pool takes the model's, labelled samples keep their own.
    Two samples are interchangeable by the cosine of their representations under the kernel, negative ones counting
    nothing. Labelled samples cover what resembles them; they are the first centres of "large", and members of the
    clusters of "small".

    Memory beside the net's own passes and a copy of the samples: three times the gradients, which are `memory_budget`
    bytes at most or, projected, `sketch_dim` numbers a sample and parameter; "coverage" holds 8 bytes more for each
    pair of candidates, up to 1 GiB, above which similarities are computed again.

    Scores of "coverage" are what each choice added to the sum; of "large" minus the largest similarity to a labelled or
    earlier chosen sample, or 0 where there is none; of "small" the share of its predicted class that a sample's cluster
    holds. ``info`` holds the predicted classes of the chosen (columns of the net's output), the kernel's ``method`` and
    the seconds by stage; of "coverage" the mean over the candidates that was reached, ``coverage``; of "clusters" the
    budget that was applied, how many candidates were redundant and how many of these had to be chosen.

    Examples
    --------
    >>> import skorch, torch
    >>> X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    >>> y = (X[:, 0] > 0).astype(np.int64)
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0
    ... ).fit(X[:20], y[:20])
    >>> known = {"X_labeled": X[:20], "y_labeled": y[:20]}
    >>> selected = LpNTK(random_state=0).select(net, X[20:], 5, **known)
    >>> len(selected.indices), bool((np.diff(selected.scores) <= 0).all())   # each adds less than the one before
    (5, True)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    _parameter_constraints: ClassVar[Constraints] = {
        "rule": [StrOptions({"coverage", "clusters"})],
        "budget": [StrOptions({"auto", "small", "large"})],
        "small_share": [SHARE],
        "skip_redundant": ["boolean"],
        "cluster_share": [SHARE],
        "n_candidates": [COUNT, None],
        "method": [StrOptions({"auto", "exact", "sketch"})],
        "memory_budget": [COUNT],
        "sketch_dim": [COUNT],
    }

    rule: Rule = "coverage"
    budget: Budget = "auto"
    small_share: float = 0.05
    skip_redundant: bool = True
    cluster_share: float = 0.1
    n_candidates: int | None = 10000
    method: Literal["auto", "exact", "sketch"] = "auto"
    memory_budget: int = 2**31
    sketch_dim: int = 1024

    def _select(self, query: Query) -> Selection:
        few, pool = candidates_of(query, self.n_candidates)
        with progress.stage("kernel"):
            rows, labels = self._kernel(few)
        if self.rule == "coverage":
            chosen, scores, how = _covering(rows, query)
        else:
            chosen, scores, how = self._by_clusters(query, rows, labels)
        info = {
            "pseudo_labels": labels[chosen],
            "n_candidates": len(pool),
            **how,
            "method": rows.info["method"],
        }
        return Selection(pool[chosen - query.n_labeled], scores, info)

    def _by_clusters(
        self, query: Query, rows: KernelRows, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        redundant = structure.redundant_samples(rows) if self.skip_redundant else np.zeros(len(rows), dtype=bool)
        budget = self._budget(query)
        if budget == "small":
            chosen, scores = _heads(rows, labels, redundant, query, self.cluster_share)
        else:
            chosen, scores = _farthest(rows, redundant, query)
        counts = int(redundant[query.n_labeled :].sum()), int(redundant[chosen].sum())
        return chosen, scores, {"budget": budget, "n_redundant": counts[0], "n_redundant_chosen": counts[1]}

    def _budget(self, query: Query) -> Literal["small", "large"]:
        if self.budget != "auto":
            return self.budget
        share = (query.n_labeled + query.n_instances) / (query.n_labeled + query.n_pool)
        return "small" if share <= self.small_share else "large"

    def _kernel(self, query: Query) -> tuple[KernelRows, np.ndarray]:
        view = query.view
        logits = view.logits(query.X_pool)
        known = nets.class_columns(view, query.y_labeled, logits.shape[1])
        labels = np.concatenate([known, logits.argmax(dim=1).numpy()])
        rows = kernels.kernel_rows(
            nets.logit_module(view, query.X_pool),
            nets.stacked_inputs(view, query.X_labeled, query.X_pool),
            labels=labels,
            method=self.method,
            memory_budget=self.memory_budget,
            sketch_dim=self.sketch_dim,
            random_state=query.child_rng(),
        )
        return rows, labels


def _covering(rows: KernelRows, query: Query) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    # Greedy coverage of the candidates by cosines; samples are passed by number, since a kernel knows no other rows.
    n_known, n = query.n_labeled, len(rows)
    inverse = torch.from_numpy(rows.inverse_lengths())
    numbers = torch.arange(n, dtype=torch.float64)[:, None]
    pool = rows.take(np.arange(n_known, n)) if n_known else rows

    def part(some: Tensor) -> KernelRows:
        return pool if len(some) == len(pool) and int(some[0]) == n_known else rows.take(some.numpy())

    def interchangeable(left: Tensor, right: Tensor) -> Tensor:
        i, j = left[:, 0].long(), right[:, 0].long()
        products = torch.from_numpy(part(i).cross(part(j))).double()
        return (products * inverse[i, None] * inverse[j]).clamp_(min=0)

    found = selection.max_herding(
        numbers[n_known:],
        query.n_instances,
        centers=numbers[:n_known],
        kernel=interchangeable,
        random_state=query.child_rng(),
    )
    return found.indices + n_known, found.scores, {"coverage": found.info["coverage"]}


def _farthest(rows: KernelRows, redundant: np.ndarray, query: Query) -> tuple[np.ndarray, np.ndarray]:
    # Farthest points with the labelled samples as first centres; redundant ones only when nothing else is left.
    n_known, n_wanted = query.n_labeled, query.n_instances
    centres = np.arange(n_known)
    for is_next in (~redundant, redundant):
        group = n_known + np.flatnonzero(is_next[n_known:])
        n_more = min(n_known + n_wanted - len(centres), len(group))
        if n_more:
            among = np.concatenate([centres, group])
            first = np.arange(len(centres)) if len(centres) else None
            found = structure.farthest_point_clustering(rows.take(among), len(centres) + n_more, first=first)
            centres = among[found.centres]
    chosen = centres[n_known:]
    similarity = rows.take(chosen).cross(rows.take(centres))
    later = np.arange(len(centres)) >= n_known + np.arange(n_wanted)[:, None]
    nearest = np.where(later, -np.inf, similarity).max(axis=1)
    return chosen, np.where(np.isfinite(nearest), -nearest, 0.0).astype(np.float64)


def _heads(
    rows: KernelRows, labels: np.ndarray, redundant: np.ndarray, query: Query, cluster_share: float
) -> tuple[np.ndarray, np.ndarray]:
    # At random among the members of the largest clusters of all classes, then of the second largest, and so on.
    size_rank = np.full(len(rows), len(rows))  # of a sample's cluster among its class's; redundant samples come last
    share_of_class = np.zeros(len(rows))
    for label in np.unique(labels):
        members = np.flatnonzero((labels == label) & ~redundant)
        if len(members):
            n_clusters = max(1, round(cluster_share * len(members)))
            found = structure.farthest_point_clustering(rows.take(members), n_clusters)
            sizes = found.sizes()
            rank_of_cluster = np.argsort(np.argsort(-sizes, kind="stable"))
            size_rank[members] = rank_of_cluster[found.clusters]
            share_of_class[members] = sizes[found.clusters] / len(members)
    pool = np.arange(query.n_labeled, len(rows))
    shuffled_within_rank = np.lexsort((query.rng.random(len(pool)), size_rank[pool]))
    chosen = pool[shuffled_within_rank[: query.n_instances]]
    return chosen, share_of_class[chosen]


lpntk = LpNTK()
modal_ntk_strategies = announced(
    lpntk,
    "what teaches most of the pool that labelled samples do not teach yet, by the labelled kernel",
    "lpNTK (Guo et al., ICLR 2024)",
)
