"""K-Median as a strategy; the choice itself is tested with the selection."""

import numpy as np
import pytest
import torch
import zoo

from modal_ntk import KMedian, selection
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs()


@pytest.mark.parametrize("method", ["kmeans", "kmedoids"])
def test_one_of_each_clear_group(method):
    """Of three groups far apart each gives one sample, in either method, labels or none."""
    for known in ({}, {"X_labeled": X[:12], "y_labeled": y[:12]}):
        selected = KMedian(method=method, n_init=5, random_state=0).select(None, X[12:], 3, **known)
        assert sorted(y[12:][selected.indices].tolist()) == [0, 1, 2]
        assert selected.scores.sum() == 48
        assert selected.info["features"] == "input"


def test_distances_are_those_of_the_embedding():
    """With a fitted net, medoids are those of the head's inputs."""
    net = zoo.net().fit(X[:12], y[:12])
    module = net.module_.eval()
    with torch.no_grad():
        e = torch.relu(module.norm(module.hidden(torch.from_numpy(X[12:]))))
    selected = KMedian(method="kmedoids", random_state=3).select(net, X[12:], 5)
    child = np.random.default_rng(np.random.default_rng(3).integers(2**31, size=4))
    np.testing.assert_array_equal(selected.indices, selection.k_medoids(e, 5, random_state=child).indices)
    assert selected.info["features"] == "embedding"


def test_what_cannot_be_used_is_told():
    """Parameters out of range are refused by name."""
    for wrong in ({"method": "x"}, {"n_init": 0}, {"features": 1}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            KMedian(**wrong).select(None, X, 2)
