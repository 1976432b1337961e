"""Distances of rows of any finite size: no square overflows, none vanishes, and no NaN takes part."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modal_ntk import BADGE, DDAL, NTKCPL, CoreSet, KMedian, ProbCover, TypiClust
from modal_ntk.errors import InvalidInputError
from modal_ntk.selection import (
    DenseRows,
    OuterRows,
    greedy_cover,
    k_center_greedy,
    k_medoids,
    kmeans_plus_plus,
    nearest_to_centers,
    purity_radius,
    typicality,
)
from modal_ntk.structure import (
    constrained_kmeans,
    distance_to_other_groups,
    kmeans_clusters,
    knn_transition,
    nearest_neighbors,
    nearest_rows,
)
from modal_ntk.structure.magnitudes import measurable, unit_rows

# Powers of two, so that every size has the ties of the ordinary one; with the rows, to the ends of float32.
SIZES = tuple(2.0**power for power in (-140, -100, -50, 0, 50, 63, 64, 100, 125))
ROWS = np.array([[4, 0], [0, 0], [1, 0], [2, 0], [-3, 1], [0, 2.5]])
GROUPS = torch.tensor([0, 0, 1, 1, 2, 2])


def tensor(size, rows=ROWS):
    return torch.from_numpy((rows * size).astype(np.float32))


def squared(X):
    X = np.asarray(X, np.longdouble)
    return ((X[:, None] - X[None]) ** 2).sum(-1)


@pytest.mark.parametrize("size", SIZES)
class TestAnySize:
    def test_distances_are_those_of_long_doubles(self, size):
        """Dense and outer rows, neighbours and other groups: relative error of float32, at any size."""
        X = tensor(size)
        wanted = squared(X)
        rows = DenseRows(X)
        for i in range(len(X)):
            np.testing.assert_allclose(rows.squared_to(i), wanted[i].astype(float), rtol=1e-6)
        gaps = np.sqrt(wanted + np.diag([np.inf] * len(X))).astype(float)
        np.testing.assert_allclose(nearest_rows(X)[0][:, 0], gaps.min(1), rtol=1e-6)
        others = np.where(GROUPS[:, None] == GROUPS[None], np.inf, gaps)
        np.testing.assert_allclose(distance_to_other_groups(X, GROUPS), others.min(1), rtol=1e-6)
        np.testing.assert_allclose(purity_radius(X, GROUPS, 1.0), others.min(), rtol=1e-6)
        np.testing.assert_allclose(nearest_neighbors(X, 2)[1][:, 0] ** 0.5, gaps.min(1), rtol=1e-6)

    def test_outer_rows(self, size):
        """The same for outer products, also where each factor is of ordinary size and their product is not."""
        for left, right in ((tensor(1.0), tensor(size)), (tensor(size**0.5), tensor(size**0.5))):
            wanted = squared((left.double()[:, :, None] * right.double()[:, None, :]).flatten(1))
            rows = OuterRows(left, right)
            for i in range(len(left)):
                np.testing.assert_allclose(rows.squared_to(i), wanted[i].astype(float), rtol=1e-4)

    def test_selections_do_not_depend_on_size(self, size):
        """Whatever compares distances with one another picks the same rows at any size, each once."""
        X, plain = tensor(size), tensor(1.0)
        for choose in (
            lambda x: k_center_greedy(x, 6, first="first"),
            lambda x: k_center_greedy(x, 3, centers=x[1:2]),
            lambda x: kmeans_plus_plus(DenseRows(x), 6, random_state=0),
            lambda x: kmeans_plus_plus(OuterRows(plain, x), 6, random_state=0),
            lambda x: k_medoids(x, 3, random_state=0),
            lambda x: nearest_to_centers(x, 3, random_state=0),
            lambda x: greedy_cover(x, 3, 1.5 * float(x[2, 0]), random_state=0),
        ):
            got = choose(X).indices.tolist()
            assert got == choose(plain).indices.tolist()
            assert len(set(got)) == len(got)
        for structure in (
            lambda x: kmeans_clusters(x.numpy(), 3, random_state=0).labels.tolist(),
            lambda x: kmeans_clusters(x.numpy(), 3, mini_batch_above=1, random_state=0).labels.tolist(),
            lambda x: constrained_kmeans(x.numpy(), 3, labeled=[0, 1], labels=[0, 1], random_state=0).labels.tolist(),
            lambda x: knn_transition(x, 2).toarray().round(4).tolist(),
            lambda x: typicality(x, 2, epsilon=0.0).argsort().tolist(),
        ):
            np.testing.assert_allclose(structure(X), structure(plain), atol=2e-4)

    @pytest.mark.parametrize("kind", [CoreSet, KMedian, TypiClust, ProbCover, DDAL, NTKCPL])
    def test_strategies_do_not_depend_on_size(self, kind, size):
        """Every strategy on features gives as many distinct picks as asked for, with finite scores."""
        options = {} if kind is NTKCPL else {"features": "input"}
        options |= {"n_neighbors": 2} if kind is DDAL else {}
        selected = kind(random_state=0, **options).select(None, ROWS.astype(np.float32) * np.float32(size), 4)
        assert len(set(selected.indices.tolist())) == 4
        assert np.isfinite(selected.scores).all()

    def test_rows_of_length_one(self, size):
        """Rows are scaled to length one at any size; zeros stay."""
        lengths = np.linalg.norm(unit_rows(tensor(size).numpy()), axis=1)
        np.testing.assert_allclose(lengths, [1, 0, 1, 1, 1, 1], rtol=1e-6)


def test_badge_at_the_ends_of_float32():
    """Certain predictions on huge features, and doubtful ones on tiny features, give distinct picks."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[-1.0, 0.0], [1.0, 0.0]], [0, 1])
    for size in (1e-30, 1e30, 3e37):
        for options in ({}, {"n_averaged": 2}):
            selected = BADGE(features="input", random_state=0, **options).select(
                model, ROWS.astype(np.float32) * np.float32(size), 4
            )
            assert len(set(selected.indices.tolist())) == 4
            assert np.isfinite(selected.scores).all()


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
        min_size=3,
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_farthest_first_takes_every_row_once(rows, n_centers):
    """Whatever finite float32 the rows hold, all of them can be chosen, with scores that are finite and never rise."""
    X = torch.tensor(rows, dtype=torch.float32)
    picks = k_center_greedy(X, len(X), centers=X[:n_centers], random_state=0)
    assert sorted(picks.indices.tolist()) == list(range(len(X)))
    assert np.isfinite(picks.scores).all()
    assert (np.diff(picks.scores) <= 0).all()


