"""The strategy that is recommended is one that works for who asks."""

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression, Perceptron

from modal_ntk import NTKCPL, UHerding, recommended
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs(n=90)


@pytest.mark.parametrize(
    ("n_labeled", "options", "kind"),
    [
        (0, {}, UHerding),
        (500, {}, UHerding),
        (29, {"features": "trained"}, NTKCPL),
        (30, {"features": "trained"}, UHerding),
        (0, {"learner": Perceptron()}, UHerding),
        (500, {"learner": Perceptron()}, NTKCPL),
        (500, {"learner": LogisticRegression()}, UHerding),
        (500, {"learner": zoo.net()}, UHerding),
    ],
)
def test_by_labels_a_class_and_features(n_labeled, options, kind):
    """Fixed features have one strategy for all numbers of labels; trained ones have another up to ten a class."""
    assert type(recommended(n_labeled, 3, **options)) is kind


@pytest.mark.parametrize("learner", [Perceptron(), zoo.net()])
def test_it_works_for_who_asks(learner):
    """A classifier without probabilities is not recommended what reads them: the choice can be made."""
    learner.fit(X[:30], y[:30])
    strategy = recommended(30, 3, learner)
    selection = strategy.set_params(random_state=0).select(learner, X[30:], 5, X_labeled=X[:30], y_labeled=y[:30])
    assert len(np.unique(selection.indices)) == 5


@pytest.mark.parametrize("arguments", [(-1, 3), (0, 1), (0, 3, None)])
def test_what_cannot_be_used_is_refused(arguments):
    """Numbers that count nothing, and features of no kind, are told."""
    with pytest.raises(InvalidInputError):
        recommended(*arguments, **({"features": "frozen"} if len(arguments) == 3 else {}))
