"""What the distance-based baselines share: the parameter ``features`` and what it needs."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, ClassVar

from modal_ntk.checks.parameters import Constraints
from modal_ntk.strategies.base import QueryStrategy
from modal_ntk.strategies.common import rows


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

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - labels change no need
        return self.needs | rows.needs_of(self.features)
