"""What strategies need that are made of others: to check these, and to hand a checked query on to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from modal_ntk import checks
from modal_ntk.strategies.base import Query, QueryStrategy

if TYPE_CHECKING:
    from modal_ntk.selection.result import Selection


def check_inner(name: str, strategy: Any) -> None:
    """Check a strategy that is a parameter of another, and its own parameters.

    Parameters
    ----------
    name : str
        The parameter's name.
    strategy : QueryStrategy
        Its value.

    Raises
    ------
    InvalidInputError
        If it is no instance of a strategy, or one of its parameters cannot be used.
    """
    if not isinstance(strategy, QueryStrategy):
        remedy = "Pass an instance, such as modal_ntk.NTKCPL() or modal_ntk.get_strategy('margin')."
        raise checks.expected(f"{name} to be a strategy", repr(strategy), remedy)
    checks.check_parameters(strategy)


def seeded_copy(strategy: Any, seed: int) -> Any:
    """Return a copy of a strategy, of this library or not, with a seed where it takes one and has none.

    Parameters
    ----------
    strategy : callable
        The strategy; not changed.
    seed : int
        The seed.

    Returns
    -------
    callable
        The copy.

    Raises
    ------
    InvalidInputError
        If it is no strategy, or the class of one.
    """
    checks.check_query_strategy(strategy)
    copy = clone(strategy, safe=False)
    parameters = copy.get_params(deep=False) if hasattr(copy, "get_params") else {}
    return copy.set_params(random_state=seed) if parameters.get("random_state", 0) is None else copy


def delegate(strategy: QueryStrategy, query: Query, **changes: Any) -> Selection:
    """Have another strategy choose, from a query that has been checked.

    Parameters
    ----------
    strategy : QueryStrategy
        Who chooses; cloned, so that it stays as the user made it.
    query : Query
        What was asked.
    **changes : Any
        Fields of the query that differ.

    Returns
    -------
    Selection
        With indices in the pool that the changed query has.

    Notes
    -----
    A strategy without a seed of its own draws from the generator of `query`, so that one seed outside is enough.
    """
    chooser = clone(strategy)
    rng = query.child_rng() if chooser.random_state is None else checks.check_random_state(chooser.random_state)
    return chooser._select(replace(query, **{"rng": rng, **changes}))
