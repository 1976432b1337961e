"""SimulatedActiveLearning: labelling replayed, paired, repeatable, searchable."""

import numpy as np
import pytest
import torch
import zoo
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV

from modal_ntk import NTKCPL, CoreSet, Entropy, Margin, RandomSampling
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, UnmetNeedError

X, y = zoo.blobs(n=90)


def simulate(strategy=None, estimator=None, **options):
    settings = {"n_initial": 9, "batch_size": 6, "n_rounds": 3, "random_state": 0, **options}
    strategy = Margin() if strategy is None else strategy
    return SimulatedActiveLearning(LogisticRegression() if estimator is None else estimator, strategy, **settings)


@pytest.mark.parametrize("reinitialise", [True, False])
def test_rows_not_labelled_yet_reach_the_fit_that_wants_them(reinitialise):
    """Under the parameter named, every round's fit is given just the rows that it has no labels of."""
    seen = []

    class Hungry(LogisticRegression):
        def fit(self, X, y, X_unlabeled=None):
            seen.append((X.copy(), X_unlabeled.copy()))
            return super().fit(X, y)

        partial_fit = fit

    simulate(RandomSampling(), Hungry(), unlabeled_param="X_unlabeled", reinitialise=reinitialise).fit(X, y)
    assert [len(known) for known, _ in seen] == [9, 15, 21, 27]
    for parts in seen:
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)[:, 0]), np.sort(X[:, 0]))


def test_every_round_is_what_a_loop_by_hand_gives():
    """Scores, labels and rows equal a loop written out: query, add, fit anew, score on the rest."""
    fitted = simulate(Entropy(random_state=1)).fit(X, y)
    labeled = list(fitted.curve_[0].indices)
    for step, entry in enumerate(fitted.curve_):
        if step:
            pool = [i for i in range(90) if i not in labeled]
            labeled += [pool[i] for i in Entropy(random_state=1)(model, X[pool], 6)]  # noqa: F821 - bound below
        model = LogisticRegression().fit(X[labeled], y[labeled])
        rest = [i for i in range(90) if i not in labeled]
        assert entry.n_labels == len(labeled) == 9 + 6 * step
        assert entry.score == model.score(X[rest], y[rest])
        assert entry.indices.tolist() == labeled[len(labeled) - len(entry.indices) :]
    np.testing.assert_array_equal(fitted.labeled_indices_, labeled)
    np.testing.assert_array_equal(fitted.predict_proba(X), model.predict_proba(X))
    assert fitted.score(X, y) == model.score(X, y)


def test_strategies_start_from_the_same_rows():
    """Within a seed the initial rows do not depend on strategy or estimator; another seed has others."""
    runs = [simulate(s).fit(X, y).curve_[0].indices for s in (Margin(), RandomSampling(), NTKCPL(variant="self"))]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    assert set(simulate(random_state=1).fit(X, y).curve_[0].indices.tolist()) != set(runs[0].tolist())


