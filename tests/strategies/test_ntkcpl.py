"""NTKCPL end to end: every stage against its definition, and the whole against a naive float64 run."""

import numpy as np
import oracles
import oracles_kernels
import pytest
import torch
import zoo
from sklearn.ensemble import RandomForestClassifier

from modal_ntk import NTKCPL
from modal_ntk.errors import InvalidInputError, ModalNTKWarning, UnmetNeedError
from modal_ntk.strategies import ntkcpl as module
from modal_ntk.strategies.common import kernel_query
from modal_ntk.structure import Clustering

X, y = zoo.blobs(n=48)
LABELED = {"X_labeled": X[:8], "y_labeled": y[:8]}
PLAIN_RISK = {"objective": "risk", "variance_weight": 0.0, "tie_break": "first", "tie_tolerance": 0.0}
unit_matters = pytest.mark.filterwarnings("ignore:With use_f0=True and feature_scaling=None")


@pytest.fixture
def net():
    return zoo.net().fit(X[:8], y[:8])


@pytest.fixture
def seen(monkeypatch):
    """What the strategy hands to look-ahead, recorded on the way."""
    calls = {}
    real = module.selection.look_ahead

    def spy(kernel, targets, labeled, n_instances, **options):
        # The strategy gives its kernel away to be overwritten.
        calls.update(kernel=kernel.clone(), targets=targets, labeled=labeled, n_instances=n_instances, **options)
        return real(kernel, targets, labeled, n_instances, **options)

    monkeypatch.setattr(module.selection, "look_ahead", spy)
    return calls


@unit_matters
@pytest.mark.parametrize("variant", ["al", "self"])
@pytest.mark.parametrize("published", [True, False], ids=["published", "default"])
@pytest.mark.parametrize("cold", [True, False], ids=["no labels", "labels"])
def test_the_whole_equals_a_naive_run(net, seen, variant, published, cold):
    """Given clusters and kernel, the picks are those of re-solving the regression for every candidate."""
    make = NTKCPL.as_published if published else NTKCPL
    strategy = make(variant=variant, random_state=0, **PLAIN_RISK)
    selected = strategy.select(zoo.net() if cold else net, X[8:], 5, **({} if cold else LABELED))
    n_labeled = 0 if cold else 8
    f0 = seen["f0"].numpy() if published else None
    picks, tables = oracles.naive_look_ahead(seen["kernel"].numpy(), seen["targets"], seen["labeled"], 5, f0=f0)
    assert selected.indices.tolist() == [p - n_labeled for p in picks]
    np.testing.assert_allclose(
        selected.scores, [t[p] / len(seen["kernel"]) for t, p in zip(tables, picks, strict=True)]
    )
    np.testing.assert_array_equal(seen["labeled"], np.arange(n_labeled))


def centered_unit(x):
    """Columns of mean zero, then rows of length one."""
    x = x.astype(np.float64)
    x = x - x.mean(axis=0)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_kernel_is_the_closed_form_on_centered_features_of_unit_length(seen):
    """By default nothing is drawn: the limit of infinite width, from zero outputs, whatever the features' unit."""
    NTKCPL(random_state=3).select(None, X, 4)
    unit = centered_unit(X)
    np.testing.assert_allclose(seen["kernel"].numpy(), oracles_kernels.infinite_width_oracle(unit, unit), rtol=1e-7)
    assert seen["f0"] is None


def test_the_unit_of_the_features_changes_nothing():
    """Features times 1, 10 and 100, and moved by a constant, give the same picks, without labels and with."""
    forest = RandomForestClassifier(5, random_state=0).fit(X[:8], y[:8])
    for cold in (True, False):
        picks = []
        for unit, shift in ((1, 0), (10, 0), (100, 0), (1, 2)):
            x = np.float32(unit) * X + np.float32(shift)
            known = {} if cold else {"X_labeled": x[:8], "y_labeled": y[:8]}
            picks.append(NTKCPL(random_state=0).select(forest.fit(x[:8], y[:8]), x[8:], 6, **known).indices.tolist())
        assert picks[0] == picks[1] == picks[2] == picks[3]


