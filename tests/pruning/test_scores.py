"""EL2N, GraNd, forgetting and learning difficulty against their definitions, sample by sample."""

import itertools

import numpy as np
import pytest
import skorch
import torch
import zoo
from torch import nn

from modal_ntk import nets
from modal_ntk.errors import InvalidInputError
from modal_ntk.pruning import EL2N, ForgettingScore, GraNd, SampleHistory, forgetting_counts, learning_difficulty
from modal_ntk.pruning.difficulty import sample_errors

X, y = zoo.blobs(n=40)


def net(**options):
    return zoo.net(**{"max_epochs": 3, **options})


def seeded_fits(seed, n_models, **options):
    """The nets that a pruner of that seed trains: one seed drawn for each."""
    rng = np.random.default_rng(seed)
    for _ in range(n_models):
        with nets.seeded(int(rng.integers(2**31))):
            yield net(**options).fit(X, y)


def test_el2n_of_the_worked_example():
    """Probabilities (.7, .2, .1): distance .374166 from class 0 and 1.157584 from class 2."""
    logits = torch.tensor([[0.7, 0.2, 0.1]] * 2, dtype=torch.float64).log()
    _, errors, correct = sample_errors(logits, torch.tensor([0, 2]))
    np.testing.assert_allclose(errors, [0.374166, 1.157584], atol=1e-6)
    assert correct.tolist() == [True, False]


def test_el2n_is_the_mean_over_nets():
    """The score is the mean over seeded nets of the distance between probabilities and one-hot label."""
    pruner = EL2N(net(), keep=0.25, n_models=2, n_epochs=2, random_state=5).fit(X, y)
    expected = [
        np.linalg.norm(fitted.predict_proba(X).astype(float) - np.eye(3)[y], axis=1)
        for fitted in seeded_fits(5, 2, max_epochs=2)
    ]
    np.testing.assert_allclose(pruner.scores_, np.mean(expected, 0), rtol=1e-4, atol=1e-6)
    assert set(pruner.sample_indices_) == set(np.argsort(-pruner.scores_)[:10])


def test_grand_is_the_mean_length_of_the_loss_gradient():
    """The score is the mean over seeded nets of each sample's gradient length by plain autograd."""
    pruner = GraNd(net(), keep=0.25, n_models=2, n_epochs=1, random_state=5).fit(X, y)
    expected = []
    for fitted in seeded_fits(5, 2, max_epochs=1):
        module = fitted.module_.eval()
        lengths = []
        for x, label in zip(torch.from_numpy(X), torch.from_numpy(y), strict=True):
            loss = nn.functional.cross_entropy(module(x[None]), label[None])
            grads = torch.autograd.grad(loss, list(module.parameters()))
            lengths.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        expected.append(lengths)
    np.testing.assert_allclose(pruner.scores_, np.mean(expected, 0), rtol=1e-4)
    assert set(pruner.sample_indices_) == set(np.argsort(-pruner.scores_)[:10])


def test_grand_at_initialisation():
    """n_epochs=0 reads the weights as drawn."""
    scores = GraNd(net(), n_models=1, n_epochs=0, random_state=0).fit(X, y).scores_
    assert (scores > 0).all()


@pytest.mark.parametrize(("never", "expected"), [("infinite", [2, np.inf, 0]), ("epochs", [2, 7, 0])])
def test_forgetting_of_the_worked_example(never, expected):
    """Right at looks 0,1,0,0,1,1,0 is forgotten twice; never right is infinity, or the number of looks."""
    correct = np.array([[0, 1, 0, 0, 1, 1, 0], [0] * 7, [0, 0, 1, 1, 1, 1, 1]], dtype=bool).T
    assert forgetting_counts(correct, never=never).tolist() == expected


def test_forgetting_score_counts_over_epochs():
    """The score counts the changes from right to wrong of predictions made after every epoch."""
    pruner = ForgettingScore(net(lr=1.0), n_epochs=6, keep=0.5, random_state=3).fit(X, y)
    correct = []

    class Watch(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            with nets.no_trace(net.module_):
                correct.append(net.predict(X) == y)

    rng = np.random.default_rng(3)
    with nets.seeded(int(rng.integers(2**31))):
        net(lr=1.0, max_epochs=6, callbacks=[Watch()]).fit(X, y)
    expected = [sum(a and not b for a, b in itertools.pairwise(s)) for s in np.array(correct).T.tolist()]
    learned = np.array(correct).any(0)
    np.testing.assert_array_equal(pruner.scores_[learned], np.array(expected, float)[learned])
    assert np.isinf(pruner.scores_[~learned]).all()


def test_difficulty_is_the_sum_of_losses():
    """Difficulty adds up the cross-entropies after every epoch, or the distances of the authors' code."""
    history = SampleHistory()
    net(callbacks=[("h", history)]).fit(X, y)
    assert history.losses_.shape == history.errors_.shape == history.correct_.shape == (3, 40)
    np.testing.assert_allclose(history.difficulty(), history.losses_.sum(0))
    np.testing.assert_allclose(history.difficulty("el2n"), history.errors_.sum(0))
    by_function = learning_difficulty(net(), X, y, random_state=1)
    rng = np.random.default_rng(1)
    losses = []
    with nets.seeded(int(rng.integers(2**31))):
        fitted = net(max_epochs=1)
        fitted.initialize()
        for _ in range(3):
            fitted.partial_fit(X, y)
            with nets.no_trace(fitted.module_):
                p = fitted.predict_proba(X).astype(float)
            losses.append(-np.log(p[np.arange(40), y]))
    np.testing.assert_allclose(by_function, np.sum(losses, 0), rtol=1e-3)


def test_watching_changes_nothing():
    """A net that is watched ends with the weights of one that is not."""
    weights = []
    for callbacks in ([], [("h", SampleHistory())]):
        with nets.seeded(0):
            weights.append(net(module=zoo.ConvNet, callbacks=callbacks).fit(X.reshape(40, 1, 2, 3), y).module_)
    for a, b in zip(weights[0].state_dict().values(), weights[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_second_fit_starts_anew():
    """What an earlier fit showed is forgotten, and no sample is held after training."""
    history = SampleHistory()
    fitted = net(callbacks=[("h", history)]).fit(X, y)
    fitted.fit(X[:30], y[:30])
    assert history.losses_.shape == (3, 30)
    assert not hasattr(history, "seen_")


@pytest.mark.parametrize("kind", [EL2N, GraNd, ForgettingScore])
def test_the_easiest_can_stay_instead(kind):
    """keep_hardest=False keeps the other end of the same ranking; the generators stay as they were."""
    options = {} if kind is ForgettingScore else {"n_models": 1}
    with zoo.generators_untouched():
        hard, easy = (
            kind(net(), n_epochs=2, keep=0.5, keep_hardest=h, random_state=0, **options).fit(X, y)
            for h in (True, False)
        )
    np.testing.assert_array_equal(hard.scores_, easy.scores_)
    assert hard.scores_[hard.sample_indices_].min() >= easy.scores_[easy.sample_indices_].max()
    assert len(easy.sample_indices_) == 20


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (EL2N(None, keep=2), "keep to be a finite number between 0 and 1"),
        (GraNd(None, n_models=0), "n_models to be an integer of at least 1"),
        (ForgettingScore(None, never="never"), "never to be one of"),
        (ForgettingScore(None, n_epochs=-1), "n_epochs to be an integer of at least 0"),
    ],
)
def test_bad_parameters_are_refused(pruner, message):
    """Each wrong parameter is an error naming it, before any training."""
    with pytest.raises(InvalidInputError, match=message):
        pruner.fit(X, y)
