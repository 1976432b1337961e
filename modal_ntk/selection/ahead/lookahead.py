"""Look-ahead: choose the point whose label would help most, were the kernel's regression trained on it.

With posterior covariance G over all rows, s = G_ii and residual r = y_i - f(i), training on row i too turns
the prediction f(x) into f(x) + G_xi / s * r. Every objective reads off that one line; an accepted pick
updates mean and covariance in place, at the cost of one pass over G.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from modal_ntk import checks, progress
from modal_ntk.kernels.posterior import posterior
from modal_ntk.kernels.regression import all_finite
from modal_ntk.selection.ahead.changes import Limit
from modal_ntk.selection.ahead.deferred import Deferred
from modal_ntk.selection.ahead.engines import FiniteTime, one_hot, predicted_classes
from modal_ntk.selection.result import Selection

Objective = Literal["risk", "squared_error", "variance", "output_change", "squared_change", "disagreement"]
TieBreak = Literal["random", "margin", "variance", "first"]
_DEFERRED = ("squared_error", "variance")
_MINIMISED = ("risk", "squared_error")
Reference = Literal["current", "start"]
Precision = Literal["float64", "float32"]


def look_ahead(
    kernel: Any,
    targets: Any,
    labeled: Any,
    n_instances: int,
    *,
    candidates: Any = None,
    f0: Any = None,
    objective: Objective = "risk",
    variance_weight: float = 0.0,
    reference: Reference = "current",
    evaluation: Any = None,
    greedy: bool = True,
    time: float | None = None,
    tie_break: TieBreak = "random",
    tie_tolerance: float = 0.0,
    rel_jitter: float = 1e-6,
    dtype: Precision = "float64",
    overwrite_kernel: bool = False,
    memory_budget: int | None = None,
    random_state: Any = None,
) -> Selection:
    """Choose a batch by what the kernel's regression would predict after each pick.

    Parameters
    ----------
    kernel : array or Tensor (n, n)
        Symmetric positive semi-definite kernel over all rows; changed only with `overwrite_kernel`.
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
    objective : str, default="risk"
        "risk": least number of rows predicted unlike their target (NTKCPL, eq. 4). "squared_error": least mean
        squared distance of outputs to one-hot targets. "variance": largest fall of the summed posterior variance,
        which asks for no targets (V-optimal design; Yu, Bi, Tresp 2006). "output_change": largest sum over rows
        of the Euclidean change in prediction (NTK look-ahead, eq. 13). "squared_change": the same with squares.
        "disagreement": most rows whose predicted class changes (what that paper's code ranks by).
    variance_weight : float, default=0.0
        Added to "risk" and "squared_error": this many times the share of the rows' prior variance that is left after
        the pick. With one, "squared_error" is what is expected of a draw from the posterior whose prior is as wide as a
        one-hot target is long.
    reference : {"current", "start"}, default="current"
        What the last three objectives measure the change from: the present prediction, or `f0`.
    evaluation : array-like (e,), optional
        Rows over which the objective sums; all by default.
    greedy : bool, default=True
        Whether each pick is trained on, with its pseudo-label, before the next is chosen; otherwise the
        best `n_instances` by the first scores are taken.
    time : float or None, default=None
        Training time at unit rate, for half the squared error summed over samples; None is the limit. At a
        finite time every candidate costs an eigendecomposition of the labelled block: for small problems.
    tie_break : {"random", "margin", "variance", "first"}, default="random"
        Among equal objectives: by seed; by the larger mean margin of the targets after the pick, by the larger
        fall of the summed posterior variance, each then by seed; or the lowest row.
    tie_tolerance : float, default=0.0
        Share of the evaluation rows within which "risk" and "disagreement" count as equal to the best one in a
        greedy batch: both are counts, and move by single rows.
    rel_jitter : float, default=1e-6
        Jitter on the labelled block, relative to its mean diagonal. A candidate whose posterior variance
        is no larger adds nothing new and changes nothing. Not used at a finite time.
    dtype : {"float64", "float32"}, default="float64"
        Type of mean and covariance; the regression is solved in float64 either way. With "float32", half
        the memory, candidates whose variance is below 1e-5 of the mean diagonal count as nothing new.
    overwrite_kernel : bool, default=False
        Whether the covariance may take the kernel's memory; it does where the types are equal. "squared_error" and
        "variance" make no covariance and leave the kernel as it is.
    memory_budget : int or None, default=None
        Bytes that the covariance may take beside the kernel; checked before it is made. None is no limit.
    random_state : int, numpy generator or None, default=None
        Seed of the tie-break.

    Returns
    -------
    Selection
        Row numbers in the order chosen; the objective of each pick as score (risk and disagreement as
        fractions of the evaluation rows, squared error as their mean, with the weighted variance); ``info`` with the
        ``jitter`` used and, for greedy batches, the ``risk`` after each pick (for any objective) and the
        number of ``ties`` at it.

    Raises
    ------
    InvalidInputError
        If shapes disagree, a row number is out of range or chosen twice, there are fewer candidates than
        asked for, or the covariance does not fit the budget.

    Notes
    -----
    NTKCPL (Wen, Pizarro, Williams), algorithm 1 lines 10 to 18. Earlier picks of a batch keep their
    pseudo-label. The rank-one form is exact, not an approximation: it equals solving the regression anew for
    every candidate. An arg max over equal outputs takes the lower class. NTK look-ahead measures the change
    from the trained network's outputs, here `f0` with ``reference="start"``; where that network fits its
    labels exactly, both references are one.

    Examples
    --------
    >>> x = np.array([0, 1, 1.9, 3, 4, 5.2])
    >>> kernel = np.exp(-((x[:, None] - x) ** 2) / 2)
    >>> picks = look_ahead(kernel, [0, 0, 0, 1, 1, 1], [0], 2, tie_break="first")
    >>> picks.indices.tolist(), picks.info["risk"]
    ([4, 1], [0.0, 0.0])
    """
    for name, value, kinds in (
        ("objective", objective, Objective), ("reference", reference, Reference),
        ("tie_break", tie_break, TieBreak), ("dtype", dtype, Precision),
    ):  # fmt: skip
        checks.check_choice(name, value, get_args(kinds))
    check_objective(objective, tie_break, variance_weight=variance_weight, tie_tolerance=tie_tolerance, time=time)
    rng = checks.check_random_state(random_state)
    gram = _square(kernel)
    n = len(gram)
    labels = checks.check_rows("targets", targets, None, length=n)
    known = checks.check_rows("labeled", labeled, n)
    everyone = np.arange(n)
    rows = everyone if evaluation is None else checks.check_rows("evaluation", evaluation, n)
    free = np.setdiff1d(everyone if candidates is None else checks.check_rows("candidates", candidates, n), known)
    checks.check_n_instances(n_instances, len(free))
    wanted: torch.dtype = getattr(torch, dtype)
    if memory_budget is not None:
        in_place = gram.dtype == wanted and (overwrite_kernel or objective in _DEFERRED)
        needed = 0 if in_place else gram.numel() * wanted.itemsize
        _check_memory(n, needed, checks.check_integer("memory_budget", memory_budget))
    start = _start(labels, f0, gram)
    engine: Limit | FiniteTime | Deferred
    if objective in _DEFERRED:
        engine = Deferred(gram.to(wanted), known, start, labels, rows, n_picks=n_instances, rel_jitter=rel_jitter)
    elif time is None:
        prior = float(gram.diagonal()[rows].to(torch.float64).sum()) or 1.0  # before the kernel may be overwritten
        state = posterior(
            gram, known, one_hot(labels, start),
            f0=start, rel_jitter=rel_jitter, dtype=wanted, overwrite=overwrite_kernel,
        )  # fmt: skip
        engine = Limit(state, labels, rows, prior)
    else:
        engine = FiniteTime(gram.to(start), known, start, checks.check_positive("time", time), labels, rows)
    against = start if reference == "start" else None
    search = _Search(engine, objective, variance_weight, against, tie_break, tie_tolerance, rng)
    chosen = search.greedily(free, n_instances) if greedy else search.at_once(free, n_instances)
    chosen.info["jitter"] = engine.jitter
    return chosen


@dataclass
class _Search:
    # The best of the candidates by one objective, larger being better inside for all of them.
    engine: Limit | FiniteTime | Deferred
    objective: Objective
    variance_weight: float
    start: Tensor | None
    tie_break: TieBreak
    tie_tolerance: float
    rng: np.random.Generator

    def greedily(self, free: np.ndarray, n_instances: int) -> Selection:
        picks, scores, risks, ties = [], [], [], []
        for _ in progress.steps(range(n_instances), "look_ahead", "pick"):
            values = self._values(free)
            tied = np.flatnonzero(values >= values.max() - self.tie_tolerance * (1 + 1e-9))
            pick = int(self._order(free[tied])[0])
            picks.append(pick)
            ties.append(len(tied))
            scores.append(float(values[np.searchsorted(free, pick)]))
            self.engine.accept(pick)
            risks.append(self.engine.risk())
            free = free[free != pick]
        return self._selection(np.array(picks), np.array(scores), {"risk": risks, "ties": ties})

    def at_once(self, free: np.ndarray, n_instances: int) -> Selection:
        with progress.stage("look_ahead"):
            values = self._values(free)
        picks = np.empty(0, dtype=np.int64)
        # One level of equal scores after another, each in the order of its tie-break.
        for value in np.unique(values)[::-1]:
            if len(picks) < n_instances:
                picks = np.concatenate([picks, self._order(free[values == value])])
        picks = picks[:n_instances]
        return self._selection(picks, values[np.searchsorted(free, picks)], {})

    def _selection(self, picks: np.ndarray, values: np.ndarray, info: dict[str, Any]) -> Selection:
        return Selection(picks.astype(np.int64), -values if self.objective in _MINIMISED else values, info)

    def _values(self, free: np.ndarray) -> np.ndarray:
        values = self._plain_values(free)
        if self.variance_weight and not isinstance(self.engine, FiniteTime):
            values = values - self.variance_weight * self.engine.variance_left(free)
        return values

    def _plain_values(self, free: np.ndarray) -> np.ndarray:
        engine = self.engine
        if isinstance(engine, Deferred):
            return engine.variance_reduction(free) if self.objective == "variance" else -engine.squared_error(free)
        if self.objective in ("output_change", "squared_change"):
            return engine.output_change(free, squared=self.objective == "squared_change", reference=self.start)
        if self.objective == "risk":
            return -engine.mismatches(free, engine.labels) / len(engine.rows)
        reference = predicted_classes(engine.mean if self.start is None else self.start)
        return engine.mismatches(free, reference) / len(engine.rows)

    def _order(self, tied: np.ndarray) -> np.ndarray:
        if self.tie_break == "first" or len(tied) == 1:
            return tied
        if self.tie_break == "random":
            return self.rng.permutation(tied)
        engine = self.engine
        # Each engine knows one of the two at least, and check_objective has refused the other.
        if isinstance(engine, Deferred) or (isinstance(engine, Limit) and self.tie_break == "variance"):
            lead = engine.variance_reduction(tied)
        else:
            lead = engine.mean_margin(tied)
        return tied[np.lexsort((self.rng.random(len(tied)), -lead))]


def check_objective(
    objective: str, tie_break: str, *, variance_weight: float, tie_tolerance: float, time: float | None
) -> None:
    """Check that objective, tie-break and training time go together.

    Parameters
    ----------
    objective, tie_break, variance_weight, tie_tolerance, time
        As for `look_ahead`.

    Raises
    ------
    InvalidInputError
        If one is not defined beside another.
    """
    checks.check_number("tie_tolerance", tie_tolerance, maximum=1.0)
    if tie_tolerance and objective not in ("risk", "disagreement"):
        got = f"objective={objective!r}"
        raise checks.expected('a count ("risk" or "disagreement") for a tie_tolerance', got, "Leave it at zero.")
    if checks.check_number("variance_weight", variance_weight) and objective not in _MINIMISED:
        got = f"objective={objective!r}"
        raise checks.expected("an error (risk or squared_error) for a variance_weight", got, "Leave it at zero.")
    if time is not None and (objective in _DEFERRED or tie_break == "variance" or variance_weight):
        got = f"objective={objective!r}, tie_break={tie_break!r} and variance_weight={variance_weight} at time={time}"
        remedy = 'Leave time at None, or use objective="risk", tie_break="random" and variance_weight=0.'
        raise checks.expected("the limit of training time for squared error and posterior variance", got, remedy)
    if tie_break == "margin" and objective in _DEFERRED:
        got = f"objective={objective!r}"
        raise checks.expected('an objective of whole predictions for tie_break="margin"', got, 'Use "random".')


def _check_memory(n: int, needed: int, budget: int) -> None:
    if needed > budget:
        remedy = 'Pass fewer rows, dtype="float32", overwrite_kernel=True or a larger memory_budget.'
        got = f"{n} rows, whose covariance takes {needed} bytes"
        raise checks.expected(f"a covariance of at most {budget} bytes", got, remedy)


def _square(kernel: Any) -> Tensor:
    gram = torch.as_tensor(kernel)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.is_floating_point():
        got = f"{gram.dtype} of shape {tuple(gram.shape)}"
        raise checks.expected("a square kernel of floats", got, "Compute it over all rows at once.")
    if not all_finite(gram):
        raise checks.expected("a kernel of finite numbers", "NaN or infinity", "Check the net's outputs and gradients.")
    return gram


def _start(labels: np.ndarray, f0: Any, gram: Tensor) -> Tensor:
    n_classes = int(labels.max()) + 1
    if f0 is None:
        return torch.zeros(len(gram), n_classes, dtype=torch.float64, device=gram.device)
    start = torch.as_tensor(f0, dtype=torch.float64, device=gram.device)
    if not bool(start.isfinite().all()):
        raise checks.expected("f0 of finite numbers", "NaN or infinity", "Check the net's outputs.")
    if start.ndim != 2 or len(start) != len(gram) or start.shape[1] < n_classes:
        got = f"shape {tuple(start.shape)}"
        raise checks.expected(f"f0 of shape ({len(gram)}, {n_classes} or more)", got, "One column per class.")
    return start
