"""SimulatedActiveLearning among scikit-learn's tools: its own checks, and searches over strategies and nets."""

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
import zoo
from packaging.version import Version
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the next import possible
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, StratifiedKFold
from sklearn.utils.estimator_checks import check_estimator

from modal_ntk import NTKCPL, Entropy, Margin, RandomSampling
from modal_ntk.bench import SimulatedActiveLearning, area_score
from modal_ntk.bench.analysis.statistics import aubc
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs(n=90)

# The checks fit ten samples: a schedule within them.
SMALL = SimulatedActiveLearning(
    LogisticRegression(), Margin(), n_initial=4, batch_size=2, n_rounds=1, initial="stratified", random_state=0
)

EXPECTED = {
    "check_supervised_y_2d": "a column of labels is flattened as the documentation says, without a warning",
}


@pytest.mark.skipif(Version(sklearn.__version__) < Version("1.6"), reason="reports of the checks came with 1.6")
def test_scikit_learns_own_checks():
    """Every check that scikit-learn has for a classifier passes, but for those that EXPECTED names with a reason."""
    results = check_estimator(SMALL, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert set(failed) == set(EXPECTED), failed
    assert sum(r["status"] == "passed" for r in results) > 40


def simulate(strategy=None, estimator=None, **options):
    settings = {"n_initial": 9, "batch_size": 6, "n_rounds": 2, "random_state": 0, **options}
    return SimulatedActiveLearning(estimator or LogisticRegression(), strategy or Margin(), **settings)


class TestSearches:
    def test_grid_over_strategies_and_nets(self):
        """With two workers, the same table as with one."""
        grid = [
            {"query_strategy": [Margin(), Entropy()], "estimator__lr": [0.01, 0.1]},
            {"query_strategy": [NTKCPL()], "query_strategy__max_clusters": [4, 8]},
        ]
        one, two = (GridSearchCV(simulate(estimator=zoo.net()), grid, cv=2, n_jobs=n).fit(X, y) for n in (1, 2))
        np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
        assert len(one.cv_results_["params"]) == 6

    def test_randomised_over_a_distribution(self):
        """Parameters of the estimator drawn from a distribution, and the strategy from a list."""
        space = {"estimator__C": loguniform(1e-2, 1e2), "query_strategy": [Margin(), RandomSampling()]}
        search = RandomizedSearchCV(simulate(), space, n_iter=4, cv=2, random_state=0, n_jobs=2).fit(X, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert len({params["estimator__C"] for params in search.cv_results_["params"]}) == 4

    def test_halving_over_the_number_of_queries(self):
        """Successive halving with rounds for its resource: half of the candidates get twice the queries."""
        grid = {"estimator__C": [0.01, 0.1, 1.0, 10.0]}
        halving = HalvingGridSearchCV(
            simulate(), grid, cv=2, resource="n_rounds", min_resources=1, max_resources=4, factor=2, random_state=0
        ).fit(X, y)
        assert halving.n_resources_ == [1, 2, 4]
        assert halving.n_candidates_ == [4, 2, 1]
        assert [r.n_labels for r in halving.best_estimator_.curve_] == [9, 15, 21, 27, 33]

    def test_the_default_score_is_the_final_accuracy(self):
        """On the fold held out, of the estimator of the last round."""
        folds = StratifiedKFold(2)
        search = GridSearchCV(simulate(), {"query_strategy": [Margin()]}, cv=folds).fit(X, y)
        for i, (train, test) in enumerate(folds.split(X, y)):
            expected = simulate().fit(X[train], y[train]).estimator_.score(X[test], y[test])
            assert search.cv_results_[f"split{i}_test_score"][0] == expected


class TestArea:
    def test_it_is_the_area_on_the_fold_held_out(self):
        """Each round's estimator is scored on the fold, and the area is that of the benchmark."""
        folds = StratifiedKFold(2)
        simulation = simulate(keep_estimators=True)
        search = GridSearchCV(simulation, {"query_strategy": [Margin()]}, cv=folds, scoring=area_score).fit(X, y)
        for i, (train, test) in enumerate(folds.split(X, y)):
            rows = clone(simulation).fit(X[train], y[train]).labeled_indices_
            scores = [
                LogisticRegression().fit(X[train][rows[:n]], y[train][rows[:n]]).score(X[test], y[test])
                for n in (9, 15, 21)
            ]
            assert search.cv_results_[f"split{i}_test_score"][0] == pytest.approx(aubc([9, 15, 21], scores))

    def test_estimators_of_the_rounds_are_kept_apart(self):
        """Also where training goes on in one estimator; nothing is kept unless asked for."""
        fitted = simulate(
            RandomSampling(), SGDClassifier(random_state=0), reinitialise=False, keep_estimators=True
        ).fit(X, y)
        counts = [estimator.t_ for estimator in fitted.estimators_]
        assert counts == sorted(set(counts))
        assert counts[-1] == fitted.estimator_.t_
        assert not hasattr(simulate().fit(X, y), "estimators_")

    def test_without_the_estimators_it_says_what_to_do(self):
        """The area on new samples needs them."""
        with pytest.raises(InvalidInputError, match="keep_estimators=True"):
            area_score(simulate().fit(X, y), X, y)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"])
def test_every_sparse_format_is_a_pool(kind):
    """The picks are those of the dense pool."""
    dense = simulate().fit(X, y).labeled_indices_
    pool = sp.csr_matrix(X).asformat(kind)
    np.testing.assert_array_equal(simulate().fit(pool, y).labeled_indices_, dense)
