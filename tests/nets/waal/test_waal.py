"""WAALClassifier: one step against a step written down, and everything that skorch and modAL users do with a net."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import zoo
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import GradientNormClipping
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

import modal_ntk
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.nets import NetView, TwoLayerCritic, TwoLayerHead, WAALClassifier, seeded, waal_coefficients
from modal_ntk.nets.waal.pairing import Pairs, PairSampler
from modal_ntk.nets.waal.schedule import LRDecay

X, y = zoo.blobs()
X_known, y_known, X_pool = X[:12], y[:12], X[12:]


class Extractor(nn.Module):
    def __init__(self, d=6, hidden=8, norm=True):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, hidden), nn.BatchNorm1d(hidden) if norm else nn.Identity(), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, a, b):
        return torch.relu(self.layer(torch.cat([a, b], 1)))


def net(module=Extractor, **options):
    settings = {"classes": [0, 1, 2], "max_epochs": 3, "batch_size": 16, "verbose": 0}
    return WAALClassifier(module, **{**settings, **options})


def fitted(estimator, seed=0, **kwargs):
    with seeded(seed):
        return estimator.fit(X_known, y_known, **kwargs)


def weights(estimator):
    state = {**estimator.module_.state_dict(), **estimator.critic_.state_dict(prefix="critic.")}
    return {name: value.clone() for name, value in state.items()}


def differ(a, b, prefix=""):
    return any(not torch.equal(a[name], b[name]) for name in a if name.startswith(prefix))


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


def test_optimisers_take_shared_and_own_settings():
    """optimizer__* and lr reach all three, a prefix of one only that one; lr also after the fit."""
    estimator = fitted(net(optimizer__weight_decay=0.1, head_optimizer__weight_decay=0.3), X_unlabeled=X_pool)
    groups = [getattr(estimator, n + "_").param_groups[0] for n in ("optimizer", "head_optimizer", "critic_optimizer")]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.3, 0.1]
    assert [g["momentum"] for g in groups] == [0.5] * 3
    estimator.set_params(lr=0.7)
    assert [g["lr"] for g in groups] == [0.7] * 3
    assert fitted(net(optimizer=torch.optim.Adam, lr=1e-3), X_unlabeled=X_pool).optimizer_.defaults["lr"] == 1e-3


def test_early_stopping_returns_to_the_best_epoch_with_its_critic():
    """Where the validation loss only rises, training ends after the patience and both parts are those of epoch 1."""
    valid = predefined_split(Dataset(X_known, (y_known + 1) % 3))  # what is learnt makes it worse
    options = {"lr": 0.1, "train_split": valid, "max_epochs": 30, "patience": 4, "mu": 1.0}
    stopped = fitted(net(**options), X_unlabeled=X_pool)
    first = fitted(net(**{**options, "max_epochs": 1, "lr_decay": ()}), X_unlabeled=X_pool)
    assert len(stopped.history) == 5
    assert not differ(weights(stopped), weights(first))
    endless = fitted(net(**{**options, "patience": None}), X_unlabeled=X_pool)
    assert len(endless.history) == 30


def test_without_unlabelled_samples_it_is_a_plain_classifier_and_says_so_once():
    """The first such fit warns, later ones do not; the critic is as it was made; with samples nothing is said."""
    estimator = net()
    with pytest.warns(ModalNTKWarning, match="Pass X_unlabeled=pool"):
        fitted(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(estimator)
        made = fitted(net(max_epochs=0), X_unlabeled=X_pool)
    assert not estimator.critic_is_trained_
    assert not differ(weights(estimator), weights(made), "critic.")
    assert differ(weights(estimator), weights(made), "head")
    assert "transport" not in estimator.history[-1]
    with pytest.warns(ModalNTKWarning):
        fitted(net(), X_unlabeled=X_pool[:0])


def test_plain_training_equals_a_plain_net():
    """Without unlabelled samples the weights become those of an ordinary skorch net that starts from the same ones."""
    options = {"lr": 0.1, "max_epochs": 3, "batch_size": 16, "verbose": 0}
    extractor = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    ours = net(extractor, head=nn.Linear(4, 3), n_features=4, lr_decay=(), momentum=0.0, **options).initialize()
    plain = NeuralNetClassifier(
        nn.Sequential(copy.deepcopy(extractor), copy.deepcopy(ours.head_)),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        iterator_train__shuffle=True,
        **options,
    )
    with seeded(3):
        plain.fit(X_known, y_known)
    with seeded(3), pytest.warns(ModalNTKWarning):
        ours.partial_fit(X_known, y_known)
    for a, b in zip(plain.module_.parameters(), ours.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_teach_hands_on_the_pool(active_learner):
    """Both learners pass X_unlabeled on, at the first fit and at every teach, and the query reads the critic."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        learner = active_learner(net(), modal_ntk.WAAL(random_state=0), X_known, y_known, X_unlabeled=X_pool)
        pool = X_pool
        for _ in range(2):
            indices, rows = learner.query(pool, n_instances=3)
            pool = np.delete(pool, indices, axis=0)
            learner.teach(rows, np.zeros(3, np.int64), X_unlabeled=pool)
    assert learner.estimator.critic_is_trained_
    assert len(learner.X_training) == 18
    assert learner.estimator.coefficients_ == waal_coefficients(18, 42)


