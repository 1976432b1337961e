"""Farthest-point clustering and redundancy against their literal definitions."""

import numpy as np
import oracles_lpntk
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modal_ntk.errors import InvalidInputError
from modal_ntk.structure import farthest_point_clustering, redundant_samples

L2 = np.array(
    [[30, 25, 14, 15, 24], [25, 22, 12, 10, 20], [14, 12, 23, 18, 13], [15, 10, 18, 24, 11], [24, 20, 13, 11, 21]]
)


@st.composite
def kernels(draw):
    """Positive semi-definite kernels of small whole numbers, so that ties abound and sums are exact."""
    n, p = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    entries = st.lists(st.integers(-2, 2), min_size=n * p, max_size=n * p)
    features = np.array(draw(entries), dtype=float).reshape(n, p)
    return features @ features.T


class Rows:
    """A kernel that counts the rows it is asked for."""

    def __init__(self, kernel):
        self.kernel, self.asked = kernel, []

    def diagonal(self):
        return self.kernel.diagonal()

    def row(self, i):
        self.asked.append(i)
        return self.kernel[i]

    def block(self, start, stop, n_columns):
        return self.kernel[start:stop, :n_columns]

    def take(self, rows):
        return Rows(self.kernel[np.ix_(rows, rows)])


@pytest.mark.parametrize(
    ("n_clusters", "centres", "clusters"),
    [(1, [0], [0, 0, 0, 0, 0]), (2, [0, 2], [0, 0, 1, 1, 0]), (3, [0, 2, 3], [0, 0, 1, 2, 0])],
)
def test_the_worked_example(n_clusters, centres, clusters):
    """The matrix worked out by hand gives the centres and members worked out by hand."""
    found = farthest_point_clustering(L2, n_clusters)
    assert found.centres.tolist() == centres
    assert found.clusters.tolist() == clusters


def test_redundancy_of_the_worked_example():
    """Over full rows samples 1 and 4 are redundant; looking at later samples only, none is."""
    assert np.flatnonzero(redundant_samples(L2)).tolist() == [1, 4]
    assert not redundant_samples(L2, later_only=True).any()


@settings(deadline=None, max_examples=200)
@given(kernels(), st.data())
def test_clusters_are_those_of_the_lists(kernel, data):
    """Centres and members equal algorithm 3 run literally with lists, ties included, with or without first centres."""
    n = len(kernel)
    n_clusters = data.draw(st.integers(1, n))
    first = data.draw(st.none() | st.lists(st.integers(0, n - 1), min_size=1, max_size=n_clusters, unique=True))
    centres, lists = oracles_lpntk.farthest_point_lists(kernel, n_clusters, first)
    found = farthest_point_clustering(kernel, n_clusters, first=first)
    assert found.centres.tolist() == centres
    for number, members in enumerate(lists):
        assert sorted([*members, centres[number]]) == np.flatnonzero(found.clusters == number).tolist()


@settings(deadline=None, max_examples=100)
@given(kernels(), st.integers(0, 99))
def test_clusters_follow_a_permutation_where_nothing_ties(kernel, seed):
    """With distinct entries, renumbering the samples renumbers centres and clusters and changes nothing else."""
    rng = np.random.default_rng(seed)
    n = len(kernel)
    noise = rng.normal(size=(n, n + 1))
    kernel = kernel + 0.3 * noise @ noise.T
    order = rng.permutation(n)
    n_clusters = int(rng.integers(1, n + 1))
    plain = farthest_point_clustering(kernel, n_clusters)
    moved = farthest_point_clustering(kernel[np.ix_(order, order)], n_clusters)
    assert order[moved.centres].tolist() == plain.centres.tolist()
    assert moved.clusters.tolist() == plain.clusters[order].tolist()


