"""One gate for results: what is short, repeated, out of range or not finite never leaves `select`, and says why."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import modal_ntk
from modal_ntk import ActiveLearner, LabelingSession, QueryStrategy, Selection, nets
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.errors import ContractError, InvalidInputError, ModalNTKError
from modal_ntk.selection import best, look_ahead, top_b
from modal_ntk.structure import diffuse
from modal_ntk.testing.situations import DropoutMLP, blobs, skorch_net, taught

X, Y = blobs()


class Gives(QueryStrategy):
    """Answers what it is told to."""

    def __init__(self, indices=(), scores=None, info=None, bare=False):
        self.indices = indices
        self.scores = scores
        self.info = info
        self.bare = bare

    def _select(self, query):
        if self.bare:
            return self.indices
        scores = np.zeros(len(np.atleast_1d(self.indices))) if self.scores is None else self.scores
        return Selection(self.indices, scores, {} if self.info is None else self.info)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"indices": [0, 1]}, r"Gives to choose 3 different positions below 10, got int64 of shape \(2,\)"),
        ({"indices": [0, 1, 2, 3]}, r"got int64 of shape \(4,\)"),
        ({"indices": []}, r"got float64 of shape \(0,\)"),
        ({"indices": [4, 1, 4]}, "got position 4 2 times"),
        ({"indices": [0, 1, 10]}, "got positions from 0 to 10"),
        ({"indices": [-1, 1, 2]}, "got positions from -1 to 2"),
        ({"indices": [0.0, 1.0, 2.0]}, r"got float64 of shape \(3,\)"),
        ({"indices": [True, False, True]}, "got bool of shape"),
        ({"indices": [[0, 1, 2]]}, r"got int64 of shape \(1, 3\)"),
        ({"indices": [0, 1, 2], "scores": [1.0, np.nan, 2.0]}, "got nan for row 1 of the pool, and for 1 of 3 in all"),
        ({"indices": [5, 1, 2], "scores": [np.inf, 0, -np.inf]}, "got inf for row 5 of the pool, and for 2 of 3"),
        ({"indices": [0, 1, 2], "scores": [1.0, 2.0]}, r"3 numbers as scores, got list of shape \(2,\)"),
        ({"indices": [0, 1, 2], "scores": ["a", "b", "c"]}, "3 numbers as scores, got list of shape"),
        ({"indices": [0, 1, 2], "info": 7}, "a Selection with a dict as info"),
        ({"indices": [0, 1, 2], "bare": True}, r"Gives to return a Selection .* got \[0, 1, 2\]"),
    ],
)
def test_no_broken_result_gets_through(given, message):
    """Too few, too many, repeated, out of range, no integers, not finite, no selection: by name, with what there is."""
    with pytest.raises(ContractError, match=message):
        Gives(**given).select(None, X[:10], 3)


def test_results_come_out_in_their_types():
    """Integers of any kind become int64, scores float64."""
    selected = Gives([3, 0], np.float32([1, 2])).select(None, X[:10], 2)
    assert (selected.indices.dtype, selected.scores.dtype) == (np.int64, np.float64)
    assert (selected.indices.tolist(), selected.scores.tolist()) == ([3, 0], [1, 2])


def foreign(learner, X, n_instances=1):
    """A modAL strategy that falls short."""
    return np.arange(n_instances - 1)


def test_strategies_of_others_fall_short_nowhere(tmp_path):
    """A simulation and a session take no short batch from a strategy that is not of this library, either."""
    model = LogisticRegression(max_iter=500)
    simulation = SimulatedActiveLearning(model, foreign, n_initial=12, batch_size=3, n_rounds=1, random_state=0)
    with pytest.raises(ContractError, match="foreign to choose 3 different positions"):
        simulation.fit(X, Y)
    session = LabelingSession(tmp_path / "s.sqlite", X, model, foreign)
    for row in range(6):
        session.tell(row, int(Y[row]))
    with pytest.raises(ContractError, match="foreign to choose 2 different positions"):
        session.ask(2)
    assert session.pending.tolist() == []


class TestDivergedNets:
    """A net whose training has diverged gives no picks, but a sentence on its outputs."""

    @pytest.mark.parametrize("fill", [np.nan, np.inf, 1e30, 3e38])
    @pytest.mark.parametrize("name", [s.name for s in modal_ntk.list_strategies()])
    def test_every_strategy_refuses_or_gives_a_sound_batch(self, name, fill):
        """Weights that are NaN, infinite or enormous: as many finite picks as asked for, or an error of ours."""
        situation = taught(skorch_net(DropoutMLP, max_epochs=1), X, Y)
        with torch.no_grad():
            situation.learner.module_.head.weight.fill_(fill)
        strategy = modal_ntk.get_strategy(name, random_state=0)
        if "critic" in strategy.needs:
            strategy.set_params(critic=lambda X: np.zeros(len(X)))
        try:
            selected = situation.select(strategy, 4)
        except ModalNTKError as error:
            said = str(error)
        else:
            assert len(set(selected.indices.tolist())) == 4
            assert np.isfinite(selected.scores).all()
            return
        assert "finite" in said or "outputs of the model of a size to compute with, got some that reach" in said

    def test_the_first_bad_row_is_named(self):
        """Where outputs are NaN for some samples only, the error counts them and names the first."""

        class Fragile(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(6, 3)

            def forward(self, x):
                return self.head(x) / (x[:, :1] > 0).float().clamp_min(0).log().exp()

        net = skorch_net(Fragile, max_epochs=0).initialize()
        pool = np.ones((20, 6), np.float32)
        pool[17:, 0] = -1
        with pytest.raises(InvalidInputError, match=r"Margin: Expected finite outputs of .* from row 17 on"):
            modal_ntk.Margin().select(net, pool, 2)
        pool[:, 0] = 1
        pool[[5, 9], 0] = -1
        with pytest.raises(InvalidInputError, match=r"in 2 of 20 rows, first in 5\. Its training has diverged"):
            modal_ntk.Margin().select(net, pool, 2)

    def test_probabilities_of_any_classifier(self):
        """A classifier whose probabilities are NaN is named."""

        class Lost(LogisticRegression):
            def predict_proba(self, X):
                return super().predict_proba(X) * np.nan

        with pytest.raises(InvalidInputError, match="Entropy: Expected finite probabilities of Lost, got NaN"):
            modal_ntk.Entropy().select(Lost(max_iter=500).fit(X, Y), X, 2)

    def test_classes_without_a_chance_are_no_divergence(self):
        """Logarithms of probabilities may be minus infinity."""

        class Sure(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(1))

            def forward(self, x):
                p = torch.stack([(x[:, 0] > 0).float(), (x[:, 0] <= 0).float()], 1)
                return p.log() + self.weight

        net = skorch_net(Sure, criterion=nn.NLLLoss, n_classes=2).initialize()
        assert len(modal_ntk.Margin().select(net, X, 3).indices) == 3

    def test_a_diverged_waal_net_shortens_no_batch(self):
        """A simulation on it ends in words about the net, after no round that labels nothing."""

        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(6, 8)

            def forward(self, x):
                return self.layer(x)

        net = nets.WAALClassifier(Plain, classes=range(3), max_epochs=5, lr=0.1, batch_size=16, verbose=0)
        simulation = SimulatedActiveLearning(
            net, modal_ntk.WAAL(), n_initial=12, batch_size=5, n_rounds=2, random_state=0, unlabeled_param="X_unlabeled"
        )
        with pytest.raises(InvalidInputError, match="WAAL: Expected finite outputs of the net, got NaN"):
            simulation.fit(X * 1e4, Y)


@pytest.mark.parametrize("choose", [lambda s: top_b(s, 2, rng=np.random.default_rng(0)), best])
def test_no_score_is_nan(choose):
    """NaN among scores is counted and placed; infinite scores are the largest and the smallest."""
    with pytest.raises(InvalidInputError, match="NaN for 2 of 4 rows, first for row 1"):
        choose(np.array([0.0, np.nan, 1.0, np.nan]))
    assert choose(np.array([-np.inf, 0.0, np.inf]))[0] == 2


def test_no_kernel_or_graph_is_nan():
    """Look-ahead and diffusion name what is not finite."""
    kernel = np.eye(4)
    kernel[1, 2] = np.nan
    with pytest.raises(InvalidInputError, match="a kernel of finite numbers"):
        look_ahead(kernel, [0, 1, 0, 1], [0], 1)
    with pytest.raises(InvalidInputError, match="f0 of finite numbers"):
        look_ahead(np.eye(4), [0, 1, 0, 1], [0], 1, f0=np.full((4, 2), np.inf))
    with pytest.raises(InvalidInputError, match="a transition matrix of finite numbers"):
        diffuse(kernel, [0], [0], 2, 3)


def test_a_query_through_modal_is_checked_too():
    """The gate stands in `select`, which every way of querying goes through."""
    learner = ActiveLearner(LogisticRegression(max_iter=500), Gives([0, 0]), X[:12], Y[:12])
    with pytest.raises(ContractError, match="position 0 2 times"):
        learner.query(X[12:], n_instances=2)
