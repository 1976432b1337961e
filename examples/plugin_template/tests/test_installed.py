"""The installed distribution, used by name in the three ways users do."""

from importlib.metadata import version

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import modal_ntk
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.cli import main

NAME = "epsilon_margin"
rng = np.random.default_rng(0)
y = np.arange(90) % 3
X = (y[:, None] + rng.normal(scale=0.7, size=(90, 4))).astype(np.float32)


def test_it_is_listed_with_its_origin():
    """The listing names this distribution and its version."""
    listed = {s.name: s for s in modal_ntk.list_strategies()}[NAME]
    assert (listed.distribution, listed.version) == ("modal-ntk-epsilon-margin", version("modal-ntk-epsilon-margin"))


@pytest.mark.filterwarnings("ignore:'force_all_finite' was renamed:FutureWarning")
def test_a_learner_queries_and_teaches():
    """By name, for a learner of modAL's kind: ten labels from the pool, then taught."""
    learner = modal_ntk.ActiveLearner(LogisticRegression(), modal_ntk.get_strategy(NAME, epsilon=0.5), X[:9], y[:9])
    indices, samples = learner.query(X[9:], n_instances=10)
    learner.teach(samples, y[9:][indices])
    assert len(set(indices.tolist())) == 10
    assert len(learner.y_training) == 19


def test_modals_own_learner_queries():
    """modAL's own class takes it unchanged."""
    from modAL.models import ActiveLearner

    learner = ActiveLearner(LogisticRegression().fit(X, y), modal_ntk.get_strategy(NAME, random_state=0))
    assert learner.query(X, n_instances=3)[0].shape == (3,)


def test_the_command_line_compares_it(tmp_path, capsys):
    """`modal-ntk bench` takes the name with parameters."""
    np.savez(tmp_path / "data.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    arguments = ["bench", "--dataset", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out"), "--quiet"]
    arguments += ["--seeds", "1", "--initial", "9", "--batch", "5", "--rounds", "2"]
    assert main([*arguments, "--strategy", f"{NAME}:epsilon=0.2", "--strategy", "random_sampling"]) == 0
    assert f"{NAME}:epsilon=0.2" in capsys.readouterr().out


def test_a_grid_search_reaches_its_parameter():
    """GridSearchCV over a simulated loop tries each epsilon."""
    simulation = SimulatedActiveLearning(
        LogisticRegression(), modal_ntk.get_strategy(NAME), n_initial=9, batch_size=5, n_rounds=2, random_state=0
    )
    search = GridSearchCV(simulation, {"query_strategy__epsilon": [0.0, 0.5, 1.0]}, cv=2).fit(X, y)
    assert search.best_params_["query_strategy__epsilon"] in (0.0, 0.5, 1.0)