@given(kernels())
def test_scaling_changes_nothing(kernel):
    """Only comparisons count: four times the kernel gives the same clusters and the same redundant samples."""
    n_clusters = (len(kernel) + 1) // 2
    plain, scaled = (farthest_point_clustering(k, n_clusters) for k in (kernel, 4 * kernel))
    assert plain.centres.tolist() == scaled.centres.tolist()
    assert plain.clusters.tolist() == scaled.clusters.tolist()
    assert redundant_samples(kernel).tolist() == redundant_samples(4 * kernel).tolist()


def test_one_row_per_centre_is_read():
    """A kernel given as rows on demand is asked for the row of each centre, once."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3))
    rows = Rows(features @ features.T)
    found = farthest_point_clustering(rows, 7)
    assert rows.asked == found.centres.tolist()
    again = farthest_point_clustering(torch.from_numpy(rows.kernel), 7)
    assert again.centres.tolist() == found.centres.tolist()


@settings(deadline=None, max_examples=200)
@given(kernels(), st.booleans())
def test_redundancy_is_its_definition(kernel, later_only):
    """A sample is redundant exactly if another's entry in its row is strictly larger than its own."""
    expected = oracles_lpntk.redundant(kernel, later_only)
    assert redundant_samples(kernel, later_only=later_only).tolist() == expected
    assert redundant_samples(Rows(kernel), later_only=later_only).tolist() == expected


@settings(deadline=None)
@given(kernels(), st.booleans(), st.integers(0, 8))
def test_a_limit_takes_the_most_redundant(kernel, later_only, at_most):
    """Under a limit those go whose largest entry with another is the largest share of their own, ties to the first."""
    # Whole numbers, so that no rounding decides, and none of them zero where shares are taken.
    kernel = np.round(kernel) + np.eye(len(kernel))
    redundant = np.flatnonzero(redundant_samples(kernel, later_only=later_only))
    compared = [kernel[i, i + 1 :] if later_only else np.delete(kernel[i], i) for i in redundant]
    shares = [others.max() / kernel[i, i] for i, others in zip(redundant, compared, strict=True)]
    expected = sorted(sorted(range(len(redundant)), key=lambda i: (-shares[i], i))[:at_most])
    found = redundant_samples(kernel, later_only=later_only, at_most=at_most)
    assert np.flatnonzero(found).tolist() == redundant[expected].tolist()


@given(kernels())
def test_a_sample_of_the_largest_entry_is_never_redundant(kernel):
    """What makes a sample redundant has a larger diagonal entry, so not all can go and what stays explains the rest."""
    redundant = redundant_samples(kernel)
    assert not redundant[kernel.diagonal().argmax()]
    for i in np.flatnonzero(redundant):
        others = np.flatnonzero(kernel[i] > kernel[i, i])
        assert (kernel.diagonal()[others] > kernel[i, i]).all()


def test_copies_do_not_make_each_other_redundant():
    """Two copies of a sample both stay, though rounding makes their common entry differ from their own."""
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(50, 400)).astype(np.float32), 2, axis=0)
    kernel = features @ features.T
    kernel *= 1 + 1e-7 * rng.normal(size=kernel.shape).astype(np.float32)
    assert not redundant_samples(kernel).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((L2, 6), "n_clusters of at most 5, the number of samples, got 6"),
        ((L2, 0), "n_clusters to be an integer of at least 1"),
        ((L2[:3], 2), r"square kernel of numbers .* shape \(3, 5\)"),
        ((np.zeros((0, 0)), 1), "at least one sample"),
        ((np.full((2, 2), np.nan), 1), "finite numbers, got NaN or infinity"),
    ],
)
def test_what_cannot_be_clustered_is_refused(arguments, message):
    """Wrong shapes, numbers and counts are errors that say what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        farthest_point_clustering(*arguments)


@pytest.mark.parametrize(("first", "message"), [([0, 0], "distinct"), ([0, 1, 2], "between 1 and n_clusters=2")])
def test_first_centres_must_fit(first, message):
    """First centres are distinct rows, no more than there are clusters."""
    with pytest.raises(InvalidInputError, match=message):
        farthest_point_clustering(L2, 2, first=first)