def test_a_pool_of_one_point_and_rows_that_are_the_mean_are_no_trouble():
    """Rows without a direction after centring are picked like others; nothing is divided by their length."""
    one = np.full((12, 3), 0.1, np.float32)
    assert len(set(NTKCPL(random_state=0).select(None, one, 4).indices.tolist())) == 4
    pairs = np.concatenate([X[:6], -X[:6], np.zeros((2, X.shape[1]), np.float32)])
    selected = NTKCPL(random_state=0).select(None, pairs, 5)
    assert len(set(selected.indices.tolist())) == 5
    assert np.isfinite(selected.scores).all()


def test_what_depends_on_the_unit_is_warned_about():
    """Outputs before training that grow with the features are named, with the way out, which is silent."""
    strategy = NTKCPL.as_published(random_state=0)
    with pytest.warns(ModalNTKWarning, match='feature_scaling="l2" or use_f0=False'):
        strategy.select(None, X, 3)
    for remedy in ({"feature_scaling": "l2"}, {"use_f0": False}):
        strategy.set_params(**{"use_f0": True, "feature_scaling": None, **remedy}).select(None, X, 3)
    with pytest.raises(InvalidInputError, match="n_hidden, such as 64"):
        NTKCPL(use_f0=True).select(None, X, 3)


def test_twenty_then_a_hundred_splits_as_the_paper_does(monkeypatch):
    """For ten classes, 20 labels a query to 100 and then 100: clusters start from 20 and are split up to 100."""
    given = []

    def spy(X, n_clusters, *, n_start, **options):
        given.append((n_start, n_clusters))
        return Clustering(np.zeros(len(X), np.int64), X[:1], 0.0, 0)

    monkeypatch.setattr(module.structure, "cluster_pseudo_labels", spy)
    rng = np.random.default_rng(0)
    pool, labels = rng.normal(size=(700, 4)).astype(np.float32), np.arange(700) % 10
    forest = RandomForestClassifier(2, max_depth=1, random_state=0).fit(pool[:20], labels[:20])
    for n_labeled, n_instances in [(20, 20), (80, 20), (100, 100), (200, 100), (400, 100)]:
        known = {"X_labeled": pool[:n_labeled], "y_labeled": labels[:n_labeled]}
        strategy = NTKCPL(n_candidates=n_instances, objective="squared_error", tie_tolerance=0.0)
        strategy.select(forest, pool[n_labeled:], n_instances, **known)
    assert given == [(20, 20), (20, 50), (20, 100), (20, 100), (20, 100)]


@unit_matters
def test_the_kernel_is_that_of_a_fresh_two_layer_head(seen, monkeypatch):
    """A finite width has the kernel written out weight by weight, the head's outputs as f0, features as they are."""
    heads = []
    real = kernel_query.kernels.ntk_head
    monkeypatch.setattr(kernel_query.kernels, "ntk_head", lambda *a, **k: heads.append(real(*a, **k)) or heads[-1])
    NTKCPL.as_published(n_hidden=7, random_state=3).select(None, X, 4)
    first, second = (p.detach().numpy() for p in heads[0].parameters())
    x = X.astype(np.float64)
    np.testing.assert_allclose(seen["kernel"].numpy(), oracles.two_layer_pseudo_kernel(x, first, second), rtol=1e-10)
    f0 = np.maximum(x @ first.T / np.sqrt(6), 0) @ second.T / np.sqrt(7)
    np.testing.assert_allclose(seen["f0"].numpy(), f0, rtol=1e-10)


def test_use_f0_off_starts_from_zero(seen):
    """Without f0 the regression starts from zero outputs."""
    NTKCPL.as_published(use_f0=False, random_state=0).select(None, X, 3)
    assert seen["f0"] is None


