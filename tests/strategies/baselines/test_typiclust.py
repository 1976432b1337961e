"""TypiClust as a strategy; the choice itself is tested with the selection."""

import numpy as np
import oracles_distance as oracle
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans

from modal_ntk import TypiClust
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs()
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize("options", [{}, {"distance": "squared"}, {"neighbors": "cluster"}])
def test_takes_typical_rows_of_uncovered_clusters(options):
    """Two of three clear groups are labelled: the typical row of the third comes first, whatever k-means numbers."""
    known = {"X_labeled": X[[0, 1]], "y_labeled": y[[0, 1]]}
    selected = TypiClust(random_state=0, **options).select(None, X[2:], 1, **known)
    points = np.concatenate([UNIT[:2], UNIT[2:]])
    clusters = KMeans(3, n_init=10, random_state=0).fit_predict(points)
    power = 2 if options.get("distance") == "squared" else 1
    chosen, scores = oracle.typical(
        points, clusters, 2, 1, power=power, neighbors=options.get("neighbors", "remaining")
    )
    assert selected.indices.tolist() == chosen
    np.testing.assert_allclose(selected.scores, scores, rtol=1e-4)
    assert y[2:][selected.indices[0]] == 2
    assert (selected.info["n_clusters"], selected.info["n_covered"]) == (3, 2)


def test_the_number_of_clusters():
    """It is the number of labels there will be, at most max_clusters; more choices take further rounds."""
    assert TypiClust(random_state=0).select(None, X, 7).info["n_clusters"] == 7
    selected = TypiClust(max_clusters=3, random_state=0).select(None, X, 7)
    assert selected.info["n_clusters"] == 3
    assert np.bincount(y[selected.indices]).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_mini_batches_change_little():
    """With mini-batches from the first cluster on, clear groups are found all the same."""
    selected = TypiClust(mini_batch_above=0, random_state=0).select(None, X, 3)
    assert sorted(y[selected.indices].tolist()) == [0, 1, 2]


# Copies of labelled samples may be all there is of them in the pool, which is said.
@pytest.mark.filterwarnings("ignore:All . labelled samples are in the pool too")
@settings(deadline=None, max_examples=40)
@given(
    X=arrays(np.float32, st.tuples(st.integers(2, 15), st.just(2)), elements=st.integers(-2, 2).map(float)),
    n_labeled=st.integers(0, 3),
    mini_batch_above=st.sampled_from([None, 2]),
    min_cluster_size=st.integers(0, 5),
    seed=st.integers(0, 5),
)
def test_never_a_duplicate_never_a_crash(X, n_labeled, mini_batch_above, min_cluster_size, seed):
    """Copies, rows of zeros and covered clusters included, the whole pool can be queried."""
    n_labeled = min(n_labeled, len(X) - 1)
    pool = X[n_labeled:]
    strategy = TypiClust(mini_batch_above=mini_batch_above, min_cluster_size=min_cluster_size, random_state=seed)
    selected = strategy.select(None, pool, len(pool), X_labeled=X[:n_labeled], y_labeled=np.arange(n_labeled))
    assert sorted(selected.indices.tolist()) == list(range(len(pool)))
    assert np.isfinite(selected.scores).all()


def test_what_cannot_be_used_is_told():
    """Parameters out of range are refused by name."""
    for wrong in (
        {"n_neighbors": 0},
        {"max_clusters": 0},
        {"min_cluster_size": -1},
        {"mini_batch_above": -1},
        {"n_init": 0},
        {"distance": "cosine"},
        {"neighbors": "all"},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            TypiClust(**wrong).select(None, X, 2)
