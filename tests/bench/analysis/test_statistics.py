"""Statistics of a comparison, against figures worked out by hand and independent oracles."""

import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from modal_ntk.bench.analysis.significance import (
    average_ranks,
    detectable_difference,
    doubts,
    holm,
    penalty_matrix,
    rank_areas,
)
from modal_ntk.bench.analysis.statistics import (
    aubc,
    curves,
    effective_budget_ratio,
    labels_to_reach,
    shared,
    speed_up,
    summarise,
)
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import InvalidInputError

BUDGETS = (10, 20, 60)
# Round 0 is shared. Good is above random by .10 to .12 at 20 labels and by 0 on average at 60.
SCORES = {
    "random_sampling": [(0.5, 0.60, 0.80), (0.6, 0.70, 0.90), (0.4, 0.50, 0.70)],
    "good": [(0.5, 0.70, 0.90), (0.6, 0.81, 0.90), (0.4, 0.62, 0.60)],
    "bad": [(0.5, 0.50, 0.70), (0.6, 0.59, 0.81), (0.4, 0.41, 0.60)],
}


def stored(folder, scores=SCORES, budgets=BUDGETS):
    store = Store(folder)
    store.agree({"dataset": "made up"})
    for strategy, by_seed in scores.items():
        for seed, row in enumerate(by_seed):
            rounds = [
                Round(n, s, 2.0 * i, 0.5, np.arange(n)) for i, (n, s) in enumerate(zip(budgets, row, strict=True))
            ]
            store.add(strategy, seed, rounds)
    return store


@pytest.fixture
def found(tmp_path):
    return curves(stored(tmp_path).rows())


class TestCurves:
    def test_rows_are_keyed_by_seed(self, tmp_path):
        """The order of rows is of no matter: each score lands at its own seed and number of labels."""
        rows = stored(tmp_path).rows()
        found = curves(rows[::-1])
        assert list(found) == ["bad", "good", "random_sampling"]
        for strategy, expected in SCORES.items():
            assert found[strategy].seeds == (0, 1, 2)
            np.testing.assert_array_equal(found[strategy].scores, expected)
            np.testing.assert_array_equal(found[strategy].budgets, BUDGETS)

    def test_mean_and_deviation(self, found):
        """.5, .6 and .4 have mean .5 and sample deviation .1."""
        np.testing.assert_allclose(found["good"].mean[0], 0.5)
        np.testing.assert_allclose(found["good"].deviation[0], 0.1)

    def test_budgets_are_those_all_seeds_reached(self, tmp_path):
        """A seed that stopped early shortens the curve of its strategy."""
        store = stored(tmp_path)
        store.add("good", 3, [Round(10, 0.5, 0, 0, np.arange(10)), Round(20, 0.6, 0, 0, np.arange(10))])
        assert curves(store.rows())["good"].budgets.tolist() == [10, 20]
        store.add("good", 4, [Round(11, 0.5, 0, 0, np.arange(10))])
        with pytest.raises(InvalidInputError, match="all seeds of good share"):
            curves(store.rows())

    def test_a_cell_given_twice_is_refused(self, tmp_path):
        """The same store passed twice is no second set of seeds."""
        rows = stored(tmp_path).rows()
        with pytest.raises(InvalidInputError, match="two for bad, seed 0, 10 labels"):
            curves(rows + rows)

    def test_shared_keeps_common_seeds_in_order(self, tmp_path):
        """Rows of different strategies belong to the same seed after cutting, whatever each has finished."""
        store = stored(tmp_path)
        store.add("late", 2, [Round(20, 0.3, 0, 0, np.arange(20)), Round(60, 0.4, 0, 0, np.arange(40))])
        store.add("late", 7, [Round(20, 0.1, 0, 0, np.arange(20)), Round(60, 0.2, 0, 0, np.arange(40))])
        cut = shared(curves(store.rows()))
        assert {c.seeds for c in cut.values()} == {(2,)}
        np.testing.assert_array_equal(cut["good"].scores, [[0.62, 0.60]])
        np.testing.assert_array_equal(cut["late"].scores, [[0.3, 0.4]])