@pytest.mark.parametrize(("n_instances", "max_clusters", "n_clusters"), [(6, 100, 7), (20, 100, 14), (20, 9, 9)])
def test_number_of_pseudo_labels(net, n_instances, max_clusters, n_clusters):
    """Half of the labels there will be after the query, at most max_clusters."""
    strategy = NTKCPL(max_clusters=max_clusters, random_state=0)
    assert strategy.select(net, X[8:], n_instances, **LABELED).info["n_clusters"] == n_clusters


def test_clusters_come_from_the_variants_features(net, monkeypatch):
    """Once there are labels "al" clusters the net's embedding and "self" the samples; both cover the whole pool."""
    given = []
    real = module.structure.cluster_pseudo_labels
    monkeypatch.setattr(
        module.structure, "cluster_pseudo_labels", lambda X, *a, **k: given.append((X, k)) or real(X, *a, **k)
    )
    for variant in ("al", "self"):
        NTKCPL(variant=variant, n_candidates=10, random_state=0).select(net, X[8:], 4, **LABELED)
    assert [values.shape for values, _ in given] == [(48, 8), (48, 6)]
    np.testing.assert_allclose(given[1][0], centered_unit(X), rtol=1e-5, atol=1e-6)
    for _, options in given:
        np.testing.assert_array_equal(options["predicted"], net.predict(X))
        np.testing.assert_array_equal(options["labels"], y[:8])
        assert options["n_start"] == min(2 * len(set(y[:8].tolist())), 6)


def test_candidates_are_a_seeded_subset_with_all_labelled_rows(net, seen):
    """The kernel covers the labelled rows and n_candidates pool rows; picks come from those; the seed decides."""
    first = NTKCPL(n_candidates=12, random_state=1).select(net, X[8:], 5, **LABELED)
    assert seen["kernel"].shape == (20, 20)
    assert first.info["n_candidates"] == 12
    again = NTKCPL(n_candidates=12, random_state=1).select(net, X[8:], 5, **LABELED)
    other = NTKCPL(n_candidates=12, random_state=2).select(net, X[8:], 5, **LABELED)
    np.testing.assert_array_equal(first.indices, again.indices)
    assert set(first.indices.tolist()) != set(other.indices.tolist())
    assert NTKCPL(n_candidates=3, random_state=0).select(net, X[8:], 5, **LABELED).indices.shape == (5,)


def test_feature_scaling_reaches_the_kernel(seen):
    """ "l2" and "standard" scale the rows and the columns of what the kernel sees; a constant column stays finite."""
    pool = np.concatenate([X, np.ones((48, 1), np.float32)], axis=1)
    diagonals = {}
    for scaling in (None, "l2", "standard"):
        NTKCPL(feature_scaling=scaling, random_state=0).select(None, pool, 3)
        diagonals[scaling] = seen["kernel"].diagonal().numpy().copy()
        assert np.isfinite(diagonals[scaling]).all()
    unit = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    ratio = diagonals[None] / diagonals["l2"]
    np.testing.assert_allclose(ratio, (pool.astype(np.float64) ** 2).sum(1), rtol=1e-4)
    assert np.allclose((unit**2).sum(1), 1, atol=1e-5)


def test_trace_kernel_is_the_other_reduction(seen):
    """kind "trace" and "pseudo" are different kernels of the same head."""
    kernels = []
    for kind in ("pseudo", "trace"):
        NTKCPL(n_hidden=8, kernel=kind, random_state=0).select(None, X, 3)
        kernels.append(seen["kernel"].numpy())
    assert not np.allclose(*kernels)


@pytest.mark.parametrize("constraint", ["cannot_link", "must_link", "none"])
@pytest.mark.parametrize("tie_break", ["random", "margin", "variance", "first"])
def test_every_variant_selects(net, constraint, tie_break):
    """Each constraint and tie-break gives a full batch of distinct samples."""
    strategy = NTKCPL(constraint=constraint, objective="risk", tie_break=tie_break, random_state=0)
    assert len(set(strategy.select(net, X[8:], 6, **LABELED).indices.tolist())) == 6


