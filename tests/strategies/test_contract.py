"""Every registered strategy keeps the whole contract."""

from __future__ import annotations

import modal_ntk
from modal_ntk.testing import parametrize_with_checks


@parametrize_with_checks([registered.spec.factory() for registered in modal_ntk.list_strategies()])
def test_contract(strategy, check):
    """Each clause holds in each of its cases."""
    check(strategy)
