"""From clauses to checks: one for each clause and case, to be run at once or as tests of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from unittest import SkipTest

from modal_ntk.errors import ContractError
from modal_ntk.testing import clauses  # noqa: F401 - importing enters the clauses
from modal_ntk.testing.situations import LEARNERS
from modal_ntk.testing.trial import CLAUSES, Clause, Situations, Trial


@dataclass(frozen=True)
class Check:
    """One clause in one case; call it with a strategy.

    Parameters
    ----------
    clause : Clause
        What must hold.
    case : str
        In which circumstances.
    learners : mapping of str to callable
        What builds the learners to try.
    """

    clause: Clause
    case: str
    learners: Situations

    def __call__(self, strategy: Any) -> None:
        """Try the clause.

        Parameters
        ----------
        strategy : QueryStrategy
            What is tried; it is cloned, never changed.

        Raises
        ------
        ContractError
            If the clause does not hold, with the clause, the case, what was expected and what was got.
        unittest.SkipTest
            If the case cannot be tried here, with the reason.
        """
        try:
            self.clause.body(Trial(strategy, self.case, self.learners))
        except ContractError as error:
            raise ContractError(f"{self}: {self.clause.law} {error}") from error.__cause__
        except SkipTest:
            raise
        except Exception as error:
            # Whatever else comes out of a strategy is a finding about it, and is kept as the cause.
            got = f"{type(error).__name__}: {error}"
            raise ContractError(f"{self}: {self.clause.law} Expected no error, got {got}") from error

    def __str__(self) -> str:
        return f"{self.clause.name}[{self.case}]" if self.case else self.clause.name


@dataclass
class Tally:
    """What became of the checks of one strategy.

    Parameters
    ----------
    passed, skipped, failed : list of str
        The checks; with reasons for those skipped or failed.
    """

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def strategy_checks(learners: Situations | None = None) -> list[Check]:
    """List the checks.

    Parameters
    ----------
    learners : mapping of str to callable, optional
        More learners to try beside the built-in ones, by name: functions that return a `Situation`. A strategy that
        needs what no built-in learner has brings its own here.

    Returns
    -------
    list of Check
        One for each clause and case.

    Examples
    --------
    >>> len({check.clause.name for check in strategy_checks()}) > 15
    True
    """
    everyone = {**LEARNERS, **(learners or {})}
    checks = []
    for entry in CLAUSES:
        cases = tuple(everyone) if entry.cases == ("learners",) else entry.cases
        checks += [Check(entry, case, everyone) for case in cases]
    return checks


def check_strategy(strategy: Any, *, learners: Situations | None = None) -> Tally:
    """Try every clause of the strategy contract on a strategy.

    Parameters
    ----------
    strategy : QueryStrategy
        An instance; it is cloned, never changed.
    learners : mapping of str to callable, optional
        As for `strategy_checks`.

    Returns
    -------
    Tally
        The checks passed, and those that could not be tried here (no GPU, no modAL 0.4.2) with the reason.

    Raises
    ------
    ContractError
        If any check fails; the message lists all that do.

    Examples
    --------
    >>> from modal_ntk import RandomSampling
    >>> tally = check_strategy(RandomSampling())
    >>> tally.failed
    []
    """
    tally = Tally()
    for check in strategy_checks(learners):
        try:
            check(strategy)
            tally.passed.append(str(check))
        except SkipTest as reason:
            tally.skipped.append(f"{check}: {reason}")
        except ContractError as error:
            tally.failed.append(str(error))
    if tally.failed:
        lines = "\n  ".join(tally.failed)
        n_all = len(tally.passed) + len(tally.failed)
        raise ContractError(f"{type(strategy).__name__} fails {len(tally.failed)} of {n_all} checks:\n  {lines}")
    return tally


def parametrize_with_checks(strategies: Iterable[Any], *, learners: Situations | None = None) -> Any:
    """Make a pytest test of every check of every strategy.

    Parameters
    ----------
    strategies : iterable of QueryStrategy
        Instances.
    learners : mapping of str to callable, optional
        As for `strategy_checks`.

    Returns
    -------
    pytest.MarkDecorator
        For a test with the arguments ``strategy`` and ``check``, whose body is ``check(strategy)``.

    Examples
    --------
    >>> from modal_ntk import RandomSampling
    >>> @parametrize_with_checks([RandomSampling()])
    ... def test_contract(strategy, check):
    ...     check(strategy)
    """
    import pytest

    checks = strategy_checks(learners)
    pairs = [
        pytest.param(strategy, check, id=f"{type(strategy).__name__}-{check}")
        for strategy in strategies
        for check in checks
    ]
    return pytest.mark.parametrize(("strategy", "check"), pairs)
