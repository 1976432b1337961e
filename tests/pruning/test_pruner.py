"""lpNTK's pruner against the recipe run literally on the explicit kernel."""

import numpy as np
import oracles_lpntk
import pytest
import scipy.sparse as sp
import torch
import zoo
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.kernels import empirical_ntk
from modal_ntk.pruning import LpNTKPruner, farthest_point_clustering, find_label_conflicts

X, y = zoo.blobs(n=90)


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    return zoo.net(max_epochs=8).fit(X, y)


def explicit_kernel(net, kind="labelled"):
    labels = y if kind == "labelled" else None
    return empirical_ntk(net.module_, torch.from_numpy(X), kind=kind, labels=labels, method="explicit").numpy()


@pytest.mark.parametrize("kernel", ["labelled", "pseudo"])
@pytest.mark.parametrize("redundancy", ["all", "later", "class"])
def test_redundant_samples_go(fitted, kernel, redundancy):
    """What is redundant by definition on the explicit kernel is exactly what goes in mode "redundant_only"."""
    matrix = explicit_kernel(fitted, kernel)
    expected = np.zeros(90, bool)
    groups = [np.flatnonzero(y == c) for c in range(3)] if redundancy == "class" else [np.arange(90)]
    for rows in groups:
        expected[rows] = oracles_lpntk.redundant(matrix[np.ix_(rows, rows)], redundancy == "later")
    options = {"prefit": True, "mode": "redundant_only", "max_redundant": 1.0}
    pruner = LpNTKPruner(fitted, kernel=kernel, redundancy=redundancy, **options)
    told = rf"removed {expected.mean():.0%} of 90 .* Set max_redundant .*find_label_conflicts"
    with pytest.warns(ModalNTKWarning, match=told):
        X_kept, y_kept = pruner.fit_resample(X, y)
    np.testing.assert_array_equal(pruner.redundant_, expected)
    np.testing.assert_array_equal(X_kept, X[~expected])
    np.testing.assert_array_equal(y_kept, y[~expected])
    assert pruner.shares_ == {"redundant": pytest.approx(expected.mean()), "clustered": pytest.approx(0)}
    assert 0 < expected.sum() < 90


@pytest.mark.parametrize("redundancy", ["all", "class"])
def test_a_limited_share_of_redundant_samples_goes(fitted, redundancy):
    """max_redundant leaves that share of the data, or of each class, at most; those that go are redundant anyway."""
    options = {"prefit": True, "redundancy": redundancy, "mode": "redundant_only"}
    with pytest.warns(ModalNTKWarning, match="Set max_redundant"):
        without = LpNTKPruner(fitted, max_redundant=1.0, **options).fit(X, y)
    limited = LpNTKPruner(fitted, **options).fit(X, y)
    counts = np.bincount(y[limited.redundant_], minlength=3)
    assert counts.tolist() == [3, 3, 3] if redundancy == "class" else counts.sum() == 9
    assert (without.redundant_ >= limited.redundant_).all()


def test_a_small_budget_is_drawn_from_all_by_default(fitted):
    """For "head_only" nothing is redundant by default (appendix E.2); for the other modes a tenth at most."""
    pruners = {
        mode: LpNTKPruner(fitted, prefit=True, mode=mode, random_state=0).fit(X, y)
        for mode in ("head_only", "prune_head")
    }
    assert not pruners["head_only"].redundant_.any()
    assert pruners["prune_head"].redundant_.sum() == 9
    assert len(pruners["prune_head"].sample_indices_) >= 0.8 * 90


def test_doubtful_labels_are_told_and_are_not_what_stays():
    """With one label in ten wrong the pruner says so and keeps most right ones; with right labels it is silent."""
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 4
    samples = (np.eye(4)[labels] * 5 + rng.normal(size=(200, 4))).astype("float32")
    wrong = rng.choice(200, 20, replace=False)
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + 1) % 4
    net = zoo.net(lambda: zoo.MLP(d=4, n_classes=4), max_epochs=10)
    clean = LpNTKPruner(net, random_state=0).fit(samples, labels)
    assert clean.doubtful_ <= 0.01
    with pytest.warns(ModalNTKWarning, match=r"doubts \d+\.\d% of the labels.*find_label_conflicts") as told:
        pruner = LpNTKPruner(net, random_state=0).fit(samples, noisy)
    assert len(told) == 1
    assert pruner.doubtful_ == pytest.approx(0.1, abs=0.03)
    assert np.isin(pruner.sample_indices_, wrong).mean() < 0.125
    # The remedy named works: the first suspects are the wrong labels, and hardly any other row is one.
    suspects = find_label_conflicts(pruner.estimator_, samples, noisy).suspects
    assert len(set(suspects[:20].tolist()) & set(wrong.tolist())) >= 18
    assert len(suspects) <= 24


