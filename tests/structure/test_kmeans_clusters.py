"""Plain k-means."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from modal_ntk import structure
from modal_ntk.errors import InvalidInputError

X = np.random.default_rng(0).normal(size=(90, 3)) + np.repeat([[0], [9], [20]], 30, axis=0)


def test_it_is_scikit_learns():
    """From one seed, scikit-learn's clusters: k-means, or mini-batches above the limit."""
    seed = int(np.random.default_rng(3).integers(2**31))
    mini = structure.kmeans_clusters(X, 4, mini_batch_above=3, random_state=3)
    expected = MiniBatchKMeans(4, batch_size=5000, n_init=1, random_state=seed).fit(X)
    np.testing.assert_array_equal(mini.labels, np.unique(expected.labels_, return_inverse=True)[1])
    plain = structure.kmeans_clusters(X, 4, mini_batch_above=4, random_state=3)
    np.testing.assert_array_equal(plain.labels, KMeans(4, n_init=1, random_state=seed).fit(X).labels_)


@pytest.mark.parametrize("mini_batch_above", [None, 1])
def test_copies_make_one_cluster(mini_batch_above):
    """There are never more clusters than distinct rows, each is used, and nothing warns."""
    copies = np.repeat(X[:3], 5, axis=0)
    found = structure.kmeans_clusters(copies, 7, mini_batch_above=mini_batch_above, random_state=0)
    assert len(found.centers) == len(np.unique(found.labels)) == 3
    assert (found.labels.reshape(3, 5) == found.labels[::5, None]).all()


def test_bad_numbers_are_told():
    """No clusters and no starts are refused."""
    with pytest.raises(InvalidInputError, match="n_clusters"):
        structure.kmeans_clusters(X, 0)
    with pytest.raises(InvalidInputError, match="n_init"):
        structure.kmeans_clusters(X, 2, n_init=0)