class TestSingleFigures:
    def test_area_by_hand(self):
        """(.5 + .7)/2 over 10 labels and (.7 + .9)/2 over 40 make 38 of 50."""
        assert aubc([10, 20, 60], [0.5, 0.7, 0.9]) == pytest.approx(38 / 50)

    @given(st.floats(-5, 5), st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True))
    def test_area_of_a_constant_is_the_constant(self, value, budgets):
        """Whatever the steps."""
        assert aubc(sorted(budgets), [value] * len(budgets)) == pytest.approx(value, abs=1e-9)

    @given(arrays(float, 6, elements=st.floats(0, 1)), st.floats(0.1, 100))
    def test_area_does_not_depend_on_the_unit_of_labels(self, scores, unit):
        """Counting labels by the hundred changes nothing; a point on the line between two neither."""
        x = np.array([1.0, 2, 4, 7, 8, 12])
        assert aubc(x * unit, scores) == pytest.approx(aubc(x, scores))
        between = aubc(np.insert(x, 3, 5.5), np.insert(scores, 3, scores[2:4].mean()))
        assert between == pytest.approx(aubc(x, scores))

    def test_labels_to_reach(self):
        """At once, halfway, at a point, at the first of several crossings, never."""
        budgets, scores = [10, 20, 40, 80], [0.2, 0.4, 0.3, 0.9]
        assert labels_to_reach(budgets, scores, 0.1) == 10
        assert labels_to_reach(budgets, scores, 0.3) == pytest.approx(15)
        assert labels_to_reach(budgets, scores, 0.4) == pytest.approx(20)
        assert labels_to_reach(budgets, scores, 0.6) == pytest.approx(60)
        assert np.isnan(labels_to_reach(budgets, scores, 0.91))

    def test_speed_up_is_above_one_where_labels_are_saved(self, found):
        """Means .5, .6, .8 against .5, .71, .8: to .7 random takes 40 labels, good 10 + 10 * .2/.21."""
        assert speed_up(found["good"], found["random_sampling"], 0.7) == pytest.approx(40 / (10 + 10 * 0.2 / 0.21))
        assert speed_up(found["good"], found["random_sampling"]) == pytest.approx(1)
        assert np.isnan(speed_up(found["bad"], found["random_sampling"]))

    def test_effective_budget_by_hand(self, found):
        """Random's deviation is .1 throughout: good's .71 is above .6 + .1 for the 10 labels bought there, of 60."""
        baseline = found["random_sampling"].scores
        assert effective_budget_ratio(BUDGETS, found["good"].scores, baseline) == pytest.approx(10 / 60)
        assert effective_budget_ratio(BUDGETS, found["bad"].scores, baseline) == 0
        assert effective_budget_ratio(BUDGETS, baseline + 1, baseline) == 1

    def test_effective_budget_is_strict(self):
        """A mean that only equals random's mean plus deviation does not exceed it; one seed has deviation zero."""
        assert effective_budget_ratio([5, 10], np.array([[0.5, 0.75]]), np.array([[0.5, 0.5]])) == 0.5


class TestSummary:
    def test_every_figure_by_hand(self, found):
        """Good's areas are .76, .81 and .55 of unevenly spaced trapezoids; its times 0, 2 and 4 seconds."""
        good = summarise(found, target=0.7)["good"]
        areas = [aubc(BUDGETS, row) for row in SCORES["good"]]
        assert (good.n_seeds, good.n_labels) == (3, 60)
        assert (good.area, good.area_deviation) == pytest.approx((np.mean(areas), np.std(areas, ddof=1)))
        assert (good.final, good.final_deviation) == pytest.approx((0.8, np.std([0.9, 0.9, 0.6], ddof=1)))
        assert good.labels_to_target == pytest.approx(10 + 10 * 0.2 / 0.21)
        assert good.speed_up == pytest.approx(40 / (10 + 10 * 0.2 / 0.21))
        assert good.effective_budget_ratio == pytest.approx(1 / 6)
        assert (good.query_seconds, good.fit_seconds) == (6.0, 1.5)

    def test_the_baseline_has_speed_up_one_and_no_ratio(self, found):
        """Random against itself; without a random strategy nothing is compared with it."""
        random = summarise(found)["random_sampling"]
        assert random.speed_up == 1
        assert np.isnan(random.effective_budget_ratio)
        alone = summarise({"good": found["good"]})["good"]
        assert np.isnan([alone.speed_up, alone.effective_budget_ratio, alone.labels_to_target]).all()

    def test_a_random_strategy_with_parameters_is_the_baseline(self, found):
        """random_sampling:random_state=3 is random sampling still; several need a choice."""
        named = {"random_sampling:random_state=3": found["random_sampling"], "good": found["good"]}
        assert summarise(named, target=0.7)["good"].speed_up > 1
        named["random_sampling"] = found["bad"]
        assert summarise(named, target=0.7, baseline="good")["good"].speed_up == 1
        with pytest.raises(InvalidInputError, match="baseline to be one of"):
            summarise(named, baseline="missing")


