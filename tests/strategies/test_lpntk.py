"""lpNTK as a query strategy against its rule run literally on the explicit kernel."""

from pathlib import Path

import numpy as np
import oracles_lpntk
import pytest
import torch
import zoo
from sklearn.linear_model import LogisticRegression
from torch import nn

from modal_ntk import LpNTK
from modal_ntk.bench.loop.memory import PeakMemory
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.kernels import empirical_ntk, kernel_rows

X, y = zoo.blobs(n=80)
LABELED = {"X_labeled": X[:10], "y_labeled": y[:10]}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return zoo.net(max_epochs=6).fit(X[:10], y[:10])


def explicit(net, n_known=10):
    """Labels, the labelled kernel over labelled and pool samples, and who is redundant, by definition."""
    labels = np.concatenate([y[:n_known], net.predict(X[10:])])
    x = torch.from_numpy(np.concatenate([X[:n_known], X[10:]]))
    kernel = empirical_ntk(net.module_, x, kind="labelled", labels=labels, method="explicit").numpy()
    return labels, kernel, np.array(oracles_lpntk.redundant(kernel))


@pytest.mark.parametrize("n_known", [10, 0])
def test_picks_cover_the_pool_by_interchangeability(net, n_known):
    """Each pick adds most to the sum of every candidate's largest cosine with labelled and chosen samples."""
    _, kernel, _ = explicit(net, n_known)
    kernel = kernel.astype(np.float64)
    lengths = np.sqrt(np.diag(kernel))
    near = np.maximum(kernel / lengths[:, None] / lengths, 0)
    cover = near[n_known:, :n_known].max(axis=1) if n_known else np.zeros(70)
    selected = LpNTK(random_state=0).select(net, X[10:], 6, **(LABELED if n_known else {}))
    for index, score in zip(selected.indices, selected.scores, strict=True):
        gains = np.array([np.maximum(near[n_known:, n_known + i] - cover, 0).sum() for i in range(70)])
        assert gains[index] >= gains.max() - 1e-4
        assert score == pytest.approx(gains[index], abs=1e-4)
        cover = np.maximum(cover, near[n_known:, n_known + index])
    assert selected.info["coverage"] == pytest.approx(cover.mean(), abs=1e-5)
    assert LpNTK().rule == "coverage"


def test_a_copy_of_a_labelled_sample_covers_nothing_more(net):
    """Copies of labelled samples whose label is the predicted one are asked about after all others."""
    right = [i for i in range(10) if net.predict(X[i : i + 1])[0] == y[i]]
    pool = np.concatenate([X[right], X[40:60]])
    selected = LpNTK(random_state=0).select(net, pool, 20, **LABELED)
    assert set(selected.indices[:10].tolist()) <= set(range(len(right), len(pool)))


@pytest.mark.parametrize("n_known", [10, 0])
@pytest.mark.parametrize("skip_redundant", [True, False])
def test_a_large_budget_takes_the_farthest_points(net, n_known, skip_redundant):
    """Picks are those of the list algorithm with the labelled samples as first centres, redundant rows left out."""
    _, kernel, redundant = explicit(net, n_known)
    free = [i for i in range(len(kernel)) if i < n_known or not (skip_redundant and redundant[i])]
    centres, _ = oracles_lpntk.farthest_point_lists(
        kernel[np.ix_(free, free)], n_known + 6, range(n_known) if n_known else None
    )
    known = LABELED if n_known else {}
    strategy = LpNTK(rule="clusters", budget="large", skip_redundant=skip_redundant)
    selected = strategy.select(net, X[10:], 6, **known)
    assert selected.indices.tolist() == [free[c] - n_known for c in centres[n_known:]]
    before = list(range(n_known))
    for index, score in zip(selected.indices + n_known, selected.scores, strict=True):
        expected = -max(kernel[index, before]) if before else 0.0
        np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-4)
        before.append(index)
    assert selected.info["n_redundant_chosen"] == 0 or not skip_redundant


def test_a_small_budget_takes_members_of_the_heads(net):
    """Picks are not redundant, in the largest cluster of their predicted class, and random by seed."""
    labels, kernel, redundant = explicit(net)
    heads = set()
    for label in np.unique(labels):
        rows = [i for i in range(80) if labels[i] == label and not redundant[i]]
        n_clusters = max(1, round(0.3 * len(rows)))
        centres, lists = oracles_lpntk.farthest_point_lists(kernel[np.ix_(rows, rows)], n_clusters)
        clusters = [[rows[c], *(rows[i] for i in m)] for c, m in zip(centres, lists, strict=True)]
        heads |= set(max(clusters, key=len))
    picks = [
        LpNTK(rule="clusters", budget="small", cluster_share=0.3, random_state=s).select(net, X[10:], 5, **LABELED)
        for s in (0, 0, 1)
    ]
    assert all(set((p.indices + 10).tolist()) <= heads for p in picks)
    assert picks[0].indices.tolist() == picks[1].indices.tolist() != picks[2].indices.tolist()
    assert all(0 < s <= 1 for s in picks[0].scores)


def test_a_small_budget_goes_on_to_smaller_clusters(net):
    """When the heads are used up, members of smaller clusters follow, redundant samples last."""
    selected = LpNTK(rule="clusters", budget="small", cluster_share=0.3, random_state=0).select(
        net, X[10:], 70, **LABELED
    )
    _, _, redundant = explicit(net)
    assert sorted(selected.indices.tolist()) == list(range(70))
    gone = redundant[selected.indices + 10]
    assert gone.any()
    assert not gone[: 70 - gone.sum()].any()
    assert selected.info["n_redundant_chosen"] == gone.sum() == selected.info["n_redundant"]