def literal_clusters(fitted, redundant):
    """By class: rows left, and the members of each cluster with its centre first, by lists."""
    matrix = explicit_kernel(fitted)
    for label in range(3):
        rows = [i for i in range(90) if y[i] == label and not redundant[i]]
        n_clusters = max(1, round(0.2 * len(rows)))
        centres, lists = oracles_lpntk.farthest_point_lists(matrix[np.ix_(rows, rows)], n_clusters)
        yield rows, [[rows[c], *(rows[i] for i in members)] for c, members in zip(centres, lists, strict=True)]


@pytest.mark.parametrize("redundancy", ["class", "none"])
def test_every_mode_is_its_recipe(fitted, redundancy):
    """Each mode keeps what the recipe keeps of the clusters made by lists on the explicit kernel."""
    options = {"prefit": True, "cluster_share": 0.2, "redundancy": redundancy, "random_state": 0}
    pruners = {
        mode: LpNTKPruner(fitted, mode=mode, head_drop=0.5, **options).fit(X, y)
        for mode in ("prune_head", "head_only", "centres", "random_member")
    }
    kept = {mode: set(pruner.sample_indices_.tolist()) for mode, pruner in pruners.items()}
    n_clusters = 0
    for rows, clusters in literal_clusters(fitted, pruners["centres"].redundant_):
        head = max(clusters, key=len)
        n_clusters += len(clusters)
        assert kept["head_only"] & set(rows) == set(head)
        assert kept["centres"] & set(rows) == {members[0] for members in clusters}
        assert all(len(kept["random_member"] & set(members)) == 1 for members in clusters)
        assert set(rows) - set(head) <= kept["prune_head"]
        assert len(kept["prune_head"] & set(head)) == len(head) - len(head) // 2
        assert np.flatnonzero(pruners["head_only"].head_[rows]).tolist() == [i for i, r in enumerate(rows) if r in head]
    assert len(kept["random_member"]) == len(kept["centres"]) == n_clusters
    assert sum(len(c) for c in pruners["centres"].centres_.values()) == n_clusters


def test_a_small_budget_is_drawn_from_the_heads(fitted):
    """n_keep takes that many of the heads at random, by seed."""
    options = {"prefit": True, "mode": "head_only", "redundancy": "class"}
    whole = LpNTKPruner(fitted, **options).fit(X, y).sample_indices_
    few = [LpNTKPruner(fitted, n_keep=7, random_state=s, **options).fit(X, y).sample_indices_ for s in (0, 0, 1)]
    assert len(few[0]) == 7
    assert set(few[0]) <= set(whole)
    np.testing.assert_array_equal(few[0], few[1])
    assert few[0].tolist() != few[2].tolist()


def test_clusters_are_those_of_the_public_function(fitted):
    """The clusters kept as attribute are farthest_point_clustering of each class."""
    pruner = LpNTKPruner(fitted, prefit=True, redundancy="none", random_state=0).fit(X, y)
    matrix = explicit_kernel(fitted)
    for label in range(3):
        rows = np.flatnonzero(y == label)
        found = farthest_point_clustering(matrix[np.ix_(rows, rows)], 3)
        np.testing.assert_array_equal(pruner.clusters_[rows], found.clusters)
        np.testing.assert_array_equal(pruner.centres_[label], rows[found.centres])


def test_without_prefit_a_clone_is_trained():
    """The net given stays unfitted; the clone's training and all draws follow random_state and leave the generators."""
    net = zoo.net(max_epochs=8)
    with zoo.generators_untouched():
        first, again, other = (LpNTKPruner(net, random_state=s).fit(X, y) for s in (0, 0, 1))
    assert not hasattr(net, "module_")
    np.testing.assert_array_equal(first.sample_indices_, again.sample_indices_)
    assert first.sample_indices_.tolist() != other.sample_indices_.tolist()
    assert clone(first).get_params()["head_drop"] == 0.1


