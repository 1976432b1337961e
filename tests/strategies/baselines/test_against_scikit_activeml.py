"""Where definitions agree, utilities agree with scikit-activeml's, an implementation by other people."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from modal_ntk import BADGE, CoreSet, MaxHerding, ProbCover, selection

skactiveml = pytest.importorskip("skactiveml")
pool = pytest.importorskip("skactiveml.pool")

RNG = np.random.default_rng(0)
N_LABELED = 10
Y = np.arange(300) % 4
X = RNG.normal(scale=3, size=(4, 8))[Y] + RNG.normal(size=(300, 8))
PARTLY = np.where(np.arange(300) < N_LABELED, Y, np.nan).astype(float)
KNOWN = {"X_labeled": X[:N_LABELED], "y_labeled": Y[:N_LABELED]}


def theirs(strategy, batch_size, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return strategy.query(X=X, y=PARTLY, batch_size=batch_size, return_utilities=True, **arguments)


def test_coreset():
    """Without ties: the same samples in the same order, at the same distances."""
    indices, utilities = theirs(pool.CoreSet(random_state=0), 20)
    selected = CoreSet().select(None, X[N_LABELED:], 20, **KNOWN)
    assert (selected.indices + N_LABELED).tolist() == indices.tolist()
    np.testing.assert_allclose(selected.scores, np.nanmax(utilities, axis=1), rtol=1e-6)


def test_badge():
    """The first choice is the same; given the same choices, so are the chances, but for the origin.

    Their squared distances never exceed the squared length, as though the origin had been chosen first. The
    authors' code and the paper have no such centre, nor have we; with it put in, the chances agree.
    """
    from skactiveml.classifier import SklearnClassifier

    model = LogisticRegression().fit(X[:N_LABELED], Y[:N_LABELED])
    wrapped = SklearnClassifier(LogisticRegression(), classes=range(4)).fit(X, PARTLY)
    indices, utilities = theirs(pool.Badge(random_state=0), 15, clf=wrapped, fit_clf=False)
    selected = BADGE(features="input", random_state=0).select(model, X[N_LABELED:], 15)
    assert selected.indices[0] + N_LABELED == indices[0]
    p = torch.from_numpy(model.predict_proba(X[N_LABELED:]))
    residuals = torch.eye(4, dtype=p.dtype)[p.argmax(1)] - p
    rows = selection.OuterRows(residuals, torch.from_numpy(X[N_LABELED:]))
    assert selected.scores[0] == pytest.approx(float(rows.squared_norms().max()))
    nearest = torch.minimum(rows.squared_norms(), rows.squared_to(int(indices[0]) - N_LABELED))
    for chances, index in zip(utilities[1:, N_LABELED:], indices[1:], strict=True):
        known = ~np.isnan(chances)
        np.testing.assert_allclose(chances[known], (nearest / nearest.sum()).numpy()[known], atol=1e-9)
        nearest = torch.minimum(nearest, rows.squared_to(int(index) - N_LABELED))


@pytest.mark.parametrize("delta", [2.0, 4.0])
def test_probcover(delta):
    """At a radius that is no distance, gains are the same until all is covered; so are choices without ties."""
    # Their balls hold labelled samples, too, but these are covered from the start.
    _, utilities = theirs(pool.ProbCover(n_classes=4, deltas=[delta], random_state=0), 25)
    selected = ProbCover(delta=delta, normalise=False, random_state=0).select(None, X[N_LABELED:], 25, **KNOWN)
    first = utilities[0, N_LABELED:]
    assert selected.scores[0] == first.max()
    assert first[selected.indices[0]] == first.max()
    counts = selection.greedy_cover(torch.from_numpy(X[N_LABELED:]), 1, delta, centers=torch.from_numpy(X[:N_LABELED]))
    assert counts.indices[0] == first.argmax()


def test_probcovers_radius_by_purity():
    """Their grid of radii stops at the last point below ours, on the same clusters."""
    grid = np.arange(0.5, 12, 0.25)
    strategy = pool.ProbCover(n_classes=4, deltas=grid, random_state=0, cluster_algo_dict={"n_init": 10})
    theirs(strategy, 1)
    ours = ProbCover(n_classes=4, normalise=False, random_state=0).select(None, X[N_LABELED:], 1, **KNOWN).info["delta"]
    assert strategy.delta_max_ == grid[grid < ours].max()


def test_typiclust():
    """In one cluster the typicality of every row is the same, 1e-5 and their 1e-7 apart."""
    utilities = pool.TypiClust(k=5, random_state=0).query(
        X=X, y=np.full(300, np.nan), batch_size=1, return_utilities=True
    )[1]
    ours = selection.typicality(torch.from_numpy(X), 5)
    np.testing.assert_allclose(ours, utilities[0], rtol=1e-4)


def test_maxherding():
    """Without ties: the same samples in the same order; theirs, too, covers the pool alone."""
    indices, utilities = theirs(pool.MaxHerding(metric_dict={"gamma": 1.0}, random_state=0), 20)
    selected = MaxHerding().select(None, X[N_LABELED:], 20, **KNOWN)
    assert (selected.indices + N_LABELED).tolist() == indices.tolist()
    gains = np.nanmax(utilities, axis=1)
    np.testing.assert_allclose(selected.scores / selected.scores[0], gains / gains[0], rtol=1e-6)
