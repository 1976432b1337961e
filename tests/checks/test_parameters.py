"""Constraints of parameters: what they let pass, and their words."""

import inspect
from numbers import Integral, Real

import numpy as np
import pytest

import modal_ntk
from modal_ntk import QueryStrategy, bench, checks, pruning
from modal_ntk.checks.parameters import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Interval, Options, StrOptions
from modal_ntk.errors import InvalidInputError

CLASSES = [
    part
    for room in (modal_ntk, pruning, bench)
    for name in room.__all__
    if inspect.isclass(part := getattr(room, name))
    and hasattr(part, "_parameter_constraints")
    and not inspect.isabstract(part)
]
# Checked by themselves: seeds, how much is shown, and what is an object of many kinds.
APART = {"random_state", "verbose", "estimator", "strategy", "strategies", "stages", "affinity", "parameters"} | {
    "query_strategy",
    "evaluation_set",
    "validation_set",
    "stopping",
}


class One:
    def __init__(self, value, allowed):
        self.value = value
        self._parameter_constraints = {"value": allowed}


@pytest.mark.parametrize("part", CLASSES, ids=lambda part: part.__name__)
def test_every_parameter_has_its_constraint(part):
    """Whoever adds a parameter says what it may be; the default is that, and nothing else is constrained."""
    parameters = inspect.signature(part.__init__).parameters
    own = {name for name in parameters if name != "self"}
    assert own - APART <= set(part._parameter_constraints)
    assert set(part._parameter_constraints) - own <= {"n_models"}  # which one pruner of three does not have
    required = own - {name for name, parameter in parameters.items() if parameter.default is not parameter.empty}
    made = part(**{name: None if name in APART else 1 for name in required - {"params", "kwargs"}})
    made._check_together = made.check_params = lambda: None
    checks.check_parameters(made)


@pytest.mark.parametrize(
    ("allowed", "good", "bad", "words"),
    [
        ([COUNT], [1, np.int64(7)], [0, 1.0, True, "1", None], "an integer of at least 1"),
        ([COUNT, None], [1, None], [0], "an integer of at least 1 or None"),
        ([SHARE], [0, 1.0, np.float32(0.5)], [-0.1, 1.1, np.nan, False], "a finite number between 0 and 1"),
        ([POSITIVE], [1e-9], [0, -1, np.inf, np.nan], "a finite number above zero"),
        ([NOT_NEGATIVE], [0], [-1e-9, np.inf, True], "a finite number of at least 0"),
        ([Interval(Real, 0, 1, closed="right")], [1], [0, 2], "a finite number above 0 and at most 1"),
        ([StrOptions({"b", "a"}), callable], ["a", len], ["c", 1], "one of 'a', 'b' or callable"),
        ([Options(Integral, {8, 7})], [7], [9, "7"], "one of 7, 8"),
        (["boolean"], [True, np.bool_(False)], ["no", 1], "True or False"),
        (["array-like"], [(), [1], np.ones(2)], ["accuracy", 1, None], "a sequence"),
        ([str, callable], ["x", len], [3], "a string or callable"),
    ],
)
def test_what_passes_and_what_is_said(allowed, good, bad, words):
    """A value passes that one of the constraints admits; of others is said what was expected, and what was got."""
    for value in good:
        checks.check_parameters(One(value, allowed))
    for value in bad:
        with pytest.raises(InvalidInputError) as told:
            checks.check_parameters(One(value, allowed))
        assert str(told.value).startswith(f"Expected value to be {words}, got {value!r}. ")


def test_a_strategy_of_the_first_version_checks_itself():
    """What was written for 0.1.0 has `check_params`, which is still called before anything is computed."""

    class Old(QueryStrategy):
        def check_params(self):
            raise InvalidInputError("told by check_params")

        def _select(self, query):
            raise AssertionError("never reached")

    with pytest.raises(InvalidInputError, match="told by check_params"):
        Old().select(None, np.zeros((3, 1)), 1)