class TestPenalties:
    def test_orientation(self, found):
        """Rows win: good beats random and bad at 20 labels of two tested, and nobody beats good."""
        penalties = penalty_matrix(found, correction="none")
        cell = dict(np.ndenumerate(penalties.matrix))
        bad, good, random = (penalties.strategies.index(n) for n in ("bad", "good", "random_sampling"))
        p = {
            (a, b, i): stats.ttest_rel([r[i] for r in SCORES[a]], [r[i] for r in SCORES[b]]).pvalue
            for a, b in permutations(SCORES, 2)
            for i in (1, 2)
        }
        assert cell[good, random] == 0.5
        assert p["good", "random_sampling", 1] < 0.05 < p["good", "random_sampling", 2]
        assert cell[good, bad] == 0.5
        assert cell[random, bad] == 1.0
        assert p["random_sampling", "bad", 2] < 0.05
        assert cell[random, good] == cell[bad, good] == cell[bad, random] == 0
        np.testing.assert_array_equal(np.diag(penalties.matrix), 0)

    def test_shared_first_labels_are_not_tested(self, found):
        """Three pairs at two budgets make six tests: the first budget is the same for all."""
        assert penalty_matrix(found).n_tests == 6

    def test_holm_is_over_the_whole_matrix(self, found):
        """A cell counts the tests that survive Holm's correction over all six."""
        pairs = [("bad", "good"), ("bad", "random_sampling"), ("good", "random_sampling")]
        p = [
            stats.ttest_rel([r[i] for r in SCORES[a]], [r[i] for r in SCORES[b]]).pvalue
            for a, b in pairs
            for i in (1, 2)
        ]
        survivors = 0
        for step, value in enumerate(sorted(p)):  # Holm as he wrote it: stop at the first that fails
            if value > 0.05 / (6 - step):
                break
            survivors += 1
        assert penalty_matrix(found).matrix.sum() == survivors / 2
        assert penalty_matrix(found, correction="none").matrix.sum() == sum(value <= 0.05 for value in p) / 2

    def test_one_seed_and_one_strategy_test_nothing(self, tmp_path):
        """There is no spread in one pair, and no pair in one strategy."""
        single = curves(stored(tmp_path, {name: rows[:1] for name, rows in SCORES.items()}).rows())
        assert penalty_matrix(single).n_tests == 0
        assert not penalty_matrix(single).matrix.any()
        assert penalty_matrix({"bad": single["bad"]}).matrix.shape == (1, 1)

    def test_differences_all_alike_are_significant(self, tmp_path):
        """A gain that is the same on every seed is certain, and scipy's warning about it is not shown."""
        scores = {"a": [(0.5,), (0.6,), (0.7,)], "b": [(0.25,), (0.35,), (0.45,)]}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            matrix = penalty_matrix(curves(stored(tmp_path, scores, (10,)).rows())).matrix
        np.testing.assert_array_equal(matrix, [[0, 1], [0, 0]])

    def test_wilcoxon_needs_six_seeds(self, tmp_path):
        """All differences of one sign: p is 2 / 2**n, so five seeds are not enough at 5 % and six are."""
        for n, wins in ((5, 0.0), (6, 1.0)):
            rows = [(0.5 + 0.01 * i * i,) for i in range(n)]
            scores = {"a": rows, "b": [(s - 0.1 - 0.001 * i,) for i, (s,) in enumerate(rows)]}
            found = curves(stored(tmp_path / str(n), scores, (10,)).rows())
            assert penalty_matrix(found, test="wilcoxon").matrix[0, 1] == wins

    def test_wilcoxon_with_ties_does_not_warn(self, tmp_path):
        """Accuracies tie; zeros among the differences are dropped without noise."""
        scores = {"a": [(0.5,)] * 6, "b": [(0.5,), (0.5,), (0.4,), (0.4,), (0.4,), (0.4,)]}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            penalty_matrix(curves(stored(tmp_path, scores, (10,)).rows()), test="wilcoxon")

    @pytest.mark.parametrize("options", [{"correction": "bonferroni"}, {"test": "z"}])
    def test_unknown_options(self, found, options):
        """Are named with what there is."""
        with pytest.raises(InvalidInputError, match="to be one of"):
            penalty_matrix(found, **options)


