"""One step of WAAL's training against a step written down, the pairs it sees, and what the critic learns of them."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from skorch.callbacks import GradientNormClipping
from skorch.dataset import Dataset
from torch import nn
from waal_nets import Extractor, X_known, X_pool, differ, fitted, net, weights, y_known

from modal_ntk.nets import NetView, seeded
from modal_ntk.nets.waal.pairing import Pairs, PairSampler
from modal_ntk.nets.waal.schedule import LRDecay


def by_hand(estimator, x_l, y_l, x_u):
    """One step in float64 from the formulas: parameters of extractor and head, then of the critic."""
    h_divergence, official = estimator.h_divergence, estimator.official_code
    module, critic = copy.deepcopy(estimator.module_), copy.deepcopy(estimator.critic_)
    features = lambda x: module.extractor(x).flatten(1)  # noqa: E731
    judge = lambda z: critic(z).reshape(-1)  # noqa: E731
    gamma, alpha = len(X_pool) / len(X_known), estimator.n_instances / len(X_known)
    c0 = (gamma - alpha) / (gamma * (1 + alpha))
    if estimator.equation == 8:
        c0 /= gamma
    if official:
        c0 = 1 / gamma
    mu = estimator.mu if h_divergence or official else gamma / (1 + gamma) * estimator.mu
    weight = estimator.critic_weight
    if official or weight is None:
        weight = mu

    def objective(g_u, g_l):
        if h_divergence:
            return g_u.log().mean() + (1 - g_l).log().mean()
        return g_u.mean() - c0 * g_l.mean()

    z_l, z_u = features(x_l), features(x_u)
    loss = nn.functional.cross_entropy(module.head(z_l), y_l) + mu * objective(judge(z_u), judge(z_l))
    parameters = list(module.parameters())
    for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.data -= estimator.lr * g
    with torch.no_grad():  # the authors' code looks at the features that the step has made
        z_l, z_u = (features(x_l), features(x_u)) if official else (z_l.clone(), z_u.clone())
    loss = -weight * objective(judge(z_u), judge(z_l))
    if not h_divergence:
        share = torch.rand(len(z_u), 1, dtype=z_u.dtype)
        points = share * z_u + (1 - share) * z_l
        points = (torch.cat([points, z_u, z_l]) if official else points).requires_grad_()
        slopes = torch.autograd.grad(judge(points).sum(), points, create_graph=True)[0]
        sign = -1 if official else 1
        loss = loss + sign * weight * estimator.penalty * ((slopes.norm(dim=1) - 1) ** 2).mean()
    parameters = list(critic.parameters())
    for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.data -= estimator.lr * g
    return module.state_dict(), critic.state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"h_divergence": True},
        {"equation": 8},
        {"critic_weight": None},
        {"critic_weight": 3},
        {"official_code": True},
    ],
    ids=lambda options: "-".join(map(str, options)) or "default",
)
def test_a_step_is_the_one_written_down(options):
    """Features and head descend cross-entropy + mu' T, then the critic, on their features, weight (-T + penalty P)."""
    estimator = net(
        Extractor(norm=False).double(), head__dropout=0.0, critic__dropout=0.0, mu=0.5, n_instances=6, momentum=0.0,
        max_epochs=1, lr=0.05, **options,
    )  # fmt: skip
    double = X_known.astype(np.float64), y_known
    estimator.fit(*double, X_unlabeled=X_pool.astype(np.float64))
    batch = [[torch.from_numpy(double[0]), torch.from_numpy(X_pool[:12].astype(np.float64))], torch.from_numpy(y_known)]
    with seeded(5):
        module, critic = by_hand(estimator, batch[0][0], batch[1], batch[0][1])
    estimator.unlabeled_set_ = object()
    estimator.history.new_epoch()
    estimator.history.new_batch()
    with seeded(5):
        estimator.train_step(batch)
    for got, expected in ((estimator.module_.state_dict(), module), (estimator.critic_.state_dict(), critic)):
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-12)


