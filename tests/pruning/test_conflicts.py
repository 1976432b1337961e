"""Label conflicts against their definition, and on data with labels flipped."""

import numpy as np
import oracles_lpntk
import pytest
import torch
import zoo
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.kernels import empirical_ntk
from modal_ntk.pruning import conflicts, find_label_conflicts

X, y = zoo.blobs(n=120)
FLIPPED = np.array([3, 40, 41, 77, 100, 119])
NOISY = np.where(np.isin(np.arange(120), FLIPPED), (y + 1) % 3, y)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return zoo.net(max_epochs=10).fit(X, NOISY)


@pytest.mark.parametrize("kernel", ["pseudo", "labelled", "loss"])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_scores_are_their_definition(net, kernel, k, monkeypatch):
    """Each score equals the definition on the explicit kernel, in blocks too; the order is by falling score."""
    labels = None if kernel == "pseudo" else NOISY
    module = net.module_
    matrix = empirical_ntk(
        module, torch.from_numpy(X), kind=kernel, labels=labels, dtype=torch.float64, method="explicit"
    ).numpy()
    monkeypatch.setattr(conflicts, "_BLOCK_BYTES", 120 * 8 * 7)
    found = find_label_conflicts(net, X, NOISY, kernel=kernel, n_neighbors=k, random_state=0)
    expected = [oracles_lpntk.conflict(matrix, NOISY, i, k) for i in range(120)]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3, atol=1e-4)
    assert (np.diff(found.scores[found.indices]) <= 0).all()
    assert sorted(found.indices.tolist()) == list(range(120))
    assert (NOISY[found.opponents] != NOISY).all()


def test_flipped_labels_come_first(net):
    """On separated blobs the flipped labels are the first suspects, and each one's opponent bears the true label."""
    found = find_label_conflicts(net, X, NOISY)
    assert set(found.indices[:6].tolist()) == set(FLIPPED.tolist())
    np.testing.assert_array_equal(y[found.opponents[FLIPPED]], y[FLIPPED])


def test_suspects_are_the_rows_above_zero(net):
    """The cut-off is a score of zero: rows that resemble other labels more than their own, in order."""
    found = find_label_conflicts(net, X, NOISY)
    assert found.suspects.tolist() == [i for i in found.indices.tolist() if found.scores[i] > 0]
    assert set(found.suspects.tolist()) == set(FLIPPED.tolist())


def test_out_of_fold_no_net_judges_what_it_has_learnt():
    """Each row's score is the definition for a clone trained on the other folds, against these rows alone."""
    estimator, folds = zoo.net(max_epochs=10), []

    class Watched(type(estimator)):
        def fit(self, X, y, **kwargs):
            folds.append((X.copy(), self))
            return super().fit(X, y, **kwargs)

    watched = Watched(**estimator.get_params(deep=False))
    with zoo.generators_untouched():
        found = find_label_conflicts(watched, X, NOISY, n_folds=3, random_state=0)
    assert not hasattr(watched, "module_")
    assert len(folds) == 3
    judged_once = np.zeros(120, int)
    for rows, net in folds:
        others = np.flatnonzero((X[:, None] == rows).all(axis=2).any(axis=1))
        judged = np.setdiff1d(np.arange(120), others)
        judged_once[judged] += 1
        module = net.module_
        matrix = empirical_ntk(
            module, torch.from_numpy(X), kind="pseudo", dtype=torch.float64, method="explicit"
        ).numpy()
        for i in judged:
            here = np.append(others, i)
            expected = oracles_lpntk.conflict(matrix[np.ix_(here, here)], NOISY[here], len(others), 5)
            assert found.scores[i] == pytest.approx(expected, rel=1e-3, abs=1e-4)
            assert found.opponents[i] in others
    assert (judged_once == 1).all()
    assert set(FLIPPED.tolist()) <= set(found.suspects.tolist())
    assert len(found.suspects) <= 8


def test_the_only_sample_of_a_label_has_no_support(net):
    """A label that occurs once is compared with nothing of its own, and stays a number."""
    labels = np.where(np.arange(120) == 5, 2, np.minimum(NOISY, 1))
    assert np.isfinite(find_label_conflicts(net, X, labels).scores).all()


def test_strings_dicts_and_pipelines():
    """Labels and samples of the kinds that nets take are taken, and give what the plain ones give."""
    pipeline = make_pipeline(StandardScaler(), zoo.net(max_epochs=5)).fit(X, NOISY)
    by_net = find_label_conflicts(pipeline[-1], pipeline[0].transform(X), NOISY)
    np.testing.assert_allclose(find_label_conflicts(pipeline, X, NOISY).scores, by_net.scores, atol=1e-6)
    samples = {"a": X[:, :3], "b": X[:, 3:]}
    named = zoo.net(zoo.DictNet).fit(samples, NOISY)
    assert len(find_label_conflicts(named, samples, NOISY).indices) == 120


def test_the_net_is_left_alone(net):
    """Weights, buffers, modes, gradients, hooks and generators are the same after."""
    before = zoo.state_of(net.module_)
    with zoo.generators_untouched():
        find_label_conflicts(net, X, NOISY)
    zoo.assert_same_state(before, zoo.state_of(net.module_))


def test_bad_arguments_are_refused(net):
    """Unknown words, wrong numbers and an unfitted net are errors that say so."""
    with pytest.raises(InvalidInputError, match="n_neighbors to be an integer of at least 1"):
        find_label_conflicts(net, X, NOISY, n_neighbors=0)
    with pytest.raises(InvalidInputError, match="kernel to be one of 'pseudo', 'labelled', 'loss'"):
        find_label_conflicts(net, X, NOISY, kernel="full")
    with pytest.raises(InvalidInputError, match="n_folds to be an integer of at least 2"):
        find_label_conflicts(net, X, NOISY, n_folds=1)
    with pytest.raises(InvalidInputError, match="every label at least n_folds=3 times, got one 1 times"):
        find_label_conflicts(net, X, np.where(np.arange(120) == 5, 2, np.minimum(NOISY, 1)), n_folds=3)
    with pytest.raises(UnmetNeedError, match="fitted skorch net"):
        find_label_conflicts(zoo.net(), X, NOISY)
