"""NTKCPL: look ahead with a neural tangent kernel at the risk over the whole pool, against cluster pseudo-labels."""

from __future__ import annotations

import warnings
from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import checks, progress, selection, structure
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Constraints, StrOptions
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.common import kernel_query
from modal_ntk.strategies.common.rows import needs_of

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.selection.ahead.lookahead import Precision, TieBreak
    from modal_ntk.structure.clusters import Clustering
    from modal_ntk.structure.constrained import Constraint


_AS_PUBLISHED: dict[str, Any] = {
    "max_clusters": 100,
    "variant": "al",
    "n_hidden": 64,
    "use_f0": True,
    "feature_scaling": None,
    "n_init": 10,
    "objective": "risk",
    "variance_weight": 0.0,
    "tie_break": "random",
    "tie_tolerance": 0.0,
    "dtype": "float64",
}


@dataclass(frozen=True)
class Belief:
    """What a query rests on.

    Parameters
    ----------
    rows : numpy.ndarray (m,)
        Which of the labelled samples and the pool, stacked, the kernel covers; all labelled ones come first.
    clusters : Clustering
        Pseudo-labels of all stacked samples.
    kernel : Tensor (m, m)
        Of the freshly drawn head.
    f0 : Tensor (m, C) or None
        Its outputs; None if the regression starts from zero.
    """

    rows: np.ndarray
    clusters: Clustering
    kernel: Tensor
    f0: Tensor | None

    @property
    def targets(self) -> np.ndarray:
        """Pseudo-labels of the rows."""
        return np.asarray(self.clusters.labels[self.rows])


