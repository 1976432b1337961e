"""Active learning by learning: a bandit that learns which of several strategies to ask."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.utils.metaestimators import _BaseComposition

from modal_ntk import checks, nets
from modal_ntk.checks.parameters import COUNT, POSITIVE, Constraints, Interval, StrOptions
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.baselines.bandit import Turn, arm_probabilities, grown, grown_of_one
from modal_ntk.strategies.baselines.coreset import CoreSet
from modal_ntk.strategies.baselines.random_sampling import RandomSampling
from modal_ntk.strategies.baselines.scores.least_confidence import LeastConfidence
from modal_ntk.strategies.wrappers.wrapping import check_inner, delegate

if TYPE_CHECKING:
    from modal_ntk.nets import NetView

Arms = Sequence[tuple[str, QueryStrategy]]


@dataclass(eq=False, repr=False)
class ALBL(_BaseComposition, QueryStrategy):
    """Ask one of several strategies each time, and learn from the labels which of them to ask.

    Parameters
    ----------
    strategies : list of (str, QueryStrategy) or None, default=None
        The arms, by name: ``ALBL([("margin", Margin()), ("ntkcpl", NTKCPL())])``. Their parameters are reached as
        ``name__parameter``. None: CoreSet and least confidence, as dynamicAL compares with.
    variant : {"paper", "deep"}, default="paper"
        "paper": every arm is asked, and earns by what it would have chosen. "deep": only the arm that chooses is
        asked, and earns alone, as in the version for deep nets that dynamicAL and BADGE compare with.
    n_rounds : int, default=100
        Number of queries planned, T; it sets how much is tried out. More queries than that are answered all the same.
    delta : float, default=0.1
        The guarantee of Exp4.P holds with probability 1 - delta; in (0, 1].
    p_min : float or None, default=None
        The least probability of an arm, at most 1 / K with K arms. None: "paper", sqrt(ln K / (K T)), or 1 / K if that
        is less; "deep", 1 / (10 K).
    uniform_arm : bool or None, default=None
        Whether uniform sampling is one more arm, the last; with it every sample has a chance, as importance
        weights need. None: for "paper".
    random_state : int, numpy generator or None, default=None
        Seed of the draw of arms, and of the arms that have none of their own.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Attributes
    ----------
    history_ : list of Turn
        The queries whose labels were seen, and the one before last; what is learned is computed from it.

    Notes
    -----
    Hsu, Lin, "Active Learning by Learning", with Exp4.P of Beygelzimer et al., algorithm 1. A query is drawn with the
    probabilities p_k of the arms; with q_i the probability that sample i is queried, the reward is the
    importance-weighted accuracy of the present model on all samples queried so far, sum_i [correct] / q_i over the
    number of samples times T. The paper queries one sample at a time; of a batch, chosen by one arm as a whole, q_i is
    the probability that i is in it, and an arm earns the mean over the batch. "deep": the reward is the mean over
    all labelled samples of [correct] / (probability of the arm that chose it), 1 for those that no arm chose.

    The reward of a query is read off the labelled set at the next one. Samples are known again by their values. What
    was queried and not taught is forgotten: the same query again, without new labels, gives the same picks, and a
    strategy that has served one data set begins anew with the next. Copies by pickle go on where they were;
    clones begin anew.

    Scores are those of the arm. ``info`` is the arm's, with ``arm``, ``arms``, ``probabilities``, ``weights`` (the
    largest being 1), ``reward`` (the latest; None before the first) and ``n_rewards``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import ActiveLearner, Margin
    >>> pool = np.arange(1.0, 20.0)[:, None]
    >>> bandit = ALBL([("margin", Margin())], random_state=0)
    >>> learner = ActiveLearner(LogisticRegression(), bandit, [[0.0], [20.0]], [0, 1])
    >>> for _ in range(3):
    ...     indices, rows = learner.query(pool)
    ...     learner.teach(rows, (rows[:, 0] > 8).astype(int))
    ...     pool = np.delete(pool, indices, axis=0)
    >>> [turn.reward is not None for turn in learner.query_strategy.history_]
    [True, True, False]
    """

    _parameter_constraints: ClassVar[Constraints] = {
        "variant": [StrOptions({"paper", "deep"})],
        "n_rounds": [COUNT],
        "delta": [Interval(Real, 0, 1, closed="right")],
        "p_min": [POSITIVE, None],
        "uniform_arm": ["boolean", None],
    }

    strategies: Arms | None = None
    _: KW_ONLY
    variant: Literal["paper", "deep"] = "paper"
    n_rounds: int = 100
    delta: float = 0.1
    p_min: float | None = None
    uniform_arm: bool | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep`` the arms by name and theirs too."""
        params: dict[str, Any] = self._get_params("strategies", deep=deep)
        return params

    def set_params(self, **params: Any) -> ALBL:
        """Set parameters, arms by their name, and theirs as ``name__parameter``."""
        self._set_params("strategies", **params)
        return self

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the arms need, and predictions, of which rewards are made."""
        return frozenset({"predictions"}).union(*(arm.needs for _, arm in self._arms()))

    def _check_together(self) -> None:
        if self.strategies is not None:
            self._check_arms()
        n_arms = len(self._arms())
        if self.p_min is not None and self.p_min > 1 / n_arms:
            raise checks.expected(f"p_min to be at most 1 / {n_arms}, one share of each arm", self.p_min, "Lower it.")

    def _check_arms(self) -> None:
        remedy = "Pass a list such as [('margin', Margin()), ('ntkcpl', NTKCPL())]."
        arms = self.strategies
        pairs = isinstance(arms, (list, tuple)) and all(isinstance(arm, tuple) and len(arm) == 2 for arm in arms)
        if not pairs or not arms:
            raise checks.expected("strategies to be a list of pairs of name and strategy", repr(arms), remedy)
        names = [name for name, _ in arms]
        good = all(isinstance(name, str) and name.isidentifier() and "__" not in name for name in names)
        if not good or len(set(names)) < len(names) or set(names) & {*self._get_param_names(), "uniform"}:
            got = ", ".join(repr(name) for name in names)
            what = "distinct identifiers as names of strategies, none of them 'uniform' or a parameter's"
            raise checks.expected(what, got, remedy)
        for name, arm in arms:
            check_inner(name, arm)

    def _arms(self) -> list[tuple[str, QueryStrategy]]:
        of_dynamical = [("coreset", CoreSet()), ("least_confidence", LeastConfidence())]
        arms = list(of_dynamical if self.strategies is None else self.strategies)
        if self.variant == "paper" if self.uniform_arm is None else self.uniform_arm:
            arms.append(("uniform", RandomSampling()))
        return arms

    def _least_probability(self, n_arms: int) -> float:
        if self.p_min is not None:
            return self.p_min
        if self.variant == "deep":
            return 1 / (10 * n_arms)
        return float(min(np.sqrt(np.log(n_arms) / (n_arms * self.n_rounds)), 1 / n_arms))

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:
        of_arms = (need for _, arm in self._arms() for need in arm._unmet(view, n_labeled))
        return sorted({*super()._unmet(view, n_labeled), *of_arms})

    def _select(self, query: Query) -> Selection:
        arms = self._arms()
        rows = _rows_by_digest(query.X_labeled)
        turns = self._rewarded(query, rows, len(arms))
        p_min, log_weights = self._least_probability(len(arms)), np.zeros(len(arms))
        learnt: Any = partial(grown, n_rounds=self.n_rounds) if self.variant == "paper" else grown_of_one
        for turn in turns:
            log_weights = learnt(log_weights, turn, p_min=p_min, delta=self.delta)
        probabilities = arm_probabilities(log_weights, p_min)
        chosen = int(query.child_rng().choice(len(arms), p=probabilities))
        selected, advice = self._ask(query, [arm for _, arm in arms], chosen)
        # In the deep variant only the arm that chose has advice, so this is its probability.
        chances = probabilities @ advice
        samples = nets.row_digests(nets.take_rows(query.X_pool, selected.indices))
        places = _places(samples, rows)
        turn = Turn(chosen, probabilities, samples, places, chances, advice, query.n_labeled)
        self.history_ = [*turns, turn]
        info = {
            "arm": arms[chosen][0],
            "arms": [name for name, _ in arms],
            "probabilities": probabilities,
            "weights": np.exp(log_weights - log_weights.max()),
            "reward": turns[-1].reward if turns else None,
            "n_rewards": len(turns),
        }
        return Selection(selected.indices, selected.scores, {**selected.info, **info})

    def _ask(self, query: Query, arms: list[QueryStrategy], chosen: int) -> tuple[Selection, np.ndarray]:
        # What the arm chose, and with which probability each arm would have chosen each of these (K, b).
        advice = np.zeros((len(arms), query.n_instances))
        if self.variant == "deep":
            advice[chosen] = 1.0
            return delegate(arms[chosen], query), advice
        answers = [delegate(arm, query) for arm in arms]
        for k, (arm, answer) in enumerate(zip(arms, answers, strict=True)):
            # A draw is one of many that the uniform arm might have made; what counts is their probability.
            share = query.n_instances / query.n_pool
            uniform = isinstance(arm, RandomSampling)
            advice[k] = share if uniform else np.isin(answers[chosen].indices, answer.indices)
        return answers[chosen], advice

    def _rewarded(self, query: Query, rows: dict[bytes, list[int]], n_arms: int) -> list[Turn]:
        # The turns whose labels are there, the latest with the reward that the present model gives it.
        turns: list[Turn] = []
        found: list[list[int | None]] = []
        for turn in getattr(self, "history_", []):
            pairs = zip(turn.samples, turn.places, strict=True)
            at = [rows[sample][place] if place < len(rows.get(sample, ())) else None for sample, place in pairs]
            if len(turn.probabilities) != n_arms or all(row is None for row in at):
                self._tell(turn, query, n_arms)
                break
            turns.append(turn)
            found.append(at)
        if not turns:
            return turns
        view = query.view
        predicted = view.labels_at(view.predictions(query.X_labeled).numpy(), view.n_outputs(query.X_labeled))
        correct = np.asarray(predicted == query.y_labeled, dtype=np.float64)
        turns[-1] = replace(turns[-1], reward=self._reward(query, turns, found, correct))
        return turns

    def _reward(self, query: Query, turns: list[Turn], found: list[list[int | None]], correct: np.ndarray) -> float:
        weights = np.ones(query.n_labeled) if self.variant == "deep" else np.zeros(query.n_labeled)
        for turn, at in zip(turns, found, strict=True):
            for row, chance in zip(at, turn.chances, strict=True):
                if row is not None:
                    weights[row] = 1 / chance
        total = float(weights @ correct)
        if self.variant == "deep":
            return total / query.n_labeled
        return total / ((query.n_labeled + query.n_pool) * self.n_rounds)

    @staticmethod
    def _tell(turn: Turn, query: Query, n_arms: int) -> None:
        # The same labels as then mean that the query was never taught, which is nothing to be told.
        if len(turn.probabilities) != n_arms:
            text = "The number of arms has changed, so what was learned from earlier queries is left out."
        elif query.n_labeled > turn.n_labeled:
            text = (
                "None of the samples chosen by an earlier query is among the labelled ones, though their number has "
                "grown: what was learned since is left out. Teach the samples as they are in the pool."
            )
        else:
            return
        warnings.warn(text, ModalNTKWarning, stacklevel=2)


def _rows_by_digest(X_labeled: Any) -> dict[bytes, list[int]]:
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate([] if X_labeled is None else nets.row_digests(X_labeled)):
        rows[digest].append(row)
    return dict(rows)


def _places(samples: list[bytes], rows: dict[bytes, list[int]]) -> list[int]:
    # New labels come after old ones, so the place of a sample among its equals tells which row it will be.
    seen = {sample: len(rows.get(sample, ())) for sample in samples}
    places = []
    for sample in samples:
        places.append(seen[sample])
        seen[sample] += 1
    return places


albl = ALBL()
modal_ntk_strategies = announced(
    albl, "a bandit over strategies, rewarded by the labels", "Hsu, Lin; baseline of dynamicAL"
)
