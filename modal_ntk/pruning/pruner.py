"""Prune training data with the labelled kernel: drop what is redundant, thin out the head cluster."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from modal_ntk import nets, progress
from modal_ntk.checks.parameters import COUNT, SHARE, Constraints, StrOptions
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.kernels.rows import KernelRows
from modal_ntk.pruning.base import DataPruner, Labelled, fitted_view
from modal_ntk.pruning.conflicts import conflict_scores, similarity_rows
from modal_ntk.structure.farthest_point import FarthestPoints, farthest_point_clustering, redundant_samples

Mode = Literal["prune_head", "head_only", "centres", "random_member", "redundant_only"]
Redundancy = Literal["auto", "all", "class", "later", "none"]
N_DOUBTED = 2000
"""Up to how many labels are looked at for doubts."""

DOUBTFUL = 0.05
"""Share of doubtful labels above which a pruner warns; of clean digits it was at most 0.014."""


@dataclass(eq=False, kw_only=True, repr=False)
class LpNTKPruner(DataPruner):
    """Keep the samples that teach what others do not.

    A net trained on the data gives the labelled pseudo-kernel (lpNTK): how much learning one labelled sample teaches
    another. Samples that resemble another more than themselves go; the rest of each class is clustered, and part of
    its largest cluster goes too, or, for small budgets, that cluster alone stays.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one
        The net whose kernel is used. Trained as a clone on the data to be pruned; the paper takes the weights of best
        validation accuracy, so let skorch's ``Checkpoint`` with ``load_best=True`` put these back.
    prefit : bool, default=False
        Whether `estimator` is fitted already and is to be read as it is.
    kernel : {"labelled", "pseudo"}, default="labelled"
        lpNTK, or the paper's ablation without labels, pNTK.
    redundancy : {"auto", "all", "class", "later", "none"}, default="auto"
        With what a sample is compared: all others (the paper), others of its class, those after it (the authors'
        code), or nothing. "auto" is "none" for "head_only", which draws from all that is there, else "all".
    max_redundant : float, default=0.1
        Largest share of the data, or of each class where classes are compared apart, that goes as redundant: the
        samples most similar to another, as a share of their similarity to themselves. The paper drops all of them and
        reports that "roughly 20%" of the data go in the end, a heuristic size; the rule alone, with 1.0, finds most of
        a well-learnt set redundant, and of a set with wrong labels the right ones.
    mode : {"prune_head", "head_only", "centres", "random_member", "redundant_only"}, default="prune_head"
        What stays of each class once redundant samples are gone: all but a random share of the largest cluster (the
        paper); the largest cluster alone, for small budgets; the clusters' centres; one random member of each cluster;
        or all.
    head_drop : float, default=0.1
        Share of the largest cluster that "prune_head" drops (the paper 0.1, the authors' code 0.5).
    cluster_share : float, default=0.1
        Number of clusters as a share of a class.
    n_keep : int, optional
        For "head_only", how many samples stay in all, drawn at random from the largest clusters; all of them by
        default.
    method : {"auto", "exact", "sketch"}, default="auto"
        As in `modal_ntk.kernels.kernel_rows`.
    memory_budget : int, default=2**32
        Bytes that the gradients of all samples may take.
    sketch_dim : int, default=1024
        Numbers kept for each parameter where gradients are sketched.
    random_state : int, numpy generator or None, default=None
        Seed of training, sketch and draws.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Attributes
    ----------
    sample_indices_ : numpy.ndarray (m,), int64
        Rows kept, in rising order.
    redundant_ : numpy.ndarray (n,), bool
        Rows that are redundant.
    clusters_ : numpy.ndarray (n,), int64
        Cluster of every row within its class, in the order opened; -1 for redundant rows.
    head_ : numpy.ndarray (n,), bool
        Rows of the largest cluster of their class.
    centres_ : dict
        By label, the rows of the clusters' centres.
    shares_ : dict
        Share of all rows that went as "redundant", and as "clustered".
    doubtful_ : float
        Share of rows, of up to 2,000, whose label `find_label_conflicts` suspects.
    estimator_ : estimator
        The net that was read.

    Notes
    -----
    Guo et al., "lpNTK: Better Generalisation with Less Data via Sample Interaction During Learning" (ICLR 2024),
    sections 4.1 and 4.2, appendices D.5 and E.2. Clusters are made per class, as the authors do. The paper finds that
    where more than about 85 % of the data can be kept it is the head cluster that should lose, and where only 1 or 5 %
    can, the head alone teaches best. The authors' code clusters redundant samples too; here they are gone before.

    Warns where more than a third goes as redundant, and where more than 5 % of the labels are doubtful: a wrong label
    makes its sample unlike all others, so that it is kept and right ones go.

    Examples
    --------
    >>> import torch, skorch
    >>> X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> y = (X[:, 0] > 0).astype("int64")
    >>> X[:, 0] += 4 * y - 2
    >>> net = skorch.NeuralNetClassifier(
    ...     torch.nn.Linear(3, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0
    ... )
    >>> X_kept, y_kept = LpNTKPruner(net, head_drop=0.5, random_state=0).fit_resample(X, y)
    >>> len(X_kept) == len(y_kept) < 40
    True
    """

    _parameter_constraints: ClassVar[Constraints] = {
        "prefit": ["boolean"],
        "kernel": [StrOptions({"labelled", "pseudo"})],
        "redundancy": [StrOptions({"auto", "all", "class", "later", "none"})],
        "max_redundant": [SHARE],
        "mode": [StrOptions({"prune_head", "head_only", "centres", "random_member", "redundant_only"})],
        "head_drop": [SHARE],
        "cluster_share": [SHARE],
        "n_keep": [COUNT, None],
        "method": [StrOptions({"auto", "exact", "sketch"})],
        "memory_budget": [COUNT],
        "sketch_dim": [COUNT],
    }

    prefit: bool = False
    kernel: Literal["labelled", "pseudo"] = "labelled"
    redundancy: Redundancy = "auto"
    max_redundant: float = 0.1
    mode: Mode = "prune_head"
    head_drop: float = 0.1
    cluster_share: float = 0.1
    n_keep: int | None = None
    method: Literal["auto", "exact", "sketch"] = "auto"
    memory_budget: int = 2**32
    sketch_dim: int = 1024

    def _keep(self, data: Labelled) -> np.ndarray:
        view = fitted_view(self.estimator, data, self.prefit)
        self.estimator_ = view.estimator
        rows = self._rows(view, data, self.kernel, method=self.method)
        self.kernel_info_ = rows.info
        self.redundant_ = self._redundant(rows, data.y)
        self.clusters_ = np.full(len(data), -1, dtype=np.int64)
        self.head_ = np.zeros(len(data), dtype=bool)
        self.centres_: dict[Any, np.ndarray] = {}
        kept = self._after_clustering(rows, data)
        if self.n_keep is not None and self.mode == "head_only" and self.n_keep < len(kept):
            kept = data.rng.choice(kept, self.n_keep, replace=False)
        share = float(self.redundant_.mean())
        self.shares_ = {"redundant": share, "clustered": 1 - len(kept) / len(data) - share}
        self.doubtful_ = self._doubtful(view, data)
        self._warn(len(data))
        return kept

    def _rows(self, view: nets.NetView, data: Labelled, kernel: Any, **method: Any) -> KernelRows:
        options = {"memory_budget": self.memory_budget, "sketch_dim": self.sketch_dim, **method}
        return similarity_rows(view, data, kernel, data.seed(), **options)

    def _doubtful(self, view: nets.NetView, data: Labelled) -> float:
        rows = np.arange(len(data))
        if len(rows) > N_DOUBTED:
            rows = np.sort(data.rng.choice(rows, N_DOUBTED, replace=False))
        some = Labelled(nets.take_rows(data.X, rows), data.y[rows], data.rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModalNTKWarning)  # of the sketch, which the pruner itself has told
            similar = self._rows(view, some, "pseudo")
        scores, _ = conflict_scores(similar, np.unique(some.y, return_inverse=True)[1], 5)
        return float((scores > 0).mean())

    def _warn(self, n: int) -> None:
        redundant = self.shares_["redundant"]
        if redundant > 1 / 3:
            message = (
                f"LpNTKPruner removed {redundant:.0%} of {n} samples as redundant. Set max_redundant for a limit, and "
                "look at find_label_conflicts(...).suspects first: beside wrong labels it is right ones that go."
            )
            warnings.warn(message, ModalNTKWarning, stacklevel=4)
        if self.doubtful_ > DOUBTFUL:
            message = (
                f"LpNTKPruner doubts {self.doubtful_:.1%} of the labels. Wrongly labelled samples are hardly ever "
                "redundant, and right ones go: look at find_label_conflicts(...).suspects, or lower max_redundant."
            )
            warnings.warn(message, ModalNTKWarning, stacklevel=4)

    def _redundant(self, rows: KernelRows, y: np.ndarray) -> np.ndarray:
        redundancy = self.redundancy
        if redundancy == "auto":
            redundancy = "none" if self.mode == "head_only" else "all"
        if redundancy in ("all", "later"):
            at_most = math.floor(self.max_redundant * len(y))
            return redundant_samples(rows, later_only=redundancy == "later", at_most=at_most)
        found = np.zeros(len(y), dtype=bool)
        for label in np.unique(y) if redundancy == "class" else ():
            members = np.flatnonzero(y == label)
            at_most = math.floor(self.max_redundant * len(members))
            found[members] = redundant_samples(rows.take(members), at_most=at_most)
        return found

    def _after_clustering(self, rows: KernelRows, data: Labelled) -> np.ndarray:
        if self.mode == "redundant_only":
            return np.flatnonzero(~self.redundant_)
        kept = []
        for label in progress.steps(list(np.unique(data.y)), "classes", "class"):
            members = np.flatnonzero((data.y == label) & ~self.redundant_)
            if len(members) == 0:
                continue
            n_clusters = max(1, round(self.cluster_share * len(members)))
            found = farthest_point_clustering(rows.take(members), n_clusters)
            self.clusters_[members] = found.clusters
            self.head_[members] = found.clusters == found.head()
            self.centres_[label] = members[found.centres]
            kept.append(members[self._of_class(found, data.rng)])
        return np.concatenate(kept)

    def _of_class(self, found: FarthestPoints, rng: np.random.Generator) -> np.ndarray:
        head = np.flatnonzero(found.clusters == found.head())
        if self.mode == "head_only":
            return head
        if self.mode == "centres":
            return found.centres
        if self.mode == "random_member":
            return np.array([rng.choice(np.flatnonzero(found.clusters == j)) for j in range(len(found.centres))])
        dropped = rng.choice(head, math.floor(self.head_drop * len(head)), replace=False)
        return np.setdiff1d(np.arange(len(found.clusters)), dropped)