@dataclass(eq=False, kw_only=True, repr=False)
class NTKCPL(QueryStrategy):
    """Query the samples that, once trained on, leave the pool least unlike its clusters.

    Each round clusters the pool into pseudo-labels, takes the neural tangent kernel of a two-layer classifier on fixed
    features, and picks greedily the sample after whose addition the kernel's regression errs least on the
    pseudo-labels.

    Parameters
    ----------
    max_clusters : int or None, default=None
        Largest number of pseudo-labels; None takes 100, or five times the classes seen if that is more (the paper:
        100 for CIFAR-10 and SVHN, 150 Pets, 300 ImageNet-100, 500 CIFAR-100).
    variant : {"self", "al"}, default="self"
        What is clustered once there are labels: "self", the fixed features; "al", the learner's penultimate
        activations. Before that always the fixed features.
    features : str or callable, default="input"
        The fixed (self-supervised) features: "input", the samples themselves; the name of a frozen layer of
        the net; or a callable from prepared samples to a matrix (n, d).
    embedding : str, callable or None, default=None
        For "al", where the active-learning features come from: None, the input of the net's last linear layer; or a
        layer's name; or a callable.
    n_hidden : int or None, default=None
        Hidden width of the classifier whose kernel is used: None, the limit of infinite width, in closed form and
        without a draw; a number, one freshly drawn head (the paper: 64 for CIFAR-10, 512 for SVHN, CIFAR-100 and
        Pets, 4096 for ImageNet-100).
    kernel : {"pseudo", "trace"}, default="pseudo"
        For a finite width, how the kernel's output block is reduced to a number: the sum of all entries, or the
        trace, over C.
    use_f0 : bool, default=False
        For a finite width, whether the regression starts from the outputs of the drawn classifier, or from zero. On
        features that are not scaled the picks then depend on the features' unit, which is warned about.
    feature_scaling : {"center_l2", "l2", "standard", None}, default="center_l2"
        What is done to the fixed features first: columns of mean zero and then rows of length one; the latter alone;
        columns of mean zero and deviation one; or nothing.
    normalise_clusters : bool, default=True
        Whether rows are scaled to length one before clustering.
    constraint : {"cannot_link", "must_link", "none"}, default="cannot_link"
        What labels mean for the first clusters: differently labelled samples apart; equally labelled ones also
        together; or nothing.
    n_start : int or None, default=None
        Number of clusters before splitting, the paper's b_0, the size of its first query; None takes twice the
        classes seen, which is the same on the paper's schedule for CIFAR-10.
    n_init : int, default=1
        Number of starts of every k-means.
    min_cluster_size : int, default=1
        Smallest cluster a split may leave.
    n_candidates : int or None, default=10000
        Size of the random part of the pool that is both candidate and evaluation set; None takes all.
    objective : {"squared_error", "risk"}, default="squared_error"
        What a pick makes least over the pool, against the pseudo-labels: the mean squared error, or the share of
        samples predicted unlike their pseudo-label (the paper, eq. 4).
    variance_weight : float, default=2.0
        How much of the regression's posterior variance is added to it: this many times the share of the prior variance
        that is left. The paper has none.
    tie_break : {"random", "margin", "variance", "first"}, default="random"
        Among samples of equal objective: by seed, by the larger mean margin, by the larger fall of the posterior
        variance, each then by seed, or the first.
    tie_tolerance : float, default=0.0
        For "risk", the share of rows within which counts are equal; with ``tie_break="variance"`` 0.01 is a good one.
    time : float or None, default=None
        For "risk", training time of the regression at unit rate; None is the limit, as in the paper's derivation. A
        finite time costs an eigendecomposition per candidate and pick: for small problems.
    rel_jitter : float, default=1e-6
        Jitter of the regression relative to the kernel's mean diagonal.
    dtype : {"float32", "float64"}, default="float32"
        Type the kernel is held in, and with "risk" the regression too. Squared error and variance are summed in double
        precision either way; in single a sample counts as known once its variance is below 1e-5 of the mean.
    memory_budget : int, default=2**32
        Bytes the kernel may take; a larger one is refused before anything is computed.
    random_state : int, numpy generator or None, default=None
        Seed of subset, clusters, initialisation and ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Wen, Pizarro, Williams, "NTKCPL: Active Learning on Top of Self-Supervised Model by Estimating True
    Coverage", algorithms 1 and 2, equations 3 and 4. `NTKCPL.as_published` is the literal reading. The defaults differ
    where the paper is silent and one choice did better on three sets of features at once, and in the objective: the
    0-1 risk moves by single counts, and its ties decide more than it does. The paper's kernel is that of a drawn head;
    without BatchNorm and in NTK parametrisation its limit of infinite width is used. The number of clusters is half the
    labels there will be after this query; the objective is summed over the candidate subset and all labelled samples,
    in the limit of training time. Clusters cover the whole pool, the kernel only the subset. Memory peaks at one square
    matrix over subset and labelled samples, and a double-precision column of it for each label and pick.

    Scores are the objective after each pick; the smaller the better. ``info`` holds the number of clusters, the risk
    after each pick, the ties, the broken constraints, the jitter and the seconds by stage.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data[:200].astype("float32")
    >>> selected = NTKCPL(random_state=0).select(None, X, 10)   # no model, no label yet
    >>> len(set(selected.indices.tolist())), selected.info["n_clusters"]
    (10, 10)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    _without: ClassVar[dict[str, dict[str, Any]]] = {"embedding": {"variant": "self", "features": "input"}}
    _parameter_constraints: ClassVar[Constraints] = {
        **kernel_query.CONSTRAINTS,
        "max_clusters": [COUNT, None],
        "variant": [StrOptions({"al", "self"})],
        "n_hidden": [COUNT, None],
        "kernel": [StrOptions({"pseudo", "trace"})],
        "use_f0": ["boolean"],
        "normalise_clusters": ["boolean"],
        "constraint": [StrOptions({"cannot_link", "must_link", "none"})],
        "n_start": [COUNT, None],
        "n_init": [COUNT],
        "min_cluster_size": [COUNT],
        "objective": [StrOptions({"risk", "squared_error"})],
        "embedding": [str, callable, None],
        "variance_weight": [NOT_NEGATIVE],
        "tie_tolerance": [SHARE],
        "tie_break": [StrOptions({"random", "margin", "variance", "first"})],
        "time": [POSITIVE, None],
    }

    max_clusters: int | None = None
    variant: Literal["al", "self"] = "self"
    features: Any = "input"
    embedding: Any = None
    n_hidden: int | None = None
    kernel: Literal["pseudo", "trace"] = "pseudo"
    use_f0: bool = False
    feature_scaling: kernel_query.Scaling = "center_l2"
    normalise_clusters: bool = True
    constraint: Constraint = "cannot_link"
    n_start: int | None = None
    n_init: int = 1
    min_cluster_size: int = 1
    n_candidates: int | None = 10000
    objective: Literal["risk", "squared_error"] = "squared_error"
    variance_weight: float = 2.0
    tie_break: TieBreak = "random"
    tie_tolerance: float = 0.0
    time: float | None = None
    rel_jitter: float = 1e-6
    dtype: Precision = "float32"
    memory_budget: int = 2**32

    @classmethod
    def as_published(cls, **changes: Any) -> NTKCPL:
        """Return the paper's literal reading, as far as the paper goes.

        Parameters
        ----------
        **changes
            Parameters to set otherwise: the paper's own differ by data set, such as ``max_clusters=500`` and
            ``n_hidden=512`` for CIFAR-100, and ``n_start``, the size of its first query.

        Returns
        -------
        NTKCPL
            One drawn head of 64 units and its outputs on features as they are, clusters of the net's own features,
            cannot-link constraints, at most 100 clusters, the bare 0-1 risk with ties by seed.

        Warns
        -----
        ModalNTKWarning
            In every query: such a regression depends on the features' unit.

        Examples
        --------
        >>> NTKCPL.as_published(random_state=0).n_hidden
        64
        """
        return cls(**{**_AS_PUBLISHED, **changes})

    def _check_together(self) -> None:
        selection.check_objective(
            self.objective, self.tie_break,
            variance_weight=self.variance_weight, tie_tolerance=self.tie_tolerance, time=self.time,
        )  # fmt: skip
        self._check_f0()

    def _check_f0(self) -> None:
        if self.use_f0 and self.n_hidden is None:
            remedy = "Pass n_hidden, such as 64, or use_f0=False."
            raise checks.expected("a finite n_hidden for use_f0=True", "n_hidden=None", remedy)
        if self.use_f0 and self.feature_scaling is None:
            warnings.warn(
                "With use_f0=True and feature_scaling=None the outputs before training grow with the features while "
                "targets stay one-hot: picks depend on the features' unit. "
                'Pass feature_scaling="l2" or use_f0=False.',
                ModalNTKWarning,
                stacklevel=2,
            )

    def _needed(self, n_labeled: int) -> Set[str]:
        needed = self.needs | needs_of(self.features, auto=False)
        if n_labeled == 0:
            return needed
        of_clusters = {"embedding"} if self.variant == "al" and not callable(self.embedding) else set()
        return needed | {"predictions"} | of_clusters

    def _check_query(self, query: Query) -> None:
        kernel_query.check_memory(query, self.n_candidates, self.dtype, self.memory_budget)

    def _belief(self, query: Query, *, n_outputs: int = 0) -> Belief:
        # What a query rests on; at least `n_outputs` outputs are drawn for the head.
        # The labelled rows come first, then the whole pool: one numbering for features, clusters, kernel.
        features = kernel_query.stacked(query, lambda X: query.view.features(X, self.features))
        with progress.stage("clusters"):
            scaled = kernel_query.scaled(features, self.feature_scaling)
            clusters = self._pseudo_labels(query, scaled.to(features.dtype))
        pool = query.n_labeled + kernel_query.candidate_positions(query, self.n_candidates)
        rows = np.concatenate([np.arange(query.n_labeled), pool])
        kernel, f0 = kernel_query.head_kernel(
            kernel_query.scaled(features[rows], self.feature_scaling, among=features), query, n_hidden=self.n_hidden,
            n_outputs=max(n_outputs, int(clusters.labels.max()) + 1), kind=self.kernel, scaling=None, dtype=self.dtype,
        )  # fmt: skip
        return Belief(rows, clusters, kernel, f0 if self.use_f0 else None)

    def _select(self, query: Query) -> Selection:
        belief = self._belief(query)
        rows, clusters = belief.rows, belief.clusters
        picks = selection.look_ahead(
            belief.kernel,
            belief.targets,
            np.arange(query.n_labeled),
            query.n_instances,
            f0=belief.f0,
            objective=self.objective,
            variance_weight=self.variance_weight,
            time=self.time,
            tie_break=self.tie_break,
            tie_tolerance=self.tie_tolerance,
            rel_jitter=self.rel_jitter,
            dtype=self.dtype,
            overwrite_kernel=True,
            random_state=query.child_rng(),
        )
        info = {
            "n_clusters": len(np.unique(clusters.labels)),
            "n_violations": clusters.n_violations,
            "n_candidates": len(rows) - query.n_labeled,
            **picks.info,
        }
        return Selection(rows[picks.indices] - query.n_labeled, picks.scores, info)

    def _pseudo_labels(self, query: Query, features: Tensor) -> Clustering:
        n_classes = len(np.unique(query.y_labeled))
        max_clusters = max(100, 5 * n_classes) if self.max_clusters is None else self.max_clusters
        n_clusters = structure.n_pseudo_clusters(query.n_labeled, query.n_instances, max_clusters)
        n_start = max(1, 2 * n_classes) if self.n_start is None else self.n_start
        predicted = None
        if query.n_labeled:
            predicted = kernel_query.stacked(query, query.view.predictions).numpy()
            if self.variant == "al":
                features = kernel_query.stacked(query, lambda X: query.view.embeddings(X, self.embedding))
        return structure.cluster_pseudo_labels(
            features.numpy(),
            n_clusters,
            n_start=min(n_start, n_clusters),
            labeled=np.arange(query.n_labeled),
            labels=query.y_labeled,
            predicted=predicted,
            constraint=self.constraint,
            min_cluster_size=self.min_cluster_size,
            normalise=self.normalise_clusters,
            n_init=self.n_init,
            random_state=query.child_rng(),
        )


ntkcpl = NTKCPL()
modal_ntk_strategies = announced(
    ntkcpl,
    "NTK look-ahead at the error over the pool, against clustering pseudo-labels",
    "NTKCPL (Wen, Pizarro, Williams)",
)
