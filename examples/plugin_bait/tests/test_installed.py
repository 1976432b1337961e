"""The installed distribution, used by name."""

from importlib.metadata import version

import numpy as np
import pytest
from modal_ntk_bait import BAIT

import modal_ntk
from modal_ntk.cli import main
from modal_ntk.testing.situations import blobs, skorch_net

X, y = blobs(90)


def test_it_is_listed_with_its_origin(capsys):
    """The listing names this distribution and its version."""
    listed = {s.name: s for s in modal_ntk.list_strategies()}["bait"]
    assert (listed.distribution, listed.version) == ("modal-ntk-bait", version("modal-ntk-bait"))
    assert main(["strategies"]) == 0
    assert f"bait  (modal-ntk-bait {version('modal-ntk-bait')})" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:'force_all_finite' was renamed:FutureWarning")
def test_a_learner_queries_and_teaches():
    """By name, for a net: ten labels from the pool, then taught."""
    strategy = modal_ntk.get_strategy("bait", oversampling=1.5)
    assert isinstance(strategy, BAIT)
    learner = modal_ntk.ActiveLearner(skorch_net(), strategy, X[:9], y[:9])
    indices, samples = learner.query(X[9:], n_instances=10)
    learner.teach(samples, y[9:][indices])
    assert len(learner.y_training) == 19


def test_it_can_be_switched_to():
    """Beside the library's own strategies it is one stage of a switch."""
    switch = modal_ntk.Switch([(modal_ntk.MaxHerding(), 9), (BAIT(), None)])
    net = skorch_net().fit(X[:9], y[:9])
    assert switch.select(net, X[9:], 3, X_labeled=X[:9], y_labeled=y[:9]).info["strategy"] == "BAIT"


def test_the_command_line_compares_it(tmp_path, capsys):
    """`modal-ntk bench` takes the name with parameters."""
    np.savez(tmp_path / "data.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    arguments = ["bench", "--dataset", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out"), "--quiet"]
    arguments += ["--seeds", "1", "--initial", "9", "--batch", "5", "--rounds", "2"]
    assert main([*arguments, "--strategy", "bait:n_components=4", "--strategy", "random_sampling"]) == 0
    assert "bait:n_components=4" in capsys.readouterr().out
