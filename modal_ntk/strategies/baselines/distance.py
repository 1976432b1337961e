"""What the distance-based baselines share: the parameter ``features`` and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from modal_ntk.checks.parameters import Constraints
from modal_ntk.strategies.base import QueryStrategy
from modal_ntk.strategies.common import rows

if TYPE_CHECKING:
    from modal_ntk.nets import NetView


class DistanceStrategy(QueryStrategy):
    """Base of strategies that see samples as points.

    Parameters
    ----------
    features : str or callable
        Where the points come from, see `modal_ntk.strategies.common.rows`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    _without: ClassVar[dict[str, dict[str, Any]]] = {"embedding": {"features": "input"}}
    features: Any
    _parameter_constraints: ClassVar[Constraints] = {
        "features": [str, callable],
    }

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:  # noqa: ARG002 - labels change no need
        return [need for need in sorted(self._needed()) if not view.offers(need)]

    def _needed(self) -> set[str]:
        return set(self.needs) | rows.needs_of(self.features)