class TestHolm:
    @given(arrays(float, st.integers(0, 12), elements=st.floats(0, 1)), st.floats(0.001, 0.5))
    def test_adjusted_values_decide_as_the_steps_do(self, p, alpha):
        """Comparing with alpha gives the very rejections of the step-down procedure."""
        rejected = np.zeros(len(p), bool)
        for step, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] * (len(p) - step) > alpha:
                break
            rejected[i] = True
        np.testing.assert_array_equal(holm(p) <= alpha, rejected)


class TestRanks:
    # Nemenyi's q at 5 % for two to ten classifiers, as Demsar's table 5 prints them.
    TABLE = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)

    @pytest.mark.parametrize(("k", "q"), list(enumerate(TABLE, start=2)))
    def test_critical_difference_is_demsars(self, k, q):
        """q times the square root of k (k + 1) over six times the number of blocks."""
        ranks = average_ranks([str(i) for i in range(k)], np.tile(np.arange(k), (10, 1)))
        assert ranks.critical_difference == pytest.approx(q * np.sqrt(k * (k + 1) / 60), abs=2e-3)

    def test_best_is_one_and_ties_share(self):
        """Ranks count from the highest score; two second places are 2.5 each."""
        ranks = average_ranks(["a", "b", "c"], np.array([[0.9, 0.5, 0.5], [0.9, 0.1, 0.5]]))
        np.testing.assert_array_equal(ranks.average, [1.0, 2.75, 2.25])

    def test_friedman(self):
        """The p-value is scipy's; strategies all alike, or only two, have none."""
        scores = np.random.default_rng(0).random((6, 4))
        assert average_ranks("abcd", scores).p_value == stats.friedmanchisquare(*scores.T).pvalue
        assert np.isnan(average_ranks("abcd", np.ones((6, 4))).p_value)
        assert np.isnan(average_ranks("ab", scores[:, :2]).p_value)

    def test_areas_are_ranked_within_seeds(self, found):
        """Good leads on two seeds; on the third its area of .573 is below random's .590."""
        areas = {name: [aubc(BUDGETS, row) for row in rows] for name, rows in SCORES.items()}
        ranks = rank_areas(found)
        for name, average in zip(ranks.strategies, ranks.average, strict=True):
            by_seed = [1 + sum(areas[other][seed] > areas[name][seed] for other in SCORES) for seed in range(3)]
            assert average == np.mean(by_seed)
        assert ranks.n_blocks == 3


class TestDoubts:
    def test_power_is_that_of_the_tables(self):
        """A difference of half a deviation at 5 % and 80 % needs 34 pairs: 33 show more only, 34 a little less."""
        assert detectable_difference(1.0, 34) < 0.5 < detectable_difference(1.0, 33)
        assert detectable_difference(3.0, 34) == pytest.approx(3 * detectable_difference(1.0, 34))
        assert detectable_difference(1.0, 1) == np.inf

    def test_power_is_that_of_simulated_tests(self):
        """Of 4,000 samples of eight pairs at the difference shown, four in five are significant."""
        rng = np.random.default_rng(0)
        pairs = rng.normal(detectable_difference(1.0, 8), 1.0, size=(4000, 8))
        share = (stats.ttest_1samp(pairs, 0, axis=1).pvalue < 0.05).mean()
        assert share == pytest.approx(0.8, abs=0.025)

    def test_few_seeds_and_near_rivals_are_named(self, found):
        """Three seeds are few; good leads random by less than its seeds can show, and bad by more."""
        said = doubts(found)
        assert said[0].startswith("3 seeds are few")
        assert any("good is ahead of random_sampling" in sentence for sentence in said)

    def test_clear_results_raise_none(self, tmp_path):
        """Ten seeds with a gain of ten deviations leave no doubt."""
        rng = np.random.default_rng(0)
        base = rng.random((10, 2))
        scores = {"a": base + 1 + 0.1 * rng.random((10, 2)), "b": base}
        assert doubts(curves(stored(tmp_path, scores, (10, 20)).rows())) == []

    def test_no_shared_seeds(self, tmp_path):
        """Strategies run on different seeds cannot be compared, and that is said."""
        store = stored(tmp_path, {"a": SCORES["good"][:1]})
        store.add("b", 5, [Round(10, 0.5, 0, 0, np.arange(10))])
        said = doubts(curves(store.rows()))
        assert "Only 0 of the seeds" in said[0]
        assert "no difference between them can be tested" in said[1]
