"""Look-ahead: choose the point whose label would help most, were the kernel's regression trained on it.

With posterior covariance G over all rows, s = G_ii and residual r = y_i - f(i), training on row i too turns
the prediction f(x) into f(x) + G_xi / s * r. Every objective reads off that one line; an accepted pick
updates mean and covariance in place, at the cost of one pass over G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks
from modal_ntk.kernels.posterior import Posterior, condition, posterior
from modal_ntk.selection import changes
from modal_ntk.selection.result import Selection
from modal_ntk.selection.top import best

Objective = Literal["risk", "output_change", "disagreement"]
TieBreak = Literal["random", "margin", "first"]


def look_ahead(
    kernel: Any,
    targets: Any,
    labeled: Any,
    n_instances: int,
    *,
    candidates: Any = None,
    f0: Any = None,
    objective: Objective = "risk",
    evaluation: Any = None,
    tie_break: TieBreak = "random",
    rel_jitter: float = 1e-6,
    random_state: Any = None,
    on_pick: Callable[[int], object] | None = None,
) -> Selection:
    """Choose a batch greedily by what the kernel's regression would predict after each pick.

    Parameters
    ----------
    kernel : array or Tensor (n, n)
        Symmetric positive semi-definite kernel over all rows; never changed.
    targets : array-like (n,)
        Pseudo-label of every row, 0 to C-1.
    labeled : array-like (l,)
        Rows already in the training set; may be empty.
    n_instances : int
        Size of the batch.
    candidates : array-like (m,), optional
        Rows that may be chosen; by default all that are not labelled.
    f0 : array or Tensor (n, C'), optional
        Outputs before training, at least as many as there are classes; zero by default.
    objective : {"risk", "output_change", "disagreement"}, default="risk"
        "risk": least number of rows predicted unlike their target (NTKCPL, eq. 4). "output_change": largest
        sum over rows of the Euclidean change in prediction (NTK look-ahead, eq. 13). "disagreement":
        most rows whose predicted class changes (what that paper's code ranks by).
    evaluation : array-like (e,), optional
        Rows over which the objective sums; all by default.
    tie_break : {"random", "margin", "first"}, default="random"
        Among equal objectives: by seed; by the larger mean margin of the targets after the pick, then by
        seed; or the lowest row.
    rel_jitter : float, default=1e-6
        Jitter on the labelled block, relative to its mean diagonal. A candidate whose posterior variance
        is no larger adds nothing new and changes nothing.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.
    on_pick : callable, optional
        Called with the number of picks made, for a progress bar.

    Returns
    -------
    Selection
        Row numbers in the order chosen; the objective after each pick as score (risk and disagreement as
        fractions of the evaluation rows); ``info`` with ``risk`` (same, for any objective), the number of
        ``ties`` at each pick and the ``jitter`` used.

    Raises
    ------
    InvalidInputError
        If shapes disagree, a row number is out of range or chosen twice, or fewer candidates than asked.

    Notes
    -----
    NTKCPL (Wen, Pizarro, Williams), algorithm 1 lines 10 to 18; in the limit of training time. Earlier picks
    of a batch keep their pseudo-label. The rank-one form is exact, not an approximation: it equals solving
    the regression anew for every candidate. An arg max over equal outputs takes the lower class.

    Examples
    --------
    >>> x = np.array([0, 1, 1.9, 3, 4, 5.2])
    >>> kernel = np.exp(-((x[:, None] - x) ** 2) / 2)
    >>> picks = look_ahead(kernel, [0, 0, 0, 1, 1, 1], [0], 2, tie_break="first")
    >>> picks.indices.tolist(), picks.info["risk"]
    ([4, 1], [0.0, 0.0])
    """
    checks.check_choice("objective", objective, ("risk", "output_change", "disagreement"))
    checks.check_choice("tie_break", tie_break, ("random", "margin", "first"))
    rng = checks.check_random_state(random_state)
    gram = _square(kernel)
    n = len(gram)
    labels = checks.check_rows("targets", targets, None, length=n)
    known = checks.check_rows("labeled", labeled, n)
    everyone = np.arange(n)
    rows = everyone if evaluation is None else checks.check_rows("evaluation", evaluation, n)
    free = np.setdiff1d(everyone if candidates is None else checks.check_rows("candidates", candidates, n), known)
    checks.check_n_instances(n_instances, len(free))
    one_hot, start = _outputs(labels, f0, gram)
    state = posterior(gram, torch.from_numpy(known).to(gram.device), one_hot, f0=start, rel_jitter=rel_jitter)
    picks, scores, risks, ties = [], [], [], []
    for step in range(n_instances):
        values = _objective(objective, state, labels, free, rows)
        tied = free[best(values)]
        pick = int(_break_tie(tie_break, tied, state, labels, rows, rng))
        picks.append(pick)
        ties.append(len(tied))
        scores.append(float(values.max()))
        condition(state, pick, one_hot[pick])
        risks.append(_risk(state, labels, rows))
        free = free[free != pick]
        if on_pick is not None:
            on_pick(step + 1)
    sign = -1.0 if objective == "risk" else 1.0
    info = {"risk": risks, "ties": ties, "jitter": state.jitter}
    return Selection(np.array(picks, dtype=np.int64), sign * np.array(scores), info)


def _square(kernel: Any) -> Tensor:
    gram = torch.as_tensor(kernel)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.is_floating_point():
        got = f"{gram.dtype} of shape {tuple(gram.shape)}"
        raise checks.expected("a square kernel of floats", got, "Compute it over all rows at once.")
    return gram


def _outputs(labels: np.ndarray, f0: Any, gram: Tensor) -> tuple[Tensor, Tensor | None]:
    n_classes = int(labels.max()) + 1
    start = None if f0 is None else torch.as_tensor(f0, dtype=gram.dtype, device=gram.device)
    if start is not None:
        if start.ndim != 2 or len(start) != len(gram) or start.shape[1] < n_classes:
            got = f"shape {tuple(start.shape)}"
            raise checks.expected(f"f0 of shape ({len(gram)}, {n_classes} or more)", got, "One column per class.")
        n_classes = start.shape[1]
    one_hot = torch.zeros(len(gram), n_classes, dtype=gram.dtype, device=gram.device)
    one_hot[torch.arange(len(gram)), torch.from_numpy(labels)] = 1
    return one_hot, start


def _objective(
    objective: Objective, state: Posterior, labels: np.ndarray, free: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    # Larger is better for all three, so that one arg max serves.
    if objective == "output_change":
        return changes.output_change(state, labels, free, rows)
    if objective == "risk":
        return -changes.mismatches(state, labels, free, rows, reference=labels) / len(rows)
    current = state.mean.argmax(dim=1).cpu().numpy()
    return changes.mismatches(state, labels, free, rows, reference=current) / len(rows)


def _break_tie(
    tie_break: TieBreak,
    tied: np.ndarray,
    state: Posterior,
    labels: np.ndarray,
    rows: np.ndarray,
    rng: np.random.Generator,
) -> int:
    if tie_break == "margin" and len(tied) > 1:
        tied = tied[best(changes.mean_margin(state, labels, tied, rows))]
    return int(tied[0] if tie_break == "first" else rng.choice(tied))


def _risk(state: Posterior, labels: np.ndarray, rows: np.ndarray) -> float:
    predicted = state.mean.argmax(dim=1).cpu().numpy()
    return float((predicted[rows] != labels[rows]).mean())