def test_fixed_features_can_be_a_frozen_layer_or_a_callable(seen):
    """The kernel's features come from the layer named, or from the callable given."""
    net = zoo.net(zoo.FrozenBackbone).fit(X[:8], y[:8])
    NTKCPL(features="backbone", random_state=0).select(net, X[8:], 3, **LABELED)
    by_layer = seen["kernel"].clone()
    with torch.no_grad():
        frozen = net.module_.backbone(torch.from_numpy(X)).numpy()
    lookup = {row.tobytes(): value for row, value in zip(X, frozen, strict=True)}
    NTKCPL(features=lambda rows: np.stack([lookup[r.tobytes()] for r in rows]), random_state=0).select(
        net, X[8:], 3, **LABELED
    )
    torch.testing.assert_close(seen["kernel"], by_layer, rtol=1e-4, atol=1e-6)


def test_images_are_flattened_and_conv_embeddings_are_used():
    """A conv net over images works with both variants."""
    images = X.reshape(48, 1, 2, 3)
    net = zoo.net(zoo.ConvNet).fit(images[:8], y[:8])
    for variant in ("al", "self"):
        labeled = {"X_labeled": images[:8], "y_labeled": y[:8]}
        assert len(NTKCPL(variant=variant, random_state=0).select(net, images[8:], 5, **labeled).indices) == 5


def test_any_classifier_will_do_for_the_self_variant():
    """A random forest has predictions, enough for "self"; "al" asks for an embedding by name."""
    forest = RandomForestClassifier(5, random_state=0).fit(X[:8], y[:8])
    assert len(NTKCPL(variant="self", random_state=0).select(forest, X[8:], 5, **LABELED).indices) == 5
    with pytest.raises(UnmetNeedError, match=r"NTKCPL expected a learner with embedding .*RandomForestClassifier"):
        NTKCPL(variant="al", random_state=0).select(forest, X[8:], 5, **LABELED)
    as_features = NTKCPL(variant="al", embedding=lambda rows: rows, random_state=0)
    assert len(as_features.select(forest, X[8:], 5, **LABELED).indices) == 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_clusters": 0}, "max_clusters to be an integer of at least 1 or None, got 0"),
        ({"n_init": 0}, "n_init to be an integer of at least 1, got 0"),
        ({"objective": "variance"}, "objective to be one of"),
        ({"objective": "squared_error", "tie_tolerance": 0.1}, "tie_tolerance"),
        ({"n_hidden": 2.5}, "n_hidden to be an integer"),
        ({"n_candidates": -1}, "n_candidates to be an integer of at least 1 or None, got -1"),
        ({"variant": "both"}, "variant to be one of 'al', 'self', got 'both'"),
        ({"constraint": None}, "constraint to be one of"),
        ({"rel_jitter": 0}, "rel_jitter to be a finite number above zero"),
        ({"random_state": "x"}, "random_state to be a non-negative integer"),
        ({"features": "backbne"}, "embedding"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(parameters, message, monkeypatch):
    """Each wrong parameter is an error naming it, raised before anything is clustered."""
    monkeypatch.setattr(module.structure, "cluster_pseudo_labels", None)
    with pytest.raises((InvalidInputError, UnmetNeedError), match=message):
        NTKCPL(**parameters).select(zoo.net(), X, 3)


def test_progress_is_shown_only_when_asked(capsys):
    """verbose=1 ends with the seconds of each stage on stderr; silence otherwise."""
    NTKCPL(random_state=0).select(None, X, 3)
    assert capsys.readouterr() == ("", "")
    NTKCPL(random_state=0, verbose=1).select(None, X, 3)
    told = capsys.readouterr().err
    assert all(stage in told for stage in ("NTKCPL", "features", "clusters", "kernel", "look-ahead"))
