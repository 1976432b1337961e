"""One switch for progress: what is shown where, and the seconds of each stage."""

import inspect
import io
import multiprocessing
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

import modal_ntk
from modal_ntk import config_context, get_config, progress, pruning, set_config
from modal_ntk.bench import Dataset, SimulatedActiveLearning, run
from modal_ntk.errors import InvalidInputError

STRATEGIES = [found.spec.name for found in modal_ntk.list_strategies()]


class Terminal(io.StringIO):
    """Standard error that somebody looks at."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal, on which work is shown at once."""
    stream = Terminal()
    # pytest puts its own stream back between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, modules=sys.modules))
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.002)
    return stream


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    model = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=2)
    return model.fit(X, y)


rng = np.random.default_rng(0)
X = rng.normal(size=(12, 4)).astype(np.float32)
y = np.arange(12) % 3
POOL = rng.normal(size=(60, 4)).astype(np.float32)


def made(name, **params):
    if name == "waal":
        params["critic"] = lambda pool: np.asarray(pool)[:, 0]
    return modal_ntk.get_strategy(name, random_state=0, **params)


def shown_until(terminal, text):
    """Wait until a text is shown; the time limit only ends a test that has failed."""
    end = time.monotonic() + 20
    while text not in terminal.getvalue() and time.monotonic() < end:
        time.sleep(0.002)
    return text in terminal.getvalue()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_shown_on_a_terminal_and_tells_its_seconds(name, net, terminal, monkeypatch):
    """A query is shown by name while it lasts; its stages are in ``info``, and add up to no more than all of it."""
    strategy = made(name)
    select = type(strategy)._select

    def slow(self, query):
        assert shown_until(terminal, type(strategy).__name__)
        return select(self, query)

    monkeypatch.setattr(type(strategy), "_select", slow)
    seconds = strategy.select(net, POOL, 3, X_labeled=X, y_labeled=y).info["seconds"]
    assert seconds["total"] > 0
    stages = [value for stage, value in seconds.items() if stage != "total"]
    assert stages or name == "random_sampling"
    assert sum(stages) <= seconds["total"]
    assert "\n" not in terminal.getvalue().rstrip("\n")  # a bar that goes away, and no line at the end


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_silent_where_nobody_looks(name, net, capsys):
    """Into a file or a pipe nothing is written, unless asked for."""
    made(name).select(net, POOL, 3, X_labeled=X, y_labeled=y)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", STRATEGIES)
def test_verbose_tells_the_seconds_of_each_stage(name, net, capsys):
    """With verbose=1 one line at the end names the strategy and its stages, wherever it goes."""
    strategy = made(name, verbose=1)
    info = strategy.select(net, POOL, 3, X_labeled=X, y_labeled=y).info
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"{type(strategy).__name__}: ")
    for stage in info["seconds"]:
        assert stage == "total" or stage.replace("_", "-") in told[0]


def test_whatever_takes_long_has_verbose():
    """Strategies, pruners, simulation and session take ``verbose``."""
    kinds = [type(modal_ntk.get_strategy(name)) for name in STRATEGIES]
    kinds += [modal_ntk.CandidateSubset, modal_ntk.Switch, modal_ntk.LabelingSession, SimulatedActiveLearning]
    kinds += [pruning.LpNTKPruner, pruning.EL2N, pruning.GraNd, pruning.ForgettingScore]
    assert [kind.__name__ for kind in kinds if "verbose" not in inspect.signature(kind).parameters] == []


@pytest.mark.filterwarnings("ignore:LpNTKPruner")
@pytest.mark.parametrize("pruner", [pruning.LpNTKPruner, pruning.EL2N, pruning.GraNd, pruning.ForgettingScore])
def test_pruners_tell_their_stages(pruner, net, capsys):
    """A pruner's line names the training of its nets."""
    few = {"n_models": 2, "n_epochs": 1} if pruner in (pruning.EL2N, pruning.GraNd) else {}
    pruner(net, random_state=0, verbose=1, **few).fit(X, y)
    told = capsys.readouterr().err
    assert told.startswith(f"{pruner.__name__}: ")
    assert "training" in told