def test_the_adversarial_term_moves_the_features():
    """With mu = 0 extractor and head learn as beside no critic, which still learns of them; with mu > 0 not so."""
    without = fitted(net(mu=0.0), X_unlabeled=X_pool)
    other = fitted(net(mu=0.0, penalty=7.0), X_unlabeled=X_pool)
    still = fitted(net(mu=0.0, critic_weight=None), X_unlabeled=X_pool)
    with_it = weights(fitted(net(mu=1.0), X_unlabeled=X_pool))
    made = weights(fitted(net(max_epochs=0), X_unlabeled=X_pool))
    for part in ("extractor", "head"):
        assert not differ(weights(without), weights(other), part)
        assert not differ(weights(without), weights(still), part)
    assert differ(weights(without), with_it, "extractor")
    assert differ(weights(without), made, "critic.")
    assert not differ(weights(still), made, "critic.")
    assert (without.critic_is_trained_, still.critic_is_trained_) == (True, False)


def test_features_descend_and_the_critic_ascends():
    """After a step the features lower the transport objective to the old critic, and the new critic raises it again."""
    options = {"mu": 1e3, "lr": 1e-5, "critic_weight": None, "penalty": 0.0, "momentum": 0.0, "max_epochs": 1}
    estimator = net(Extractor(norm=False), head__dropout=0.0, critic__dropout=0.0, **options)
    fitted(estimator, X_unlabeled=X_pool)
    batch = [[torch.from_numpy(X_known), torch.from_numpy(X_pool[:12])], torch.from_numpy(y_known)]

    def objective(extractor, critic):
        with torch.no_grad():
            g_l, g_u = (critic(extractor(x)) for x in batch[0])
        return float(g_u.mean() - estimator.coefficients_.labeled * g_l.mean())

    old_features, old_critic = (copy.deepcopy(m) for m in (estimator.module_.extractor, estimator.critic_))
    estimator.unlabeled_set_ = object()
    estimator.history.new_epoch()
    estimator.history.new_batch()
    estimator.train_step(batch)
    features, critic = estimator.module_.extractor, estimator.critic_
    assert objective(features, old_critic) < objective(old_features, old_critic)
    assert objective(features, critic) > objective(features, old_critic)


def test_history_has_the_critic():
    """Each epoch has cross-entropy, critic loss, transport estimate and penalty, for plots and callbacks."""
    estimator = fitted(net(), X_unlabeled=X_pool)
    for name in ("train_loss", "critic_loss", "transport", "critic_auc", "penalty"):
        assert np.isfinite(estimator.history[:, name]).all()
        assert len(estimator.history[:, name]) == 3
    assert "penalty" not in fitted(net(h_divergence=True), X_unlabeled=X_pool).history[-1]
    assert estimator.history[-1, "train_batch_count"] == 3  # 48 unlabelled samples in batches of 16


@pytest.mark.parametrize(("n_labeled", "n_unlabeled"), [(12, 48), (48, 12), (5, 33), (1, 1)])
def test_an_epoch_sees_every_unlabelled_sample(n_labeled, n_unlabeled):
    """Unlabelled samples come equally often, labelled ones with replacement; no batch of one is left over."""
    with seeded(0):
        pairs = list(PairSampler(n_labeled, n_unlabeled, 16))
    assert len(pairs) == len(PairSampler(n_labeled, n_unlabeled, 16))
    n = max(n_labeled, n_unlabeled)
    assert len(pairs) == (n - 1 if n % 16 == 1 and n > 1 else n)
    counts = np.bincount([u for _, u in pairs], minlength=n_unlabeled)
    assert counts.max() - counts.min() <= 1
    assert {i for i, _ in pairs} <= set(range(n_labeled))
    if (n_labeled, n_unlabeled) == (12, 48):
        assert len(set(np.bincount([i for i, _ in pairs]))) > 1


def test_the_authors_code_pairs_by_position():
    """With the authors' code unlabelled sample i always meets labelled sample i modulo the number of labels."""
    assert all(i == u % 12 for i, u in PairSampler(12, 48, 16, fixed=True))


def test_the_authors_code_is_its_listed_deviations():
    """Weights mu and L/U, no decay and no early stopping, and a penalty that the critic is paid for."""
    estimator = fitted(net(official_code=True, mu=2e-3), X_unlabeled=X_pool)
    assert estimator.coefficients_.adversarial == 2e-3
    assert estimator.coefficients_.labeled == pytest.approx(12 / 48)
    assert not {"lr_decay", "patience"} & {name for name, _ in estimator.callbacks_}
    penalties = {}
    for official in (False, True):
        options = {"critic__dropout": 0.0, "critic_optimizer__lr": 1.0, "mu": 1.0, "max_epochs": 20, "lr": 1e-6}
        trained = fitted(net(official_code=official, **options), X_unlabeled=X_pool)
        penalties[official] = trained.history[-1, "penalty"]
    assert penalties[False] < penalties[True]


