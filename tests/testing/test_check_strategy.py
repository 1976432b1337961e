"""The contract suite itself: it catches what it is there to catch, and says so."""

import mutants
import mutants_inputs
import pytest

from modal_ntk import Entropy
from modal_ntk.errors import ContractError
from modal_ntk.testing import check_strategy, parametrize_with_checks, strategy_checks

PAIRS = [(clause, mutant) for clause, kinds in mutants.MUTANTS.items() for mutant in kinds]


def test_every_clause_has_a_mutant():
    """No clause is there that nothing is known to break."""
    assert {check.clause.name for check in strategy_checks()} == set(mutants.MUTANTS)


@pytest.mark.parametrize(("clause", "mutant"), PAIRS, ids=lambda part: getattr(part, "__name__", part))
def test_a_broken_twin_is_caught_by_its_clause(clause, mutant):
    """Each clause fails for a strategy that breaks it."""
    verdict = mutants.verdict(clause, mutant)
    if verdict.startswith("not tried"):
        pytest.skip(verdict)
    assert verdict == "caught"


EDGES = (
    "reads_data_sets_like_arrays",
    "is_not_misled_by_the_validation_iterator",
    "serves_nets_that_name_no_classes",
    "refuses_bad_labels_before_any_work",
)


@pytest.mark.parametrize("check", [c for c in strategy_checks() if c.clause.name in EDGES], ids=str)
def test_every_case_of_other_peoples_data_can_fail(check):
    """Each kind of pool, loader, net and label is one that a mutant stumbles over, not the clause's others alone."""

    def caught(mutant):
        try:
            check(mutant())
        except ContractError:
            return True
        return False

    assert any(caught(mutant) for mutant in mutants.MUTANTS[check.clause.name])


def test_all_failures_are_told_at_once_with_clause_case_expected_and_got():
    """The error lists every failing check by name, with what was expected and what was got."""
    with pytest.raises(ContractError) as raised:
        check_strategy(mutants.FallsShort())
    message = str(raised.value)
    assert message.startswith("FallsShort fails ")
    assert "gives_as_many_as_asked[7]: " in message
    assert "Expected 7 indices, got shape (5,)." in message
    assert "gives_as_many_as_asked[all]: " in message
    assert "gives_as_many_as_asked[2]: " not in message


def test_an_unexpected_error_is_a_finding_with_its_cause():
    """What else comes out of a strategy fails the check, and stays visible as its cause."""
    check = next(c for c in strategy_checks() if str(c).endswith("[random forest]"))
    with pytest.raises(ContractError, match="got AttributeError") as raised:
        check(mutants_inputs.TakesEveryLearnerForANet())
    assert isinstance(raised.value.__cause__, AttributeError)


def test_one_test_for_each_check_and_strategy():
    """The pytest helper makes a test of every check, named after strategy, clause and case."""
    mark = parametrize_with_checks([Entropy(), mutants.Talks()])
    names = [parameters.id for parameters in mark.args[1]]
    assert len(names) == len(set(names)) == 2 * len(strategy_checks())
    assert "Talks-is_silent" in names


def test_learners_of_ones_own_are_tried_too():
    """A learner passed by name is one more case, and the first that serves is where the other clauses run."""

    def broken():
        raise ContractError("built")

    checks = [c for c in strategy_checks({"mine": broken}) if c.case == "mine"]
    assert len(checks) == 1
    with pytest.raises(ContractError, match="built"):
        checks[0](Entropy())