def test_a_simulation_is_one_bar_and_one_line(net, terminal, monkeypatch):
    """Rounds count; queries within them are named beside, and say nothing of their own at the end."""
    simulated = SimulatedActiveLearning(net, modal_ntk.Margin(), n_initial=4, batch_size=2, n_rounds=2, random_state=0)
    query = modal_ntk.Margin._select

    def slow(self, asked):
        with progress.stage("scores"):
            assert shown_until(terminal, "Margin: scores")
        return query(self, asked)

    monkeypatch.setattr(modal_ntk.Margin, "_select", slow)
    with config_context(progress=True):
        simulated.fit(X, y)
    told = [line for line in terminal.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    assert any("SimulatedActiveLearning: rounds" in line for line in told)
    assert told[-1].startswith("SimulatedActiveLearning: ")
    assert all(stage in told[-1] for stage in ("query", "fit", "scoring"))
    assert not [line for line in told if line.startswith("Margin")]


def test_a_comparison_has_a_bar_of_its_own(tmp_path, capsys):
    """Queries and rounds within `modal_ntk.bench.run` say nothing, also where everything is asked to."""
    data = Dataset("made up", POOL, np.arange(60) % 3, X, y, np.arange(3))
    with config_context(progress=True):
        sizes = {"n_initial": 6, "batch_size": 3, "n_rounds": 1, "seeds": 1}
        run(data, ["margin"], out=tmp_path, estimator=LogisticRegression(), **sizes)
    told = capsys.readouterr()
    assert "Margin:" not in told.err
    assert "SimulatedActiveLearning" not in told.err


class TestSwitch:
    """`set_config(progress=...)`."""

    def test_on_tells_everything(self, net, capsys):
        """True is ``verbose=1`` of everything."""
        with config_context(progress=True):
            made("coreset").select(net, POOL, 3)
        assert capsys.readouterr().err.startswith("CoreSet: ")

    def test_off_is_off(self, net, terminal):
        """False is silence, whatever ``verbose`` says and whoever looks."""
        with config_context(progress=False):
            made("coreset", verbose=1).select(net, POOL, 3)
        assert terminal.getvalue() == ""

    def test_a_context_ends_also_by_an_error(self):
        """What was set before is in force again."""

        def broken():
            with config_context(progress=False):
                assert get_config() == {"progress": False}
                raise KeyError

        with pytest.raises(KeyError):
            broken()
        assert get_config() == {"progress": "auto"}

    def test_setting_is_seen_by_other_threads_and_a_context_is_not(self):
        """As in scikit-learn a context is of one thread; a setting is everybody's."""
        seen = []
        with config_context(progress=True):
            thread = threading.Thread(target=lambda: seen.append(get_config()["progress"]))
            thread.start()
            thread.join()
        set_config(progress=False)
        try:
            thread = threading.Thread(target=lambda: seen.append(get_config()["progress"]))
            thread.start()
            thread.join()
        finally:
            set_config(progress="auto")
        assert seen == ["auto", False]

    @pytest.mark.parametrize("change", [set_config, lambda **kw: config_context(**kw).__enter__()])
    def test_there_are_three(self, change):
        """Anything else is refused, and changes nothing."""
        with pytest.raises(InvalidInputError, match="progress"):
            change(progress="loud")
        assert get_config() == {"progress": "auto"}

    def test_a_copy_is_handed_out(self):
        """Changing what `get_config` returned changes no setting."""
        get_config()["progress"] = False
        assert get_config() == {"progress": "auto"}

    def test_workers_are_silent(self, net, terminal, monkeypatch):
        """Of many processes on one terminal only the first shows anything by itself."""
        monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-1")
        made("coreset").select(net, POOL, 3)
        assert terminal.getvalue() == ""


class TestWork:
    """Seconds and bars."""

    def test_stages_within_stages_are_counted_once(self):
        """Seconds of an inner stage are not the outer one's."""
        with progress.work("all") as done, progress.stage("outer"), progress.stage("inner"):
            time.sleep(0.05)
        assert done.seconds["inner"] >= 0.05
        assert done.seconds["outer"] < 0.05

    def test_stages_of_one_name_add_up(self):
        """A stage that comes back goes on."""
        with progress.work("all") as done:
            for _ in range(2):
                with progress.stage("part"):
                    time.sleep(0.02)
        assert done.seconds["part"] >= 0.04

    def test_one_long_call_is_seen(self, terminal):
        """A stage is named though nothing advances."""
        with progress.work("Strategy"), progress.stage("clusters"):
            assert shown_until(terminal, "Strategy: clusters")

    def test_what_is_counted_is_shown(self, terminal):
        """Counts are those of the stage's own unit."""
        with progress.work("Strategy"), progress.stage("look_ahead", 4):
            progress.advance(3)
            progress.advance(1, "row")
            assert shown_until(terminal, "3/4")
        assert "look-ahead" in terminal.getvalue()
        assert "4/4" not in terminal.getvalue()

    def test_short_work_is_not_shown(self, terminal, monkeypatch):
        """Nothing is drawn before the delay is over."""
        monkeypatch.setattr(progress, "DELAY", 60.0)
        with progress.work("Strategy"), progress.stage("clusters"):
            pass
        assert terminal.getvalue() == ""

    def test_an_error_leaves_nothing_open(self, terminal):
        """The error comes through, the bar is gone, and what comes next starts anew."""

        def broken():
            with progress.work("Broken"), progress.stage("outer"):
                for _ in progress.steps(range(3), "inner", "step"):
                    raise KeyError

        with pytest.raises(KeyError):
            broken()
        before = threading.active_count()
        with progress.work("Next") as done, progress.stage("part"):
            assert shown_until(terminal, "Next: part")
        assert list(done.seconds) == ["part"]
        assert threading.active_count() <= before

    def test_without_work_nothing_happens(self, terminal):
        """Stages, steps and counts may be used anywhere."""
        with progress.stage("part", 2):
            progress.advance()
        assert list(progress.steps([1, 2], "steps", "step")) == [1, 2]
        assert terminal.getvalue() == ""