def test_learning_rates_fall_for_all_three_optimisers():
    """At half of the epochs a tenth, at three quarters a hundredth; afterwards the first rates are back."""
    seen = []

    class Watch(LRDecay):
        def on_batch_end(self, net, **_):
            seen.append([getattr(net, n + "_").param_groups[0]["lr"] for n in net._optimizers])

        def on_train_begin(self, *_, **__): ...
        def on_epoch_begin(self, *_, **__): ...
        def on_train_end(self, *_, **__): ...

    options = {"lr": 0.01, "critic_optimizer__lr": 0.2, "batch_size": 64, "max_epochs": 4}
    estimator = fitted(net(callbacks=[("watch", Watch())], **options), X_unlabeled=X_pool)
    np.testing.assert_allclose(seen, np.outer([1, 1, 0.1, 0.01], [0.01, 0.01, 0.2]))
    assert [getattr(estimator, n + "_").param_groups[0]["lr"] for n in estimator._optimizers] == [0.01, 0.01, 0.2]


def test_callbacks_see_gradients_of_features_and_head_alone():
    """When gradients are announced, the critic has none, so that clipping by norm acts on the step to be taken."""
    norms = []

    class Watch(GradientNormClipping):
        def on_grad_computed(self, net, named_parameters, **_):
            norms.append([p.grad is None or not p.grad.any() for p in net.critic_.parameters()])

    estimator = fitted(net(callbacks=[Watch(1.0)]), X_unlabeled=X_pool)
    assert norms
    assert all(all(row) for row in norms)
    assert all(p.requires_grad for p in estimator.critic_.parameters())


def test_a_step_runs_the_extractor_once_over_each_batch():
    """The critic learns from the features that the step has computed; the authors' code computes them anew."""

    class Counting(Extractor):
        calls = 0

        def forward(self, x):
            Counting.calls += self.training
            return super().forward(x)

    for official, per_step in ((False, 2), (True, 4)):
        Counting.calls = 0
        fitted(net(Counting, max_epochs=1, official_code=official), X_unlabeled=X_pool)
        assert Counting.calls == per_step * 3  # 48 unlabelled samples in batches of 16


@pytest.mark.slow
def test_the_critic_learns_where_classes_are_starved():
    """With five of ten digits nearly unlabelled it tells pool from labels and starved digits from others (AUC > .7)."""
    digits = load_digits()
    samples = ((digits.data - digits.data.mean()) / digits.data.std()).astype("float32")
    labels = digits.target
    rng = np.random.default_rng(0)
    counts = [20] * 5 + [1] * 5
    known = np.concatenate([rng.choice(np.flatnonzero(labels == c), n, replace=False) for c, n in enumerate(counts)])
    rest = np.setdiff1d(np.arange(len(labels)), known)
    areas = {}
    for weight in (1.0, None):
        with seeded(0):
            module = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
            options = {"classes": range(10), "max_epochs": 40, "batch_size": 64, "n_instances": 25}
            estimator = net(module, critic_weight=weight, **options)
            estimator.fit(samples[known], labels[known], X_unlabeled=samples[rest])
        view = NetView(estimator)
        with view.no_trace():
            g, g_known = (view.logits_and_critic(samples[rows])[1].numpy() for rows in (rest, known))
        told = np.repeat([1, 0], [len(g), len(g_known)])
        areas[weight] = roc_auc_score(told, np.r_[g, g_known]), roc_auc_score(labels[rest] >= 5, g)
    assert min(areas[1.0]) > 0.7
    assert max(areas[None]) < 0.65  # steps of a hundredth leave it near chance
    assert estimator.history[-1, "critic_auc"] < 0.65


def test_pairs_hold_both_samples():
    """A pair is the labelled sample, the unlabelled one and the label of the first."""
    pairs = Pairs(Dataset(X_known, y_known), Dataset(X_pool))
    (x_l, x_u), label = pairs[3, 7]
    np.testing.assert_array_equal(x_l, X_known[3])
    np.testing.assert_array_equal(x_u, X_pool[7])
    assert label == y_known[3]