def test_reading_a_fitted_net_changes_nothing(fitted):
    """Weights, buffers, modes, gradients and hooks are the same after pruning with a fitted net."""
    before = zoo.state_of(fitted.module_)
    with zoo.generators_untouched():
        LpNTKPruner(fitted, prefit=True, random_state=0).fit(X, y)
    zoo.assert_same_state(before, zoo.state_of(fitted.module_))


def test_a_pipeline_is_read_through_its_steps(fitted):
    """A Pipeline that ends in a net prunes as the net does on what the earlier steps make."""
    pipeline = make_pipeline(StandardScaler(), zoo.net()).fit(X, y)
    scaled = pipeline[0].transform(X)
    by_pipeline = LpNTKPruner(pipeline, prefit=True, random_state=0).fit(X, y)
    by_net = LpNTKPruner(pipeline[-1], prefit=True, random_state=0).fit(scaled, y)
    np.testing.assert_array_equal(by_pipeline.sample_indices_, by_net.sample_indices_)


def _frame(values):
    import pandas

    return pandas.DataFrame(values)


@pytest.mark.parametrize("make", [np.asfortranarray, torch.from_numpy, sp.csr_matrix, np.ndarray.tolist, _frame])
def test_samples_come_back_in_their_container(fitted, make):
    """Array, tensor, sparse matrix, list and frame give the same rows, each in the same container."""
    kept = LpNTKPruner(fitted, prefit=True, random_state=0).fit(X, y).sample_indices_
    samples = make(X)
    X_kept, y_kept = LpNTKPruner(fitted, prefit=True, random_state=0).fit_resample(samples, y)
    assert type(X_kept) is type(samples)
    as_array = X_kept.toarray() if sp.issparse(X_kept) else np.asarray(X_kept, dtype=np.float32)
    np.testing.assert_array_equal(as_array, X[kept])
    np.testing.assert_array_equal(y_kept, y[kept])


def test_dict_inputs():
    """Samples by name are pruned and come back by name."""
    samples = {"a": X[:, :3], "b": X[:, 3:]}
    X_kept, y_kept = LpNTKPruner(zoo.net(zoo.DictNet), random_state=0).fit_resample(samples, y)
    assert X_kept.keys() == samples.keys()
    assert len(X_kept["a"]) == len(X_kept["b"]) == len(y_kept) < 90


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"head_drop": 1.5}, "head_drop to be a finite number between 0 and 1, got 1.5"),
        ({"cluster_share": "x"}, "cluster_share to be a finite number between 0 and 1"),
        ({"mode": "tails"}, "mode to be one of 'centres', 'head_only'"),
        ({"redundancy": None}, "redundancy to be one of"),
        ({"n_keep": 0}, "n_keep to be an integer of at least 1 or None"),
        ({"kernel": "full"}, "kernel to be one of 'labelled', 'pseudo'"),
    ],
)
def test_bad_parameters_are_refused_before_training(parameters, message):
    """Each wrong parameter is an error naming it, raised before the net is trained."""
    with pytest.raises(InvalidInputError, match=message):
        LpNTKPruner(None, **parameters).fit(X, y)


def test_bad_data_are_refused(fitted):
    """No rows, other lengths, one class, NaN, an unfitted net under prefit, and no net at all are errors."""
    for X_bad, y_bad, message in [
        (X[:0], y[:0], "at least one labelled sample"),
        (X, y[:5], "90 labels"),
        (X, 0 * y, "at least two classes, got 1 class"),
        (np.where(X > 2, np.nan, X), y, "finite values in X"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            LpNTKPruner(fitted, prefit=True).fit(X_bad, y_bad)
    with pytest.raises(UnmetNeedError, match="fitted skorch net, got an unfitted"):
        LpNTKPruner(zoo.net(), prefit=True).fit(X, y)
    with pytest.raises(UnmetNeedError, match="skorch net to train, got StandardScaler"):
        LpNTKPruner(StandardScaler()).fit(X, y)