def test_same_seed_same_curve_and_no_trace():
    """A skorch net's run repeats bit for bit; estimator, strategy, data and global generators are untouched."""
    net, strategy = zoo.net(), NTKCPL()
    simulation = simulate(strategy, net)
    with zoo.generators_untouched():
        first = simulation.fit(X, y).curve_
    torch.rand(3)
    second = clone(simulation).fit(X, y).curve_
    assert [r.score for r in first] == [r.score for r in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
    assert not hasattr(net, "module_")
    assert strategy.random_state is None
    assert not hasattr(strategy, "last_selection_")


def test_grid_search_reaches_strategy_and_net():
    """GridSearchCV over query_strategy__* and estimator__* with two workers finds parameters of both."""
    grid = {"query_strategy__max_clusters": [4, 8], "estimator__lr": [0.01, 0.1]}
    search = GridSearchCV(simulate(NTKCPL(), zoo.net(), n_rounds=2), grid, cv=2, n_jobs=2).fit(X, y)
    assert set(search.best_params_) == set(grid)
    assert search.cv_results_["mean_test_score"].shape == (4,)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_strategies_can_be_searched_over():
    """The strategy itself is a parameter."""
    search = GridSearchCV(simulate(), {"query_strategy": [Margin(), RandomSampling()]}, cv=2).fit(X, y)
    assert type(search.best_params_["query_strategy"]) in (Margin, RandomSampling)


def test_batches_may_vary():
    """A sequence of batch sizes gives one query each."""
    assert [r.n_labels for r in simulate(batch_size=[2, 5, 1]).fit(X, y).curve_] == [9, 11, 16, 17]


def test_stratified_start_has_every_class():
    """With as many initial labels as classes each class is there once, however rare."""
    rare = np.where(np.arange(90) < 88, 0, np.arange(90) - 87)
    fitted = simulate(initial="stratified", n_initial=3, n_rounds=1).fit(X, rare)
    assert sorted(rare[fitted.curve_[0].indices].tolist()) == [0, 1, 2]


def test_the_strategy_may_choose_the_first_labels():
    """initial="query" lets the strategy start from nothing, and refuses one that cannot."""
    curve = simulate(NTKCPL(variant="self"), initial="query").fit(X, y).curve_
    assert [r.n_labels for r in curve] == [9, 15, 21, 27]
    assert curve[0].query_seconds > 0
    with pytest.raises(UnmetNeedError, match="start without labels"):
        simulate(Entropy(), initial="query").fit(X, y)


def test_those_that_need_labels_may_start_from_random_ones():
    """initial="query_or_random": as "query" where the strategy starts from nothing, as "random" where it cannot."""
    for strategy, as_if in ((CoreSet(), "query"), (Entropy(), "random")):
        own, other = (simulate(strategy, initial=initial).fit(X, y) for initial in ("query_or_random", as_if))
        np.testing.assert_array_equal(own.labeled_indices_, other.labeled_indices_)
        assert [r.score for r in own.curve_] == [r.score for r in other.curve_]
        assert (own.curve_[0].query_seconds > 0) == (as_if == "query")
        again = simulate(strategy, initial="query_or_random").replay(X, y, past=own.curve_[:2])
        np.testing.assert_array_equal(again.labeled_indices_, own.labeled_indices_)


def test_continuing_keeps_the_weights():
    """reinitialise=False adds one pass over 15, 21 and 27 labels to the first fit; a fresh fit starts counting anew."""
    model = SGDClassifier(random_state=0)
    going_on, fresh = (simulate(RandomSampling(), model, reinitialise=r).fit(X, y) for r in (False, True))
    rows = going_on.labeled_indices_
    assert going_on.estimator_.t_ == clone(model).fit(X[rows[:9]], y[rows[:9]]).t_ + 15 + 21 + 27
    assert fresh.estimator_.t_ == clone(model).fit(X[rows], y[rows]).t_
    with pytest.raises(InvalidInputError, match=r"partial_fit .*got LogisticRegression"):
        simulate(reinitialise=False).fit(X, y)


def test_evaluation_set_and_scoring_are_honoured():
    """Scores come from the set given, by the scorer given."""
    fitted = simulate(evaluation_set=(X[:30], y[:30]), scoring="balanced_accuracy").fit(X, y)
    assert fitted.curve_[-1].score == balanced_accuracy_score(y[:30], fitted.predict(X[:30]))


def test_labels_of_any_kind():
    """String labels replay like numbers."""
    fitted = simulate().fit(X, np.array(["ant", "bee", "cat"])[y])
    assert fitted.classes_.tolist() == ["ant", "bee", "cat"]
    assert set(fitted.predict(X)) <= {"ant", "bee", "cat"}


def test_any_modal_strategy_runs(active_learner):
    """A plain function, as modAL's own strategies are, can be simulated too."""

    def first_rows(learner, X_pool, n_instances=1):
        return np.arange(n_instances), np.zeros(n_instances)

    def first_rows_alone(learner, X_pool, n_instances=1):
        return np.arange(n_instances)

    from modal_ntk.nets import wants_metrics

    strategy = first_rows if wants_metrics(active_learner(LogisticRegression())) else first_rows_alone
    assert [r.n_labels for r in simulate(strategy).fit(X, y).curve_] == [9, 15, 21, 27]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_initial": 0}, "n_initial to be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size to be an integer of at least 1"),
        ({"batch_size": [3, -1]}, "every entry of batch_size"),
        ({"n_rounds": 20}, "at most 89 labels over all rounds of 90 samples, got 129"),
        ({"initial": "all"}, "initial to be one of"),
    ],
)
def test_bad_schedules_are_refused_before_any_fit(options, message):
    """Each is an error naming the parameter, and nothing is fitted."""

    class Never(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError("fitted")

    with pytest.raises(InvalidInputError, match=message):
        simulate(estimator=Never(), **options).fit(X, y)


def test_labels_of_another_length_are_refused():
    """Samples and labels must belong together."""
    with pytest.raises(InvalidInputError, match="90 labels, one for each labelled sample, got 80"):
        simulate().fit(X, y[:80])
