"""Any strategy over a part of a large pool, as a strategy of its own."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from modal_ntk import nets, selection
from modal_ntk.checks.parameters import COUNT, Constraints, StrOptions
from modal_ntk.strategies.base import Query, QueryStrategy, Selection
from modal_ntk.strategies.baselines.scores.margin import Margin
from modal_ntk.strategies.wrappers.wrapping import check_inner, delegate

if TYPE_CHECKING:
    from modal_ntk.nets import NetView

_NEEDS = {"random": None, "uncertain": "probabilities", "class_balanced": "predictions"}


@dataclass(eq=False, repr=False)
class CandidateSubset(QueryStrategy):
    """Let a strategy choose from a part of the pool, where the whole of it would take too long or too much memory.

    Parameters
    ----------
    strategy : QueryStrategy
        What chooses from the part. Its parameters are reached as ``strategy__name``.
    n_candidates : int, default=1000
        Size of the part; the whole pool where that is smaller, and never less than the batch.
    how : {"random", "uncertain", "class_balanced"}, default="random"
        What the part is: drawn uniformly without replacement; the samples whose two most probable classes are
        closest; or drawn with as many samples of each predicted class as there are, up to equal shares.
    random_state : int, numpy generator or None, default=None
        Seed of the draw and of ties; and of the strategy, where that has none of its own.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Indices are those of the whole pool. ``info`` is the strategy's, with the size of the part as ``n_subset``.
    The part keeps the pool's order, so a part as large as the pool leaves a seeded strategy's picks as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from modal_ntk import NTKCPL
    >>> X = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")
    >>> selected = CandidateSubset(NTKCPL(), n_candidates=50, random_state=0).select(None, X, 5)
    >>> selected.info["n_subset"], selected.info["n_candidates"]
    (50, 50)
    """

    _parameter_constraints: ClassVar[Constraints] = {
        "n_candidates": [COUNT],
        "how": [StrOptions(set(_NEEDS))],
    }

    strategy: QueryStrategy
    n_candidates: int = 1000
    _: KW_ONLY
    how: Literal["random", "uncertain", "class_balanced"] = "random"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the inner strategy needs, and what drawing the part does."""
        own = _NEEDS.get(self.how)
        return self.strategy.needs | ({own} if own else set())

    def _check_together(self) -> None:
        check_inner("strategy", self.strategy)

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:
        return sorted({*super()._unmet(view, n_labeled), *self.strategy._unmet(view, n_labeled)})

    def _select(self, query: Query) -> Selection:
        rows = self._candidates(query)
        inner = delegate(self.strategy, query, X_pool=nets.take_rows(query.X_pool, rows))
        return Selection(rows[inner.indices], inner.scores, {**inner.info, "n_subset": len(rows)})

    def _candidates(self, query: Query) -> np.ndarray:
        size = max(self.n_candidates, query.n_instances)
        if size >= query.n_pool:
            return np.arange(query.n_pool)
        if self.how == "random":
            rows = query.rng.choice(query.n_pool, size, replace=False)
        elif self.how == "uncertain":
            scores = Margin._pool_scores(query)
            rows = selection.top_b(scores, size, rng=query.rng)
        else:
            rows = _balanced(query.view.predictions(query.X_pool).numpy(), size, query.rng)
        return np.sort(rows)


def _balanced(classes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    # A sample's turn is its place in a random order of its class; whole turns come before the next.
    order = rng.permutation(len(classes))
    turn = np.empty(len(classes), dtype=np.int64)
    for label in np.unique(classes):
        members = order[classes[order] == label]
        turn[members] = np.arange(len(members))
    # `order` makes the last turn, which not every class gets to, a draw among the classes.
    return order[np.argsort(turn[order], kind="stable")[:size]]
