"""WAALClassifier: everything that users of skorch and modAL do with a net."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import zoo
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn
from waal_nets import Extractor, X, X_known, X_pool, differ, fitted, net, weights, y, y_known

import modal_ntk
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import InvalidInputError, ModalNTKWarning
from modal_ntk.nets import NetView, TwoLayerCritic, TwoLayerHead, WAALClassifier, seeded, waal_coefficients


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, a, b):
        return torch.relu(self.layer(torch.cat([a, b], 1)))


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