def test_ordinary_rows_stay_as_they_are():
    """What float32 can square is neither copied nor widened; matrices that are compared get one type."""
    X = torch.ones(3, 2)
    assert measurable(X) is X
    assert [part.dtype for part in measurable(X, X * 1e30)] == [torch.float64] * 2
    assert [part.dtype for part in measurable(X.double(), X)] == [torch.float64] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "take",
    [
        DenseRows,
        lambda x: OuterRows(x, torch.ones(6, 2)),
        nearest_rows,
        lambda x: nearest_rows(torch.ones(6, 2), x),
        lambda x: distance_to_other_groups(x, GROUPS),
        lambda x: k_center_greedy(x, 2),
        lambda x: k_center_greedy(torch.ones(6, 2), 2, centers=x),
        lambda x: k_medoids(x, 2),
        lambda x: nearest_to_centers(x, 2),
        lambda x: greedy_cover(x, 2, 1.0),
        lambda x: purity_radius(x, GROUPS),
        lambda x: typicality(x, 2),
        lambda x: knn_transition(x.numpy(), 2),
        lambda x: kmeans_clusters(x.numpy(), 2),
    ],
)
def test_no_nan_takes_part(bad, take):
    """NaN and infinity are refused wherever distances are taken, naming the first row."""
    X = tensor(1.0)
    X[4, 1] = bad
    with pytest.raises(InvalidInputError, match=r"NaN or infinity, first in row 4"):
        take(X)


@pytest.mark.parametrize(("size", "said"), [(1e300, r"4e\+300"), (1e-200, "4e-200")])
@pytest.mark.parametrize("choose", [k_center_greedy, k_medoids, nearest_to_centers])
def test_what_float64_cannot_square_is_refused(size, said, choose):
    """Squares of 1e300 are infinite and of 1e-200 are zero; the error says to scale, and what it says works."""
    rows = torch.from_numpy(ROWS * size)
    with pytest.raises(InvalidInputError, match=f"a largest entry of {said}. Scale the features"):
        choose(rows, 2)
    assert (
        choose(rows / rows.max(), 2, random_state=0).indices.tolist()
        == choose(torch.from_numpy(ROWS / ROWS.max()), 2, random_state=0).indices.tolist()
    )
