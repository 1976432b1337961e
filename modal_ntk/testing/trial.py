"""One clause being tried: the strategy, the case, and the learners to try it with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import SkipTest

import modAL.models
import numpy as np
from sklearn.base import clone

from modal_ntk import checks, nets
from modal_ntk.errors import ContractError, UnmetNeedError
from modal_ntk.hooks import NEEDS
from modal_ntk.testing.situations import Situation, skorch_net, taught

Situations = Mapping[str, Callable[[], Situation]]

SEED = 3


@dataclass(frozen=True)
class Trial:
    """What a clause is given.

    Parameters
    ----------
    strategy : QueryStrategy
        What is tried; clauses work on copies.
    case : str
        In which circumstances.
    learners : mapping of str to callable
        What builds the learners to try.
    """

    strategy: Any
    case: str
    learners: Situations

    def fresh(self) -> Any:
        """Return an unused copy with a seed, where the strategy has one."""
        copy = clone(self.strategy)
        return copy.set_params(random_state=SEED) if "random_state" in copy.get_params() else copy

    def home(self) -> Situation:
        """Return the first learner that the strategy works for."""
        asked = (repr(self.strategy), tuple(self.learners))
        if asked not in _HOMES:
            _HOMES[asked] = self._first_that_works()
        # Built anew, for the attempt itself may have left a trace.
        return self.learners[_HOMES[asked]]()

    def _first_that_works(self) -> str:
        for name, build in self.learners.items():
            with contextlib.suppress(UnmetNeedError):
                build().select(self.fresh(), 1)
                return name
        raise ContractError(
            "Expected a learner that the strategy works for, got none. Pass learners= if it needs its own."
        )

    def with_net(self) -> Situation:
        """Return that learner, or one with a net where it has none."""
        situation = self.home()
        return situation if nets.NetView(situation.learner).net is not None else taught(skorch_net())

    def queryable(self) -> Situation:
        """Return that learner, if modAL's learner can hold it and its pool."""
        situation = self.home()
        if isinstance(situation.X_pool, dict) or isinstance(situation.learner, modAL.models.Committee):
            raise SkipTest("modAL's learner cannot hold what this strategy works for")
        return situation


_HOMES: dict[tuple[str, tuple[str, ...]], str] = {}
# Which learner a strategy works for is asked by most clauses, and costs a query to find out.


@dataclass(frozen=True)
class Clause:
    """One sentence of the contract, with the cases in which it is tried.

    Parameters
    ----------
    name : str
        Short name.
    law : str
        The sentence.
    cases : tuple of str
        Inputs or other circumstances; ``("learners",)`` for every learner.
    body : callable
        Raises `ContractError` if the law is broken.
    """

    name: str
    law: str
    cases: tuple[str, ...]
    body: Callable[[Trial], None]


CLAUSES: list[Clause] = []
"""Every clause, once `modal_ntk.testing.clauses` is imported."""


def clause(*cases: str) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Enter a function as a clause; its docstring's first line is the law."""

    def enter(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        law = (function.__doc__ or "").splitlines()[0]
        CLAUSES.append(Clause(function.__name__, law, cases or ("",), function))
        return function

    return enter


def require(condition: bool, expected: str, got: Any) -> None:
    """Raise `ContractError` if a condition does not hold."""
    if not condition:
        raise ContractError(f"Expected {expected}, got {got}.")


def check_form(selected: Any, n_instances: int, n_pool: int) -> None:
    """Require what every selection must be."""
    indices, scores = selected.indices, selected.scores
    require(isinstance(indices, np.ndarray) and indices.dtype == np.int64, "int64 indices in an array", indices)
    require(indices.shape == (n_instances,), f"{n_instances} indices", f"shape {indices.shape}")
    require(len(np.unique(indices)) == n_instances, "distinct indices", indices)
    inside = bool((indices >= 0).all() and (indices < n_pool).all())
    require(inside, f"positions in a pool of {n_pool}", indices)
    require(scores.shape == (n_instances,), f"{n_instances} scores", f"shape {np.shape(scores)}")
    require(bool(np.issubdtype(scores.dtype, np.floating)), "scores of a float type", scores.dtype)
    require(bool(np.isfinite(scores).all()), "finite scores", scores)
    require(isinstance(selected.info, dict), "info as a dict", type(selected.info).__name__)


def chosen(strategy: Any, situation: Situation, n_instances: int = 4) -> Any:
    """Return a checked selection, or None if the strategy says truly that the learner lacks what it needs."""
    view = nets.NetView(situation.learner)
    lacking = [need for need in NEEDS if not view.offers(need)]
    try:
        selected = situation.select(strategy, n_instances)
    except UnmetNeedError as error:
        named = [need for need in lacking if need in str(error)]
        require(bool(named), f"an error that names one of the needs the learner lacks, {lacking}", str(error))
        return None
    declared = [need for need in lacking if need in strategy.needs]
    require(not declared, f"UnmetNeedError, for the declared needs {declared} are not met", "a selection")
    check_form(selected, n_instances, checks.n_rows(situation.X_pool))
    return selected


def same_picks(first: Any, second: Any, when: str) -> None:
    """Require equal indices, unless `chosen` gave None first."""
    if first is not None:
        require(first.indices.tolist() == second.indices.tolist(), f"the picks {first.indices} {when}", second.indices)
