"""Inner rounds of DDAL: diffuse the labels there are, take the rows they say least about, label these, again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.special import xlogy

from modal_ntk import checks, progress, structure
from modal_ntk.selection.result import Selection
from modal_ntk.selection.top import best, top_b

if TYPE_CHECKING:
    from modal_ntk.structure.graphs.diffusion import Mode

Criterion = Literal["min", "norm", "max_probability", "margin", "entropy"]
ONE_VS_ALL = ("min", "norm")
CRITERIA = (*ONE_VS_ALL, "max_probability", "margin", "entropy")
TieBreak = Literal["random", "farthest"]
Oracle = Callable[[np.ndarray], Any]


def certainty(values: np.ndarray, criterion: Criterion, norm_order: float = 2.0) -> np.ndarray:
    """Return how much diffused labels say about each row.

    Parameters
    ----------
    values : numpy.ndarray (n, C)
        One-vs-all values for "min" and "norm", probabilities for the others.
    criterion : {"min", "norm", "max_probability", "margin", "entropy"}
        The least absolute value; the norm; the largest probability; the gap of the two largest; sum p log p.
    norm_order : float, default=2.0
        The p of "norm".

    Returns
    -------
    numpy.ndarray (n,)
        The smaller, the less certain.

    Examples
    --------
    >>> p = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    >>> [certainty(p, name).round(3).tolist() for name in ("max_probability", "margin", "entropy")]
    [[0.5, 1.0], [0.25, 1.0], [-1.04, 0.0]]
    """
    if criterion == "min":
        # Column by column: reducing rows of a few numbers is several times slower.
        least = np.abs(values[:, 0])
        for column in values.T[1:]:
            np.minimum(least, np.abs(column), out=least)
        return least
    if criterion == "norm":
        return np.asarray(np.linalg.norm(values, ord=norm_order, axis=1))
    if criterion == "max_probability":
        return np.asarray(values.max(axis=1))
    if criterion == "margin":
        top = np.partition(values, -2, axis=1)[:, -2:]
        return np.asarray(top[:, 1] - top[:, 0])
    return np.asarray(xlogy(values, values).sum(axis=1))


def select_by_diffusion(
    transition: sp.csr_matrix,
    labeled: Any,
    labels: Any,
    n_instances: int,
    *,
    n_steps: int,
    candidates: Any = None,
    n_classes: int = 2,
    criterion: Criterion = "min",
    norm_order: float = 2.0,
    tol: float | None = None,
    per_round: int | None = None,
    oracle: Oracle | None = None,
    tie_break: TieBreak = "random",
    device: Any = "cpu",
    random_state: Any = None,
) -> Selection:
    """Choose the rows of a graph about which diffused labels say least.

    Parameters
    ----------
    transition : sparse matrix (n, n)
        Rows that sum to one; see ``structure.knn_transition``.
    labeled : array-like (l,)
        Row numbers of the labelled rows.
    labels : array-like (l,)
        Their labels, of any kind.
    n_instances : int
        How many to choose.
    n_steps : int
        Diffusion steps.
    candidates : array-like (m,), optional
        Rows that may be chosen, none of them labelled; by default all that are not.
    n_classes : int, default=2
        Least number of classes; as many as there are labels, if these are more.
    criterion, norm_order : optional
        See `certainty`.
    tol : float or None, default=None
        See ``structure.diffuse``.
    per_round : int or None, default=None
        Rows chosen between two diffusions; None chooses all at once.
    oracle : callable or None, default=None
        From positions in `candidates` (k,) to k labels, asked after every round, the last too. None labels each
        chosen row with its largest diffused class, ties and unreached rows at random.
    tie_break : {"random", "farthest"}, default="random"
        Among equal scores by seed, or most hops from labelled and chosen rows first.
    device : torch.device or str, default="cpu"
        Where to multiply: by SciPy on the CPU, else by torch.
    random_state : int, numpy generator or None, default=None
        Seed.

    Returns
    -------
    Selection
        Positions in `candidates`, in the order chosen; scores at the time of the choice, smaller first in each
        round. ``info``: ``n_classes``; ``hops`` (candidates 1, 2, ..., n_steps hops from a label) and
        ``n_unreached`` before the first round; ``n_components`` of the graph and ``n_uncovered``, how many of
        them hold candidates and no label; ``stage``; ``n_explored``, how many of the chosen were unreached by
        labels and earlier rounds; ``n_rounds``; ``labels``, what the oracle said.

    Raises
    ------
    InvalidInputError
        If an argument cannot be used.

    Notes
    -----
    A component of the graph that holds no label can be reached from nowhere, so all its rows score least. Each
    such component gets one row, drawn from all of them at random, before any other row is chosen.

    Examples
    --------
    >>> chain = structure.knn_transition(np.arange(5.0)[:, None], 2)
    >>> selected = select_by_diffusion(chain, [0, 4], ["a", "b"], 1, n_steps=3)
    >>> selected.indices.tolist(), selected.info["stage"], selected.info["hops"]   # the middle of the chain
    ([1], 'refining', [2, 1, 0])
    """
    n = transition.shape[0]
    seen = _Labels(labeled, labels, n_classes, n)
    n_steps = checks.check_integer("n_steps", n_steps)
    checks.check_choice("criterion", criterion, CRITERIA)
    checks.check_choice("tie_break", tie_break, ("random", "farthest"))
    rng = checks.check_random_state(random_state)
    known = np.zeros(n, dtype=bool)
    known[seen.rows] = True
    rows = np.flatnonzero(~known) if candidates is None else checks.check_rows("candidates", candidates, n)
    if known[rows].any():
        raise checks.expected("candidates without a label", "labelled ones", "Pass unlabelled rows only.")
    left = checks.check_n_instances(n_instances, len(rows))
    per_round = left if per_round is None else checks.check_integer("per_round", per_round, optional=True)
    mode: Mode = "one_vs_all" if criterion in ONE_VS_ALL else "multivariate"
    diffuse: Callable[..., Any]
    if str(device) == "cpu" and tol is None and per_round < left:
        diffuse = structure.GrowingDiffusion(transition, n_steps, mode)
    else:
        matrix = transition if str(device) == "cpu" else structure.as_torch(transition, device)
        diffuse = partial(structure.diffuse, matrix, n_steps=n_steps, mode=mode, tol=tol)
    rounds = _Rounds(transition, seen, rows, n_steps, tie_break, rng)
    with progress.stage("picks", left):
        while left > 0:
            with progress.stage("diffusion"):
                values = diffuse(seen.rows, seen.codes, seen.n_classes)
            values = values.cpu().numpy() if hasattr(values, "cpu") else values
            scores = certainty(values, criterion, norm_order)[rows].astype(np.float64)
            picks = rounds.choose(scores, min(per_round, left))
            # The last picks need no guesses, but an oracle is asked about them too.
            if oracle is not None or len(picks) < left:
                rounds.answer(picks, values, oracle)
            progress.advance(len(picks))
            left -= len(picks)
    return Selection(rounds.chosen, rounds.scores, rounds.info)


class _Labels:
    # Labelled rows and their classes, numbered in the order in which they were first seen.
    def __init__(self, rows: Any, labels: Any, n_classes: int, n: int) -> None:
        self.rows = checks.check_rows("labeled", rows, n)
        self.least = max(2, checks.check_integer("n_classes", n_classes))
        self._numbers: dict[Any, int] = {}
        self.codes = self._codes(checks.check_labels(labels, len(self.rows)))

    @property
    def n_seen(self) -> int:
        return len(self._numbers)

    @property
    def n_classes(self) -> int:
        return max(self.least, self.n_seen)

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        numbers = [self._numbers.setdefault(label, len(self._numbers)) for label in labels.tolist()]
        return np.array(numbers, np.int64)

    def add(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.add_codes(rows, self._codes(labels))

    def add_codes(self, rows: np.ndarray, codes: np.ndarray) -> None:
        self.rows, self.codes = np.concatenate([self.rows, rows]), np.concatenate([self.codes, codes])


class _Rounds:
    # What goes on from one inner round to the next: labels, distances, what was chosen.
    def __init__(
        self,
        transition: sp.csr_matrix,
        labels: _Labels,
        candidates: np.ndarray,
        n_steps: int,
        tie_break: TieBreak,
        rng: np.random.Generator,
    ) -> None:
        self.labels, self.candidates, self.rng = labels, candidates, rng
        self.n_steps, self.tie_break = n_steps, tie_break
        self.chosen, self.scores = np.zeros(0, np.int64), np.zeros(0)
        self._free = np.ones(len(candidates), dtype=bool)
        # Only the farthest of all need distances beyond the steps of a diffusion.
        limit = n_steps if tie_break == "random" else None
        with progress.stage("hops"):
            self.hops = structure.HopDistances(transition, labels.rows, max_hops=limit)
            n_components, self._component = connected_components(transition, directed=True, connection="weak")
        self._uncovered = np.zeros(n_components, dtype=bool)
        self._uncovered[self._component[candidates]] = True
        self._uncovered[self._component[labels.rows]] = False
        self.info: dict[str, Any] = self._reach()

    def choose(self, scores: np.ndarray, size: int) -> np.ndarray:
        """Take `size` candidates and return their positions, by the score of each candidate."""
        reached = self.hops.hops[self.candidates] <= self.n_steps
        picks = self._entered(size)
        if len(picks) < size:
            free, more = np.flatnonzero(self._free), size - len(picks)
            if self.tie_break == "farthest":
                found = self._farthest(scores[free], self.candidates[free], more)
            else:
                found = top_b(-scores[free], more, rng=self.rng)
            picks = np.concatenate([picks, free[found]])
            self._free[picks] = False
        self.chosen, self.scores = np.concatenate([self.chosen, picks]), np.concatenate([self.scores, scores[picks]])
        self.info["n_explored"] += int((~reached[picks]).sum())
        self.info["n_rounds"] += 1
        return picks

    def answer(self, picks: np.ndarray, values: np.ndarray, oracle: Oracle | None) -> None:
        """Label what was chosen, by the oracle or for the time being."""
        rows = self.candidates[picks]
        if oracle is None:
            self.labels.add_codes(rows, self._guessed(values[rows]))
        else:
            answers = checks.check_labels(oracle(picks.copy()), len(picks))
            self.labels.add(rows, answers)
            self.info.setdefault("labels", []).extend(answers.tolist())
        if self.tie_break == "random":
            self.hops.add(rows)

    def _guessed(self, values: np.ndarray) -> np.ndarray:
        # Classes never seen have no largest value; without any label every class is as good.
        values = values[:, : self.labels.n_seen or self.labels.n_classes]
        tied = values == values.max(axis=1, keepdims=True)
        return np.where(tied, self.rng.random(values.shape), -1.0).argmax(axis=1)

    def _entered(self, size: int) -> np.ndarray:
        # One row of each component that has no label yet, as shuffled rows meet them.
        if not self._uncovered.any():
            return np.zeros(0, np.int64)
        rows = self.rng.permutation(np.flatnonzero(self._uncovered[self._component[self.candidates]]))
        first = np.unique(self._component[self.candidates[rows]], return_index=True)[1]
        picks = rows[np.sort(first)[:size]]
        self._free[picks] = False
        self._uncovered[self._component[self.candidates[picks]]] = False
        if self.tie_break == "farthest":
            self.hops.add(self.candidates[picks])
        return picks

    def _farthest(self, scores: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
        # One at a time: every pick brings its surroundings nearer.
        left, picks = scores.copy(), np.empty(size, np.int64)
        for i in range(size):
            tied = best(-left)
            picks[i] = self.rng.choice(tied[best(self.hops.hops[rows[tied]])])
            left[picks[i]] = np.inf
            self.hops.add(rows[picks[i : i + 1]])
        return picks

    def _reach(self) -> dict[str, Any]:
        hops = np.minimum(self.hops.hops[self.candidates], self.n_steps + 1)
        counts = np.bincount(hops, minlength=self.n_steps + 2)
        return {
            "stage": "exploring" if counts[-1] else "refining",
            "n_unreached": int(counts[-1]),
            "hops": counts[1:-1].tolist(),
            "n_components": len(self._uncovered),
            "n_uncovered": int(self._uncovered.sum()),
            "n_classes": self.labels.n_classes,
            "n_explored": 0,
            "n_rounds": 0,
        }
