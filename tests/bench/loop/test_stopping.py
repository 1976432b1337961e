"""Stopping criteria by themselves and in a simulation."""

from types import SimpleNamespace

import numpy as np
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from modal_ntk import Margin, RandomSampling
from modal_ntk.bench import LabelBudget, Plateau, SimulatedActiveLearning, StablePredictions
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs(n=90)


def curve(scores, step=10):
    return [SimpleNamespace(score=score, n_labels=step * (i + 1)) for i, score in enumerate(scores)]


def simulate(**options):
    settings = {"n_initial": 9, "batch_size": 6, "n_rounds": 8, "random_state": 0, **options}
    return SimulatedActiveLearning(LogisticRegression(), settings.pop("strategy", Margin()), **settings)


class TestLabelBudget:
    @pytest.mark.parametrize(("budget", "stops"), [(29, True), (30, True), (31, False)])
    def test_it_is_met_when_reached(self, budget, stops):
        """30 labels are enough for a budget of up to 30."""
        assert LabelBudget(budget).should_stop(curve([0.1, 0.2, 0.3])) is stops


class TestPlateau:
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 2))
    def test_it_counts_rounds_since_the_last_new_best(self, scores, n_rounds, gain):
        """By the slow definition: walk back to the last round that beat the best before it by more than the gain."""
        best, last = scores[0], 0
        for i, score in enumerate(scores):
            if score > best + gain:
                best, last = score, i
        stops = len(scores) - 1 - last >= n_rounds
        assert Plateau(n_rounds, min_gain=gain).should_stop(curve(scores)) is stops

    def test_rising_scores_never_stop(self):
        """Small gains count unless a larger one is asked for."""
        assert not Plateau(1).should_stop(curve([0.1, 0.11, 0.12]))
        assert Plateau(1, min_gain=0.05).should_stop(curve([0.1, 0.11, 0.12]))


class TestStablePredictions:
    def test_kappa_by_hand(self):
        """Of ten samples, half in either class, one changes: observed .9, by chance .5, kappa .8."""
        before, after = np.repeat([0, 1], 5), np.repeat([0, 1], 5)
        after[0] = 1
        assert StablePredictions(0.79, n_rounds=1).should_stop([], [before, after])
        assert not StablePredictions(0.81, n_rounds=1).should_stop([], [before, after])

    def test_the_mean_of_the_last_comparisons_counts(self):
        """Kappas 1 and 0.8 are 0.9 on average; older disagreement is forgotten; too few rounds never stop."""
        base = np.repeat([0, 1], 5)
        near = base.copy()
        near[0] = 1
        seen = [1 - base, base, base, near]
        assert StablePredictions(0.89, n_rounds=2).should_stop([], seen)
        assert not StablePredictions(0.91, n_rounds=2).should_stop([], seen)
        assert not StablePredictions(0.89, n_rounds=3).should_stop([], seen)
        assert not StablePredictions(0.0, n_rounds=4).should_stop([], seen)

    def test_one_class_throughout_is_stable(self):
        """Where kappa is undefined, sameness decides, without a warning."""
        assert StablePredictions(n_rounds=1).should_stop([], [np.zeros(5), np.zeros(5)])
        assert not StablePredictions(n_rounds=1).should_stop([], [np.zeros(5), np.ones(5)])


class TestSimulation:
    def test_rounds_end_at_the_budget(self):
        """The curve is the beginning of the one without a criterion, and says what ended it."""
        budget = LabelBudget(20)
        stopped, whole = simulate(stopping=budget).fit(X, y), simulate().fit(X, y)
        assert [r.n_labels for r in stopped.curve_] == [9, 15, 21]
        assert [r.score for r in stopped.curve_] == [r.score for r in whole.curve_[:3]]
        assert stopped.stopped_by_ is budget
        assert len(stopped.labeled_indices_) == 21
        assert whole.stopped_by_ is None

    def test_watching_changes_no_pick(self):
        """A criterion that needs predictions, and is never met, leaves the run as it was."""
        never = StablePredictions(1.0, n_rounds=50)
        for strategy in (Margin(), RandomSampling()):
            watched, plain = (simulate(strategy=strategy, stopping=s).fit(X, y) for s in (never, None))
            np.testing.assert_array_equal(watched.labeled_indices_, plain.labeled_indices_)

    def test_stable_predictions_end_a_run(self):
        """Easy blobs settle before the rounds are up."""
        fitted = simulate(stopping=StablePredictions(0.9, n_rounds=2)).fit(X, y)
        assert isinstance(fitted.stopped_by_, StablePredictions)
        assert 3 <= len(fitted.curve_) < 9

    def test_the_first_of_several_stops(self):
        """Either ends the run."""
        fitted = simulate(stopping=[Plateau(50), LabelBudget(10)]).fit(X, y)
        assert isinstance(fitted.stopped_by_, LabelBudget)

    def test_criteria_can_be_searched(self):
        """Their parameters are parameters of the simulation, and survive cloning."""
        grid = {"stopping__n_labels": [9, 21]}
        search = GridSearchCV(simulate(stopping=LabelBudget(50), n_rounds=3), grid, cv=2).fit(X, y)
        assert search.best_params_["stopping__n_labels"] in (9, 21)
        assert clone(simulate(stopping=Plateau(4))).stopping.n_rounds == 4

    @pytest.mark.parametrize(
        ("stopping", "message"),
        [
            (lambda curve: True, "stopping to be a criterion"),
            ([LabelBudget(10), 5], "stopping to be a criterion"),
            (LabelBudget(0), "n_labels to be an integer of at least 1"),
            (Plateau(0), "n_rounds to be an integer"),
            (Plateau(min_gain=-1), "min_gain to be a finite number of at least 0"),
            (StablePredictions(1.5), "agreement to be a finite number between -1 and 1"),
        ],
    )
    def test_unusable_criteria_are_refused_before_any_fit(self, stopping, message):
        """With what was expected."""
        with pytest.raises(InvalidInputError, match=message):
            simulate(stopping=stopping).fit(X, y)