def test_partial_fit_goes_on():
    """A second training continues from the weights; the net keeps no pool between the two."""
    estimator = fitted(net(), X_unlabeled=X_pool)
    before = weights(estimator)
    estimator.partial_fit(X_known, y_known, X_unlabeled=X_pool)
    assert differ(before, weights(estimator))
    assert len(estimator.history) == 6
    assert estimator.unlabeled_set_ is None
    assert X_pool.tobytes() not in pickle.dumps(estimator)


def test_a_seed_repeats_the_training_and_copies_behave_alike():
    """Equal seeds give equal weights; pickles predict the same; clones keep parameters and start untrained."""
    estimator = net(head__n_hidden=7, critic__n_hidden=5, module__hidden=9, critic_optimizer__lr=0.3)
    first = weights(fitted(estimator, X_unlabeled=X_pool))
    copied = clone(estimator)
    assert not copied.initialized_
    assert copied.get_params(deep=False).keys() == net(**copied.get_params(deep=False)).get_params(deep=False).keys()
    assert not differ(first, weights(fitted(copied, X_unlabeled=X_pool)))
    loaded = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    assert loaded.head_ is loaded.module_.head
    assert loaded.critic_.layers[0].out_features == 5
    loaded.partial_fit(X_known, y_known, X_unlabeled=X_pool)


def test_parts_may_be_given():
    """Classes with their parameters or instances serve as head and critic, and a critic of shape (n, 1) too."""
    critic = nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())
    estimator = fitted(
        net(head=nn.Linear, head__in_features=8, head__out_features=3, critic=critic), X_unlabeled=X_pool
    )
    assert estimator.critic_ is critic
    assert estimator.predict_proba(X).shape == (60, 3)
    default = fitted(net(), X_unlabeled=X_pool)
    assert isinstance(default.head_, TwoLayerHead)
    assert isinstance(default.critic_, TwoLayerCritic)
    assert [p.out_features for p in default.head_ if isinstance(p, nn.Linear)] == [50, 3]


@pytest.mark.parametrize("module", [nn.Identity, nn.Flatten, zoo.ConvNet])
def test_extractors_of_every_kind(module):
    """Features without parameters, or of images, serve as well."""
    shaped = X.reshape(-1, 1, 2, 3) if module is zoo.ConvNet else X
    with seeded(0):
        estimator = net(module).fit(shaped[:12], y_known, X_unlabeled=shaped[12:])
    assert np.isfinite(estimator.predict_proba(shaped)).all()


def test_inputs_by_name():
    """Samples in a dict of arrays train and are queried."""
    named = {"a": X[:, :3], "b": X[:, 3:]}
    known, pool = ({k: v[rows] for k, v in named.items()} for rows in (slice(12), slice(12, None)))
    estimator = net(Named).fit(known, y_known, X_unlabeled=pool)
    assert len(modal_ntk.WAAL().select(estimator, pool, 4, X_labeled=known, y_labeled=y_known).indices) == 4


def test_searches_reach_every_part_and_mu():
    """Grid search over module__*, head__* and mu takes unlabelled samples as parameter, as argument, or routed."""
    grid = {"module__hidden": [4, 6], "mu": [0.01, 0.1], "head__n_hidden": [5]}
    known = X[:24], y[:24]
    by_parameter = GridSearchCV(net(unlabeled=X_pool), grid, cv=2).fit(*known)
    by_argument = GridSearchCV(net(), grid, cv=2).fit(*known, X_unlabeled=X_pool)
    with config_context(enable_metadata_routing=True):
        requested = net().set_fit_request(X_unlabeled=True)
        routed = GridSearchCV(requested, grid, cv=2).fit(*known, X_unlabeled=X_pool)
    for search in (by_parameter, by_argument, routed):
        assert search.best_estimator_.critic_is_trained_
        assert search.best_estimator_.module_.extractor.layers[0].out_features in (4, 6)


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


