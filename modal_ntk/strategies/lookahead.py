"""NTK look-ahead: query what would move the network's outputs most, were it trained on its own prediction there."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import nets, selection
from modal_ntk.checks.parameters import COUNT, POSITIVE, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.common import kernel_query
from modal_ntk.strategies.common.rows import needs_of

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.selection.ahead.lookahead import Precision, TieBreak


@dataclass(eq=False, kw_only=True, repr=False)
class LookAhead(QueryStrategy):
    """Query the samples that would change the network's outputs over the pool most.

    For every candidate the kernel's regression predicts what the network would say after training on that sample
    too, with the network's own prediction as its label; the candidates after which outputs differ most are taken.

    Parameters
    ----------
    variant : {"trained", "initial"}, default="trained"
        Whose kernel and outputs the regression starts from: "trained", the learner's net as it stands (NTK
        look-ahead); "initial", a freshly drawn two-layer head on fixed features (NTKCPL's baseline), with the
        learner's predictions as pseudo-labels.
    objective : {"output_change", "squared_change", "disagreement"}, default="output_change"
        Sum over the candidates of the Euclidean change in output (the paper, eq. 13); the same squared; or the
        fraction whose class changes (what the authors' code ranks by).
    reference : {"network", "kernel"}, default="network"
        What change is measured from: the trained network's outputs (the paper), or the regression's own before the
        candidate is added. They are the same where the network fits its labels exactly. The variant "initial"
        knows only "kernel".
    outputs : {"auto", "probabilities", "logits"}, default="auto"
        The trained network's outputs that one-hot labels are compared with. "auto" takes what the net's criterion
        compares with them: the plain outputs of a net trained by squared error (``nn.MSELoss``, the paper), the
        probabilities of any other, whose logits are on another scale.
    sequential : bool, default=False
        Whether each pick joins the training set with its pseudo-label before the next is chosen; otherwise the best
        by the first scores are taken (the paper).
    kernel : {"pseudo", "trace"}, default="pseudo"
        How the kernel's output block is reduced to a number: the sum of all entries (the authors' code; the paper's
        text says one logit), or the trace, over C.
    n_candidates : int or None, default=6000
        Size of the random part of the pool that is both candidate and evaluation set (the paper: 4000 for MNIST,
        else 6000); None takes all.
    features : str or callable, default="input"
        For "initial", the fixed features, as for NTKCPL.
    n_hidden : int, default=64
        For "initial", the head's hidden width.
    use_f0 : bool, default=True
        For "initial", whether the regression starts from the head's outputs, or from zero.
    feature_scaling : {None, "l2", "center_l2", "standard"}, default=None
        For "initial", what is done to the features first.
    time : float or None, default=None
        Training time of the regression at unit rate; None is the limit, as in the paper. A finite time costs an
        eigendecomposition per candidate: for small problems.
    tie_break : {"random", "margin", "first"}, default="random"
        Among samples of equal score: by seed, by the larger mean margin then by seed, or the first.
    rel_jitter : float, default=1e-6
        Jitter of the regression relative to the kernel's mean diagonal.
    dtype : {"float64", "float32"}, default="float64"
        Type of kernel and regression; "float32" halves the memory.
    memory_budget : int, default=2**32
        Bytes the kernel may take; a larger one is refused before anything is computed.
    random_state : int, numpy generator or None, default=None
        Seed of subset, initialisation and ties.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Mohamadi, Bae, Sutherland, "Making Look-Ahead Active Learning Strategies Feasible with Neural Tangent Kernels",
    equations 11 to 13, algorithm 1. The net is read in evaluation mode, so running statistics of BatchNorm are
    frozen. Where all is measured from the kernel's own prediction the score has a closed form,
    ``|r| sum |G_xi| / G_ii``; from the network's outputs it takes one product more. A candidate that the
    labelled samples determine changes nothing of its own. Memory peaks at one square matrix over subset and
    labelled samples, beside what computing the kernel takes.

    Scores are the objective; the larger the better. ``info`` holds the pseudo-label of each pick as a column of the
    outputs, ``pseudo_labels``, the number of candidates, the jitter, the seconds by stage, and for sequential picks
    the ties and the risk against the pseudo-labels.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear(2, 2, bias=False), criterion=torch.nn.CrossEntropyLoss, classes=[0, 1]
    ... ).initialize()
    >>> _ = torch.nn.init.eye_(net.module_.weight)
    >>> pool = np.array([[2.0, 0.0], [0.0, 0.5], [0.2, 2.0]], dtype="float32")
    >>> labeled = {"X_labeled": np.array([[1.0, 0.0]], dtype="float32"), "y_labeled": [0]}
    >>> selected = LookAhead(random_state=0).select(net, pool, 2, **labeled)
    >>> selected.indices.tolist(), selected.info["pseudo_labels"]
    ([1, 2], [1, 1])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    _without: ClassVar[dict[str, dict[str, Any]]] = {"gradients": {"variant": "initial", "features": "input"}}
    _parameter_constraints: ClassVar[Constraints] = {
        **kernel_query.CONSTRAINTS,
        "variant": [StrOptions({"trained", "initial"})],
        "objective": [StrOptions({"output_change", "squared_change", "disagreement"})],
        "reference": [StrOptions({"network", "kernel"})],
        "outputs": [StrOptions({"auto", "probabilities", "logits"})],
        "sequential": ["boolean"],
        "kernel": [StrOptions({"pseudo", "trace"})],
        "n_hidden": [COUNT],
        "use_f0": ["boolean"],
        "time": [POSITIVE, None],
        "tie_break": [StrOptions({"random", "margin", "first"})],
    }

    variant: Literal["trained", "initial"] = "trained"
    objective: Literal["output_change", "squared_change", "disagreement"] = "output_change"
    reference: Literal["network", "kernel"] = "network"
    outputs: Literal["auto", "probabilities", "logits"] = "auto"
    sequential: bool = False
    kernel: Literal["pseudo", "trace"] = "pseudo"
    n_candidates: int | None = 6000
    features: Any = "input"
    n_hidden: int = 64
    use_f0: bool = True
    feature_scaling: kernel_query.Scaling = None
    time: float | None = None
    tie_break: TieBreak = "random"
    rel_jitter: float = 1e-6
    dtype: Precision = "float64"
    memory_budget: int = 2**32

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - needs do not depend on labels
        if self.variant == "trained":
            return {"gradients", "probabilities"}
        return {"predictions", "features"} | needs_of(self.features, auto=False)

    def _check_query(self, query: Query) -> None:
        kernel_query.check_memory(query, self.n_candidates, self.dtype, self.memory_budget)

    def _select(self, query: Query) -> Selection:
        few, positions = kernel_query.candidates_of(query, self.n_candidates)
        targets, kernel, f0 = self._of_the_net(few) if self.variant == "trained" else self._of_a_new_head(few)
        picks = selection.look_ahead(
            kernel,
            targets,
            np.arange(query.n_labeled),
            query.n_instances,
            f0=f0,
            objective=self.objective,
            reference="start" if self.variant == "trained" and self.reference == "network" else "current",
            evaluation=query.n_labeled + np.arange(len(positions)),
            greedy=self.sequential,
            time=self.time,
            tie_break=self.tie_break,
            rel_jitter=self.rel_jitter,
            dtype=self.dtype,
            overwrite_kernel=True,
            random_state=query.child_rng(),
        )
        info = {
            "n_candidates": len(positions),
            "pseudo_labels": targets[picks.indices].tolist(),
            **picks.info,
        }
        return Selection(positions[picks.indices - query.n_labeled], picks.scores, info)

    def _of_the_net(self, query: Query) -> tuple[np.ndarray, Tensor, Tensor]:
        view = query.view
        read = {"auto": view.compared_outputs, "probabilities": view.probabilities, "logits": view.logits}[self.outputs]
        f0 = kernel_query.stacked(query, read).to(view.device, torch.float64)
        targets = f0.argmax(dim=1).cpu().numpy()
        targets[: query.n_labeled] = nets.class_columns(view, query.y_labeled, f0.shape[1])
        kernel = kernel_query.net_kernel(query, kind=self.kernel, dtype=self.dtype)
        return targets, kernel, f0

    def _of_a_new_head(self, query: Query) -> tuple[np.ndarray, Tensor, Tensor | None]:
        view = query.view
        n_classes = view.n_outputs(query.X_pool)
        targets = np.concatenate(
            [nets.class_columns(view, query.y_labeled, n_classes), view.predictions(query.X_pool).numpy()]
        )
        x = kernel_query.stacked(query, lambda X: view.features(X, self.features))
        kernel, f0 = kernel_query.head_kernel(
            x, query, n_hidden=self.n_hidden, n_outputs=n_classes,
            kind=self.kernel, scaling=self.feature_scaling, dtype=self.dtype,
        )  # fmt: skip
        return targets, kernel, f0 if self.use_f0 else None


lookahead = LookAhead()
modal_ntk_strategies = announced(
    lookahead,
    "largest change of the network's outputs, predicted by its neural tangent kernel",
    "NTK look-ahead (Mohamadi et al.)",
)
