"""The contract between a strategy and modAL, whichever version is installed."""

import modAL.models
import numpy as np
import pytest
import zoo
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import modal_ntk
from modal_ntk import Entropy, QueryStrategy, RandomSampling, Selection
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.nets import wants_metrics

X, y = zoo.blobs()
POOL = X[12:]


class Counting(QueryStrategy):
    """Takes the first rows; counts its calls and raises what it is told to."""

    calls = 0
    error = None

    def _select(self, query):
        type(self).calls += 1
        if self.error is not None:
            raise self.error
        return Selection(np.arange(query.n_instances), np.zeros(query.n_instances))


@pytest.fixture
def counting():
    Counting.calls = 0
    Counting.error = None
    return Counting()


@pytest.mark.parametrize("n_instances", [1, 2, 3, 48])
def test_query_gives_the_strategys_indices_and_their_rows(active_learner, counting, n_instances):
    """For every batch size, two included, learner.query gives (indices, rows), for one call of the strategy."""
    learner = active_learner(LogisticRegression(), counting, X[:12], y[:12])
    indices, rows = learner.query(POOL, n_instances=n_instances)
    assert indices.tolist() == list(range(n_instances))
    np.testing.assert_array_equal(rows, POOL[:n_instances])
    assert Counting.calls == 1
    assert counting.last_selection_.indices is indices


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_an_error_is_raised_once_and_nothing_runs_twice(active_learner, counting, error):
    """modAL 0.4.2 calls a failing strategy again; the error comes back at once, unchanged."""
    Counting.error = error
    learner = active_learner(LogisticRegression(), counting, X[:12], y[:12])
    with pytest.raises(type(error)) as raised:
        learner.query(POOL, n_instances=2)
    assert raised.value is error
    assert Counting.calls == 1


def test_a_users_own_retry_inside_a_handler_runs(active_learner, counting):
    """Only modAL's repetition is cut short: a query made anew while handling the error works again."""
    Counting.error = RuntimeError("once")
    learner = active_learner(LogisticRegression(), counting, X[:12], y[:12])
    try:
        learner.query(POOL, n_instances=2)
    except RuntimeError:
        Counting.error = None
        indices, _ = learner.query(POOL, n_instances=2)
    assert indices.tolist() == [0, 1]
    assert Counting.calls == 2


def test_metrics_reach_the_user_where_modal_has_them(active_learner):
    """return_metrics gives the scores of the chosen samples."""
    learner = active_learner(LogisticRegression(), Entropy(random_state=0), X[:12], y[:12])
    if not wants_metrics(learner):
        pytest.skip("modAL 0.4.1 has no return_metrics")
    indices, _, scores = learner.query(POOL, n_instances=3, return_metrics=True)
    assert scores.shape == indices.shape == (3,)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.skipif(not hasattr(modAL.models, "DeepActiveLearner"), reason="modAL 0.4.1 has no DeepActiveLearner")
def test_deep_active_learner_gives_its_labelled_set_by_keyword():
    """modAL's DeepActiveLearner keeps no data: query takes X_labeled and y_labeled."""
    learner = modAL.models.DeepActiveLearner(zoo.net(), modal_ntk.NTKCPL(random_state=0))
    with pytest.warns(ModalNTKWarning, match="keeps no labelled samples"):
        cold, _ = learner.query(POOL, n_instances=4)
    assert len(set(cold.tolist())) == 4
    learner.teach(X[:12], y[:12])
    indices, _ = learner.query(POOL, n_instances=4, X_labeled=X[:12], y_labeled=y[:12])
    assert len(set(indices.tolist())) == 4
    assert learner.query_strategy.last_selection_.info["n_clusters"] == 8


def test_committee_and_its_members_can_be_asked(active_learner):
    """A member is a learner like any other, and a committee has probabilities of its own."""
    members = [active_learner(LogisticRegression(C=c), Entropy(random_state=0), X[:12], y[:12]) for c in (0.1, 10)]
    committee = modAL.models.Committee(members, query_strategy=Entropy(random_state=0))
    assert len(Entropy(random_state=0)(members[0], POOL, 2)) == 2
    indices, rows = committee.query(POOL, n_instances=3)
    assert indices.shape == (3,)
    consensus = committee.predict_proba(POOL)
    expected = -(consensus * np.log(consensus)).sum(1)
    assert set(indices.tolist()) == set(np.argsort(-expected)[:3].tolist())
    np.testing.assert_array_equal(rows, POOL[indices])


