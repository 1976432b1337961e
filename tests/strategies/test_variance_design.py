"""VarianceDesign: the whole against solving anew, its kernels, its candidates; the sums are tested with look-ahead."""

import numpy as np
import oracles_kernels
import oracles_lookahead
import pytest
import torch
import zoo

from modal_ntk import VarianceDesign
from modal_ntk.errors import InvalidInputError, UnmetNeedError

X, y = zoo.blobs()
KNOWN = {"X_labeled": X[:4], "y_labeled": y[:4]}
POOL = X[4:]


def naive(kernel, n_labeled, n_instances):
    """Pool positions picked by conditioning on every candidate, one linear solve each, and the variance's falls."""
    known, picks, falls = list(range(n_labeled)), [], []
    everyone = np.arange(len(kernel))
    jitter = [1e-6 * np.mean(np.diag(kernel))] * n_labeled
    for _ in range(n_instances):
        before = oracles_lookahead.remaining_variance(kernel, known, jitter=jitter).sum()
        free = np.setdiff1d(everyone, known)
        after = [oracles_lookahead.remaining_variance(kernel, [*known, c], jitter=[*jitter, 0.0]).sum() for c in free]
        picks.append(int(free[np.argmin(after)]))
        falls.append(before - min(after))
        known, jitter = [*known, picks[-1]], [*jitter, 0.0]
    return np.array(picks) - n_labeled, falls


@pytest.mark.parametrize("cold", [True, False], ids=["no labels", "labels"])
@pytest.mark.parametrize("scaling", [None, "l2", "center_l2", "standard"])
def test_the_whole_equals_solving_anew(cold, scaling):
    """Picks and scores are those of the greedy design on the closed-form kernel of labelled samples and pool."""
    pool, labeled = (X[:40], {}) if cold else (X[4:40], KNOWN)
    x = X[:40].astype(np.float64)
    x = x - x.mean(axis=0) if scaling in ("center_l2", "standard") else x
    x = x / x.std(axis=0) if scaling == "standard" else x
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if scaling in ("l2", "center_l2") else x
    picks, falls = naive(oracles_kernels.infinite_width_oracle(x, x), 0 if cold else 4, 5)
    chosen = VarianceDesign(feature_scaling=scaling, dtype="float64", random_state=0).select(None, pool, 5, **labeled)
    assert chosen.indices.tolist() == picks.tolist()
    np.testing.assert_allclose(chosen.scores, falls, rtol=1e-5)


def test_the_kernel_of_the_learners_own_net():
    """With kernel="net" the design is that of the empirical kernel at the net's weights as they stand."""
    net = zoo.net().fit(X[:20], y[:20])
    kernel = oracles_kernels.kernel_oracle(net.module_, torch.from_numpy(X[:30]), torch.from_numpy(X[:30]), "pseudo")
    picks, _ = naive(kernel.numpy(), 4, 4)
    chosen = VarianceDesign(kernel="net", dtype="float64", random_state=0).select(net, X[4:30], 4, **KNOWN)
    assert chosen.indices.tolist() == picks.tolist()
    with pytest.raises(UnmetNeedError, match="gradients"):
        VarianceDesign(kernel="net").select(None, POOL, 2)


def test_single_precision_holds_the_same_design():
    """By default the kernel is held in single precision: picks and scores are those of double precision, rounded."""
    single, double = (
        VarianceDesign(dtype=d, random_state=0).select(None, POOL, 6, **KNOWN) for d in ("float32", "float64")
    )
    assert single.indices.tolist() == double.indices.tolist()
    np.testing.assert_allclose(single.scores, double.scores, rtol=1e-4)


def test_the_unit_of_the_features_changes_nothing():
    """Features times 1, 10 and 100 give the same picks."""
    picks = [VarianceDesign(random_state=0).select(None, unit * POOL, 6).indices.tolist() for unit in (1, 10, 100)]
    assert picks[0] == picks[1] == picks[2]


def test_candidates_are_a_seeded_part_of_the_pool():
    """Picks come from so many random rows, which a fixed seed repeats."""
    first, again, other = (
        VarianceDesign(n_candidates=8, random_state=seed).select(None, POOL, 6, **KNOWN) for seed in (0, 0, 1)
    )
    assert first.info["n_candidates"] == 8
    assert first.indices.tolist() == again.indices.tolist()
    assert set(first.indices.tolist()) != set(other.indices.tolist())
    assert VarianceDesign(n_candidates=3).select(None, POOL, 6).info["n_candidates"] == 6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel": "trace"}, "kernel"),
        ({"feature_scaling": "max"}, "feature_scaling"),
        ({"n_candidates": 0}, "n_candidates"),
        ({"memory_budget": 1000}, "at most 1000 bytes"),
        ({"rel_jitter": 0}, "rel_jitter"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(parameters, message, monkeypatch):
    """A parameter that cannot be used is named, and no kernel is computed."""
    monkeypatch.setattr("modal_ntk.kernels.infinite_width_ntk", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(InvalidInputError, match=message):
        VarianceDesign(**parameters).select(None, POOL, 2)
