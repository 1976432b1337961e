"""CoreSet as a strategy; the selection itself is tested with k_center."""

import numpy as np
import oracles_distance as oracle
import pytest
import torch
import zoo

from modal_ntk import CoreSet
from modal_ntk.errors import InvalidInputError, UnknownNameError, UnmetNeedError

X, y = zoo.blobs()
KNOWN = {"X_labeled": X[:12], "y_labeled": y[:12]}


def test_the_example_on_a_line():
    """x = (0, 1, 4, 6, 7), 0 labelled: 7 (position 3 of the pool) then 4 (position 1)."""
    x = np.array([[1.0], [4.0], [6.0], [7.0]])
    selected = CoreSet().select(None, x, 2, X_labeled=np.zeros((1, 1)), y_labeled=["a"])
    assert selected.indices.tolist() == [3, 1]
    assert selected.info["features"] == "input"


def test_auto_is_the_embedding_of_a_fitted_net():
    """With a fitted net distances are those of the head's inputs; "input" takes the samples."""
    net = zoo.net().fit(X[:12], y[:12])
    module = net.module_.eval()
    with torch.no_grad():
        e = torch.relu(module.norm(module.hidden(torch.from_numpy(X)))).numpy()
    for features, points in (("auto", e), ("embedding", e), ("input", X)):
        selected = CoreSet(features=features).select(net, X[12:], 5, **KNOWN)
        assert selected.indices.tolist() == oracle.k_center(points[12:], points[:12], 5)[0]
        assert selected.info["features"] == ("input" if features == "input" else "embedding")


def test_a_layer_or_a_function_may_be_named():
    """A layer's output and a user's function serve as points, here both the same."""
    net = zoo.net().fit(X[:12], y[:12])
    layer = net.module_.hidden

    def by_hand(samples):
        with torch.no_grad():
            return layer(torch.as_tensor(samples))

    by_name = CoreSet(features="hidden").select(net, X[12:], 5, **KNOWN)
    by_call = CoreSet(features=by_hand).select(net, X[12:], 5, **KNOWN)
    np.testing.assert_array_equal(by_name.indices, by_call.indices)
    assert (by_name.info["features"], by_call.info["features"]) == ("hidden", "callable")


def test_what_cannot_be_used_is_told():
    """Unknown layers, layers without a net, numbers for names, and infinite features are refused by name."""
    net = zoo.net().fit(X[:12], y[:12])
    with pytest.raises(UnknownNameError, match="hiden"):
        CoreSet(features="hiden").select(net, X[12:], 2, **KNOWN)
    with pytest.raises(UnmetNeedError, match="embedding"):
        CoreSet(features="hidden").select(None, X[12:], 2, **KNOWN)
    with pytest.raises(InvalidInputError, match="features"):
        CoreSet(features=3).select(net, X[12:], 2, **KNOWN)
    with pytest.raises(InvalidInputError, match="first"):
        CoreSet(first="x").select(net, X[12:], 2, **KNOWN)
    with pytest.raises(InvalidInputError, match="finite features"):
        CoreSet(features=lambda X: np.full((len(X), 2), np.inf)).select(net, X[12:], 2, **KNOWN)


def test_a_net_in_half_precision():
    """Embeddings in bfloat16 are compared in single precision, and the net stays as it is."""
    net = zoo.net().fit(X[:12], y[:12])
    net.module_.bfloat16()
    selected = CoreSet().select(net, X[12:], 4, **KNOWN)
    assert len(set(selected.indices.tolist())) == 4
    assert net.module_.hidden.weight.dtype == torch.bfloat16


def test_starts_from_nothing():
    """Without labels or a model the first choice is random by seed, the rest farthest-first."""
    first = {int(CoreSet(random_state=s).select(None, X, 3).indices[0]) for s in range(5)}
    assert len(first) > 1
    selected = CoreSet(first="first").select(None, X, 3)
    assert selected.indices.tolist() == oracle.k_center(X, [], 3)[0]