@pytest.mark.parametrize(
    ("pool", "n_instances", "message"),
    [
        (POOL[:0], 1, "at least one sample, got an empty pool"),
        (POOL, 0, "between 1 and the pool's 48 samples, got 0"),
        (POOL, -3, "got -3"),
        (POOL, 49, "got 49"),
        (POOL, 2.0, "n_instances to be an integer, got 2.0"),
        (POOL, True, "n_instances to be an integer, got True"),
        (POOL, "5", "n_instances to be an integer, got '5'"),
        (np.where(np.arange(48)[:, None] == 7, np.nan, POOL), 1, "finite values in X_pool, got .* first in row 7"),
        (np.where(np.arange(48)[:, None] == 5, np.inf, POOL), 1, "first in row 5"),
        (POOL[:, :4], 1, r"samples of shape \(6,\), as the training set has, got shape \(4,\)"),
        ([[1.0, 2.0], [1.0]], 1, "one shape"),
    ],
)
def test_bad_pools_and_batches_are_refused_before_any_work(active_learner, counting, pool, n_instances, message):
    """Each bad input is an error that says what was expected and got, and the strategy never runs."""
    learner = active_learner(LogisticRegression(), counting, X[:12], y[:12])
    with pytest.raises(InvalidInputError, match=message):
        learner.query(pool, n_instances)
    assert Counting.calls == 0


@pytest.mark.parametrize(
    ("X_labeled", "y_labeled", "message"),
    [
        (X[:12], y[:11], "12 labels, one for each labelled sample, got 11 labels"),
        (X[:12], None, "X_labeled and y_labeled together, or neither, got only X_labeled"),
        (None, y[:12], "got only y_labeled"),
        (X[:12], np.where(np.arange(12) == 3, np.nan, 1.0), "a label for every labelled sample"),
        (X[:12], np.ones((12, 2)), "one label per sample"),
    ],
)
def test_labelled_sets_that_do_not_fit_are_refused(counting, X_labeled, y_labeled, message):
    """Labels that do not belong to the samples are an error before any work."""
    with pytest.raises(InvalidInputError, match=message):
        counting.select(LogisticRegression(), POOL, 1, X_labeled=X_labeled, y_labeled=y_labeled)
    assert Counting.calls == 0


def test_nan_is_let_through_where_the_learner_allows_it():
    """A learner made with force_all_finite=False may have missing values."""
    pool = POOL.copy()
    pool[0, 0] = np.nan
    learner = modal_ntk.ActiveLearner(RandomForestClassifier(3), RandomSampling(random_state=0), force_all_finite=False)
    assert len(learner.query(pool, 2)[0]) == 2


def test_an_unmet_need_says_what_is_missing_and_what_works_instead():
    """The error names the need, the estimator and the strategies that start without labels."""
    with pytest.raises(UnmetNeedError, match=r"probabilities .*got an unfitted LogisticRegression.*random_sampling"):
        Entropy().select(LogisticRegression(), POOL)


def test_strategies_named_in_that_error_do_start_cold():
    """Every strategy of the list selects for an unfitted learner without labels, and no other does."""
    from modal_ntk.strategies.common.remedies import COLD_START

    for registered in modal_ntk.list_strategies():
        strategy = registered.spec.factory(random_state=0)
        if registered.distribution == "modal-ntk":
            assert _starts_cold(strategy) == (registered.name in COLD_START), registered.name


def _starts_cold(strategy):
    try:
        return len(strategy.select(zoo.net(), POOL, 3).indices) == 3
    except UnmetNeedError:
        return False


def test_every_selection_tells_its_seconds(counting):
    """Whatever a strategy says of itself, how long it took in all is added."""
    selected = counting.select(LogisticRegression(), POOL, 2, X_labeled=X[:12], y_labeled=y[:12])
    assert selected.info["seconds"]["total"] > 0