def test_the_view_reads_it_like_any_net():
    """Probabilities, logits and the embedding, the input of the head's last layer; critic values in evaluation mode."""
    estimator = fitted(net(), X_unlabeled=X_pool)
    view = NetView(estimator)
    np.testing.assert_allclose(view.probabilities(X).numpy(), estimator.predict_proba(X), atol=1e-6)
    assert view.embeddings(X).shape == (60, 50)
    modes = [part.training for part in estimator.critic_.modules()]
    estimator.critic_.train()
    with view.no_trace():
        logits, g = view.logits_and_critic(X)
    assert all(part.training for part in estimator.critic_.modules())
    assert len(modes) == len(list(estimator.critic_.modules()))
    estimator.module_.eval()
    estimator.critic_.eval()
    with torch.no_grad():
        z = estimator.module_.extractor(torch.from_numpy(X))
        torch.testing.assert_close(g, estimator.critic_(z))
        torch.testing.assert_close(logits, estimator.module_.head(z))


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence", "random_sampling", "ntkcpl"])
def test_every_strategy_works_on_it(name):
    """The ablation of the paper: any other query on the adversarially trained net."""
    estimator = fitted(net(), X_unlabeled=X_pool)
    strategy = modal_ntk.get_strategy(name, random_state=0)
    assert len(strategy.select(estimator, X_pool, 4, X_labeled=X_known, y_labeled=y_known).indices) == 4


@pytest.mark.parametrize(
    ("options", "fit", "message"),
    [
        ({"mu": -1}, {}, "mu to be a finite number of at least 0, got -1"),
        ({"n_instances": 2.5}, {}, "n_instances to be an integer"),
        ({"patience": 0}, {}, "patience to be an integer of at least 1 or None"),
        ({}, {"X_unlabeled": X_pool[:, :3]}, "shape"),
        ({}, {"X_unlabeled": np.full((4, 6), np.nan, np.float32)}, "finite values in X_unlabeled"),
    ],
)
def test_what_cannot_be_used_is_refused_before_training(options, fit, message):
    """Bad parameters and pools are named with what was expected, and nothing is trained."""
    estimator = net(**options)
    with pytest.raises(InvalidInputError, match=message):
        estimator.fit(X_known, y_known, **{"X_unlabeled": X_pool, **fit})
    assert not getattr(estimator, "history_", None)


def test_sizes_that_cannot_be_known_are_asked_for():
    """Without samples or classes the default parts say what to pass."""
    with pytest.raises(InvalidInputError, match="Pass n_features"):
        net(head=nn.Linear(8, 3)).initialize()
    with pytest.raises(InvalidInputError, match="Pass classes="):
        WAALClassifier(Extractor, n_features=8).initialize()
    assert WAALClassifier(Extractor, n_features=8, classes=[0, 1]).initialize().initialized_


@pytest.mark.parametrize("reinitialise", [True, False])
def test_the_simulated_loop_trains_on_what_is_left(reinitialise):
    """Every round of a simulation trains against the critic on the rows without labels, and queries by it."""
    options = {"n_initial": 12, "batch_size": 4, "n_rounds": 2, "random_state": 0, "reinitialise": reinitialise}
    loop = SimulatedActiveLearning(net(), modal_ntk.WAAL(), unlabeled_param="X_unlabeled", **options).fit(X, y)
    assert [entry.n_labels for entry in loop.curve_] == [12, 16, 20]
    assert loop.estimator_.critic_is_trained_
    assert loop.estimator_.coefficients_ == waal_coefficients(20, 40)


def test_pairs_hold_both_samples():
    """A pair is the labelled sample, the unlabelled one and the label of the first."""
    pairs = Pairs(Dataset(X_known, y_known), Dataset(X_pool))
    (x_l, x_u), label = pairs[3, 7]
    np.testing.assert_array_equal(x_l, X_known[3])
    np.testing.assert_array_equal(x_u, X_pool[7])
    assert label == y_known[3]
