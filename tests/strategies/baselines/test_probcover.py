"""ProbCover as a strategy; the cover itself is tested with the selection."""

import numpy as np
import oracles_distance as oracle
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans

from modal_ntk import ProbCover
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs()
KNOWN = {"X_labeled": X[:12], "y_labeled": y[:12]}
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize("delta", [0.2, 0.5])
def test_covers_on_the_unit_sphere(delta):
    """Rows are scaled to length one, labelled balls are covered, and gains are those of the stored graph."""
    selected = ProbCover(delta=delta, random_state=0).select(None, X[12:], 8, **KNOWN)
    chosen, gains, share = oracle.cover(UNIT[12:], UNIT[:12], delta, 8)
    assert selected.indices[: len(chosen)].tolist() == chosen
    assert selected.scores[: len(gains)].tolist() == gains
    assert selected.info["coverage"] == pytest.approx(share)
    assert (selected.info["delta"], selected.info["features"]) == (delta, "input")


def test_the_radius_by_purity():
    """ "purity" gives the largest radius at which 95 % of the balls of all samples are pure in k-means clusters."""
    selected = ProbCover(n_classes=3, random_state=0).select(None, X[12:], 2, **KNOWN)
    clusters = KMeans(3, n_init=10, random_state=1).fit_predict(UNIT)  # well apart: any start finds them
    assert selected.info["delta"] == pytest.approx(oracle.purest_radius(UNIT, clusters, 0.95), rel=1e-5)
    more = ProbCover(n_classes=3, purity=0.5, random_state=0).select(None, X[12:], 2, **KNOWN)
    assert more.info["delta"] > selected.info["delta"]


def test_the_number_of_clusters():
    """It is what is asked for, or the model's classes, or the labels', or at a cold start the batch size."""
    net = zoo.net().fit(X[:12], np.minimum(y[:12], 1))
    assert ProbCover(n_classes=5).select(net, X[12:], 4, **KNOWN).info["n_classes"] == 5
    assert ProbCover().select(net, X[12:], 4, **KNOWN).info["n_classes"] == 3
    two = {"X_labeled": X[:12], "y_labeled": np.minimum(y[:12], 1)}
    assert ProbCover().select(None, X[12:], 4, **two).info["n_classes"] == 2
    assert ProbCover().select(None, X, 4).info["n_classes"] == 4
    assert ProbCover().select(None, X, 1).info["n_classes"] == 2


# Copies of labelled samples may be all there is of them in the pool, which is said.
@pytest.mark.filterwarnings("ignore:All . labelled samples are in the pool too")
@settings(deadline=None, max_examples=40)
@given(
    X=arrays(np.float32, st.tuples(st.integers(2, 15), st.just(2)), elements=st.integers(-2, 2).map(float)),
    n_labeled=st.integers(0, 3),
    delta=st.sampled_from(["purity", 1e-3, 0.7, 5.0]),
    seed=st.integers(0, 5),
)
def test_never_a_duplicate_never_a_crash(X, n_labeled, delta, seed):
    """Whatever is covered, copies and rows of zeros included, the whole pool can be queried."""
    n_labeled = min(n_labeled, len(X) - 1)
    pool, known = X[n_labeled:], X[:n_labeled]
    selected = ProbCover(delta=delta, random_state=seed).select(
        None, pool, len(pool), X_labeled=known, y_labeled=np.arange(n_labeled)
    )
    assert sorted(selected.indices.tolist()) == list(range(len(pool)))
    assert np.isfinite(selected.scores).all()


def test_pools_below_500_keep_their_last_rows():
    """The last of few rows can be chosen and covered: here it covers most."""
    pool = np.concatenate([np.arange(9)[:, None] * 10.0, [[100.0], [100.1], [100.05]]])
    selected = ProbCover(delta=0.07, normalise=False).select(None, pool, 1)
    assert (selected.indices.tolist(), selected.scores.tolist()) == ([11], [3.0])


def test_what_cannot_be_used_is_told():
    """Parameters out of range are refused by name."""
    for wrong in ({"delta": "x"}, {"delta": 0}, {"purity": 2}, {"purity": 0}, {"n_classes": 1}, {"n_init": 0}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            ProbCover(**wrong).select(None, X, 2)