def test_a_large_budget_takes_redundant_samples_last(net):
    """When nothing else is left redundant samples are taken, after all others, and the info says how many."""
    selected = LpNTK(rule="clusters", budget="large").select(net, X[10:], 70, **LABELED)
    _, _, redundant = explicit(net)
    gone = redundant[selected.indices + 10]
    assert sorted(selected.indices.tolist()) == list(range(70))
    assert not gone[: 70 - gone.sum()].any()
    assert selected.info["n_redundant_chosen"] == gone.sum() > 0


@pytest.mark.parametrize(("n_instances", "budget"), [(2, "small"), (3, "large")])
def test_auto_switches_by_the_share_of_labels(net, n_instances, budget):
    """With 10 labels of 80, a share of .15 allows 2 more; a third makes the budget large."""
    strategy = LpNTK(rule="clusters", small_share=0.15, random_state=0)
    assert strategy.select(net, X[10:], n_instances, **LABELED).info["budget"] == budget


def test_copies_of_labelled_samples_are_left_alone(net):
    """A pool full of copies of a labelled sample is asked about last."""
    pool = np.concatenate([np.repeat(X[:1], 30, axis=0), X[40:50]])
    selected = LpNTK(rule="clusters", budget="large", skip_redundant=False).select(net, pool, 8, **LABELED)
    copies = np.flatnonzero(selected.indices < 30)
    predicted = net.predict(X[:1])[0]
    assert len(copies) == 0 or predicted != y[0]


def test_a_permuted_pool_gives_the_same_samples(net):
    """Renumbering the pool renumbers the picks of the farthest points, where nothing ties."""
    order = np.random.default_rng(0).permutation(70)
    plain = LpNTK(rule="clusters", budget="large").select(net, X[10:], 6, **LABELED)
    moved = LpNTK(rule="clusters", budget="large").select(net, X[10:][order], 6, **LABELED)
    assert order[moved.indices].tolist() == plain.indices.tolist()


def test_candidates_are_a_seeded_subset(net):
    """n_candidates looks at that many pool samples, never fewer than the batch, chosen by seed."""
    first, again, other = (LpNTK(n_candidates=12, random_state=s).select(net, X[10:], 4, **LABELED) for s in (0, 0, 1))
    assert first.info["n_candidates"] == 12
    assert first.indices.tolist() == again.indices.tolist() != other.indices.tolist()
    assert len(LpNTK(n_candidates=2, random_state=0).select(net, X[10:], 5, **LABELED).indices) == 5


def test_a_tight_memory_sketches_and_says_so(net):
    """Beyond memory_budget the kernel is sketched, with a warning; the picks follow the seed."""
    strategy = LpNTK(memory_budget=100, sketch_dim=16, random_state=0)
    with pytest.warns(ModalNTKWarning, match=r"more than memory_budget \(100 bytes\)"):
        selected = strategy.select(net, X[10:], 5, **LABELED)
    assert selected.info["method"] == "sketch"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a stretch of work")
@pytest.mark.filterwarnings("ignore:Exact gradients of all samples")
@pytest.mark.parametrize(
    ("rule", "budget", "width"),
    [("coverage", 2**20, 256), ("coverage", 2**26, 700), ("clusters", 2**26, 700)],
    ids=["coverage, projected", "coverage", "clusters"],
)
def test_a_query_holds_no_more_than_is_said(rule, budget, width):
    """Three times the gradients, for "coverage" 8 bytes a pair, and what the net's passes and the samples take.

    Resident memory also counts what the allocator keeps of earlier work, hence the margin; two more copies of the
    gradients would exceed it.
    """
    n, mib = 2200, 2**20
    samples, labels = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32), np.arange(n) % 3
    module = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
    wide = zoo.net(module, max_epochs=1).fit(samples[:100], labels[:100])
    LpNTK(rule=rule, memory_budget=budget, random_state=0).select(wide, samples[:300], 3)  # compiles, loads
    peak = PeakMemory()
    before = peak.peak().host
    known = {"X_labeled": samples[:100], "y_labeled": labels[:100]}
    found = LpNTK(rule=rule, memory_budget=budget, random_state=0).select(wide, samples[100:], 10, **known)
    most = peak.peak().host - before
    rows = kernel_rows(module, torch.from_numpy(samples), labels=labels, memory_budget=budget, random_state=0)
    assert (found.info["method"] == "exact") == (budget == 2**26)
    assert 25 * mib < rows.info["bytes"] < 45 * mib
    said = 3 * rows.info["bytes"] + (8 * (n - 100) ** 2 if rule == "coverage" else 0)
    assert most < said + 64 * mib, f"{most / mib:.0f} MiB, not {said / mib:.0f}"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rule": "heads"}, "rule to be one of 'clusters', 'coverage'"),
        ({"budget": "tiny"}, "budget to be one of 'auto', 'large', 'small', got 'tiny'"),
        ({"small_share": 7}, "small_share to be a finite number between 0 and 1"),
        ({"cluster_share": -1}, "cluster_share to be a finite number between 0 and 1"),
        ({"n_candidates": 0}, "n_candidates to be an integer of at least 1 or None"),
        ({"method": "explicit"}, "method to be one of"),
        ({"sketch_dim": 0}, "sketch_dim to be an integer"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    """Each wrong parameter is an error naming it, before the learner is looked at."""
    with pytest.raises(InvalidInputError, match=message):
        LpNTK(**parameters).select(None, X, 3)


def test_a_net_is_needed():
    """A classifier without gradients is refused by name."""
    with pytest.raises(UnmetNeedError, match=r"LpNTK expected a learner with gradients .* got a LogisticRegression"):
        LpNTK().select(LogisticRegression().fit(X[:10], y[:10]), X[10:], 3, **LABELED)
