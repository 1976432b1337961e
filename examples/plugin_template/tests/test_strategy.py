"""The strategy by itself: the contract that every strategy keeps, and what is its own."""

import numpy as np
import pytest
from modal_ntk_epsilon_margin import EpsilonMargin
from sklearn.linear_model import LogisticRegression

from modal_ntk.errors import InvalidInputError
from modal_ntk.testing import parametrize_with_checks


@parametrize_with_checks([EpsilonMargin(), EpsilonMargin(epsilon=0.0)])
def test_contract(strategy, check):
    """Each clause of the contract is a test of its own."""
    check(strategy)


X = np.array([[-3.0], [0.1], [2.0], [-0.2], [9.0]])
MODEL = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])


def test_without_chance_the_smallest_margins_win():
    """Nearest to the border at zero are 0.1 and -0.2."""
    assert EpsilonMargin(epsilon=0).select(MODEL, X, 2).indices.tolist() == [1, 3]


def test_with_certainty_all_picks_are_random():
    """With epsilon 1 every sample is first equally often, up to chance."""
    first = [EpsilonMargin(epsilon=1, random_state=seed).select(MODEL, X, 1).indices[0] for seed in range(300)]
    assert np.bincount(first, minlength=5).min() > 300 / 5 / 2


@pytest.mark.parametrize("epsilon", [-0.1, 1.1])
def test_shares_lie_between_zero_and_one(epsilon):
    """Anything else is an error that says so."""
    with pytest.raises(InvalidInputError, match="epsilon to be a finite number between 0 and 1"):
        EpsilonMargin(epsilon=epsilon).select(MODEL, X, 1)
