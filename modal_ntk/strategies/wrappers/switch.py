"""One strategy while labels are few, another once there are more, as a strategy of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modal_ntk import checks
from modal_ntk.strategies.base import Query, QueryStrategy, Selection
from modal_ntk.strategies.wrappers.wrapping import check_inner, delegate

if TYPE_CHECKING:
    from modal_ntk.nets import NetView

Stages = Sequence[tuple[QueryStrategy, int | None]]


@dataclass(eq=False, repr=False)
class Switch(QueryStrategy):
    """Let one strategy after another choose, by the number of labels there are.

    Parameters
    ----------
    stages : list of (QueryStrategy, int or None)
        Strategies in turn, each with the number of labels at which the next takes over; the last goes on for ever, and
        its number is None or not looked at. Strategies are reached as ``strategy_0``, their parameters as
        ``strategy_0__name``, their numbers as ``until_0``.
    random_state : int, numpy generator or None, default=None
        Seed of the strategies that have none of their own.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    A whole query is one strategy's, that of the number of labels when it is asked. Only that strategy's needs must be
    met. ``info`` is its own, with its position as ``stage`` and its class's name as ``strategy``.

    Examples
    --------
    >>> import numpy as np
    >>> from modal_ntk import Margin, TypiClust
    >>> strategy = Switch([(TypiClust(), 50), (Margin(), None)], random_state=0)
    >>> strategy.select(None, np.arange(12.0).reshape(6, 2), 2).info["strategy"]
    'TypiClust'
    >>> strategy.set_params(until_0=20, strategy_0__n_neighbors=10).stages[0]
    (TypiClust(n_neighbors=10), 20)
    """

    stages: Stages

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep`` the strategies, their numbers and their parameters too."""
        params: dict[str, Any] = super().get_params(deep=False)
        for i, (strategy, until) in enumerate(self.stages if deep else ()):
            params |= {f"strategy_{i}": strategy, f"until_{i}": until}
            params |= {f"strategy_{i}__{name}": value for name, value in strategy.get_params(deep=True).items()}
        return params

    def set_params(self, **params: Any) -> Switch:
        """Set parameters: ``stages``, then ``strategy_0`` or ``until_0``, then ``strategy_0__parameter``."""
        own = {name: params.pop(name) for name in ("stages", "random_state", "verbose") if name in params}
        super().set_params(**own)
        if any(name.startswith(("strategy_", "until_")) for name in params):
            self.stages = [
                (params.pop(f"strategy_{i}", strategy), params.pop(f"until_{i}", until))
                for i, (strategy, until) in enumerate(self.stages)
            ]
        # What is left is a strategy's parameter, or unknown: scikit-learn sorts these out by their prefix.
        super().set_params(**params)
        return self

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the strategies need, one or another of them."""
        return frozenset().union(*(strategy.needs for strategy, _ in self.stages))

    def _check_together(self) -> None:
        remedy = "Pass a list such as [(TypiClust(), 50), (Margin(), None)]."
        pairs = isinstance(self.stages, (list, tuple)) and all(
            isinstance(stage, (list, tuple)) and len(stage) == 2 for stage in self.stages
        )
        if not pairs or not self.stages:
            what = "stages to be a list of pairs of strategy and number of labels"
            raise checks.expected(what, repr(self.stages), remedy)
        before = 0
        for i, (strategy, until) in enumerate(self.stages):
            check_inner(f"strategy_{i}", strategy)
            if i < len(self.stages) - 1 or until is not None:
                number = checks.check_integer(f"until_{i}", until)
                if number <= before:
                    raise checks.expected(f"until_{i} above the number before it, {before}", number, remedy)
                before = number

    def _at(self, n_labeled: int) -> int:
        """Return the position of the stage that chooses."""
        numbers = [until for _, until in self.stages[:-1]]
        return sum(n_labeled >= until for until in numbers if until is not None)

    def _check_needs(self, view: NetView, n_labeled: int) -> None:
        self.stages[self._at(n_labeled)][0]._check_needs(view, n_labeled)

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:
        return self.stages[self._at(n_labeled)][0]._unmet(view, n_labeled)

    def _select(self, query: Query) -> Selection:
        stage = self._at(query.n_labeled)
        strategy = self.stages[stage][0]
        selected = delegate(strategy, query)
        selected.info.update(stage=stage, strategy=type(strategy).__name__)
        return selected
