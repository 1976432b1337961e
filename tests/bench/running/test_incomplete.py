"""What stops one run stops no other: strategies that lack something, errors, killed workers, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import zoo
from elsewhere import Fragile
from sklearn.linear_model import LogisticRegression

import modal_ntk
from modal_ntk.bench import Dataset, Protocol, SimulatedActiveLearning, Workers, run_protocol
from modal_ntk.bench.running.plan import Plan
from modal_ntk.bench.storage.claims import Claims
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import IncompleteRunError, InvalidInputError, ModalNTKWarning

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))


def run(out, strategies=("margin",), workers=None, estimator=None, seeds=1, **changes):
    values = {"n_initial": 6, "batch_size": 4, "n_rounds": 2, **changes}
    protocol = Protocol(dataset="blobs", strategies=strategies, seeds=seeds, **values)
    estimator = LogisticRegression() if estimator is None else estimator
    return run_protocol(protocol, out=out, dataset=DATA, estimator=estimator, workers=workers)


def results(store):
    return [row.result for row in store.rows()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_fails_between_cells_is_no_workers_end(tmp_path, monkeypatch, jobs):
    """A store that fails while cells are handed out stops the run with its error; the rows before are kept."""
    asked, take = [], Claims.take

    def failing(self, cell):
        asked.append(cell)
        if len(asked) == 3:
            raise OSError("the disk is gone")
        return take(self, cell)

    monkeypatch.setattr(Claims, "take", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path, seeds=6, workers=Workers(jobs=jobs))
    monkeypatch.undo()
    assert len(run(tmp_path, seeds=6).finished()) == 6


class TestStrategiesThatCannotWork:
    def test_are_named_before_the_first_run_and_the_others_run(self, tmp_path):
        """One that needs a torch net is warned about at once, the others run as without it, the end is an error."""
        with (
            pytest.warns(ModalNTKWarning, match=r"badge cannot be run, and is left out: UnmetNeedError: .*embedding"),
            pytest.raises(IncompleteRunError, match=r"2 runs could not be run:\n  badge, seeds 0, 1: Unmet"),
        ):
            run(tmp_path / "out", ["margin", "badge", "random_sampling"], seeds=2)
        calm = run(tmp_path / "calm", ["margin", "random_sampling"], seeds=2)
        assert results(Store(tmp_path / "out")) == results(calm)

    def test_if_none_can_nothing_is_made(self, tmp_path):
        """Where no strategy can work there is no folder, and every reason is told."""
        with pytest.raises(IncompleteRunError, match=r"badge, seed 0: (.|\n)*bald, seed 0: (.|\n)*Nothing was run\."):
            run(tmp_path / "out", ["badge", "bald"])
        assert not (tmp_path / "out").exists()

    def test_the_command_ends_with_2_and_reports_the_others(self, tmp_path, capsys, recwarn):
        """The table and the page are there, and what is missing is on stderr."""
        np.savez(tmp_path / "blobs.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
        study = tmp_path / "study.toml"
        study.write_text(
            f"dataset = '{(tmp_path / 'blobs.npz').as_posix()}'\nstrategies = ['margin', 'badge']\nseeds = 1\n"
            "n_initial = 6\nbatch_size = 4\nn_rounds = 1\nestimator = 'sklearn.linear_model:LogisticRegression'\n"
        )
        assert main(["bench", str(study), "--out", str(tmp_path / "out"), "--quiet"]) == 2
        printed = capsys.readouterr()
        assert printed.out.split()[:2] == ["labels", "margin"]
        assert "badge, seed 0: UnmetNeedError" in printed.err
        assert (tmp_path / "out" / "report.html").exists()


class TestRunsThatFail:
    def test_an_error_costs_its_run_alone(self, tmp_path):
        """What one run raises is told at the end, the others are stored, and the same call finishes it."""
        (tmp_path / "fits").mkdir()
        broken = Fragile(str(tmp_path / "fits"), raises=(2,))
        with pytest.raises(IncompleteRunError, match=r"margin, seed 0: RuntimeError: fit 2 went wrong"):
            run(tmp_path / "out", seeds=3, estimator=broken)
        assert Store(tmp_path / "out").finished() == {("margin", 1), ("margin", 2)}
        assert len(Store(tmp_path / "out").noted("margin", 0)) == 1
        whole = run(tmp_path / "out", seeds=3, estimator=broken)
        assert results(whole) == results(run(tmp_path / "calm", seeds=3))

    @pytest.mark.slow
    @pytest.mark.parametrize("deaths", [1, 2])
    def test_a_killed_worker_costs_at_most_its_run(self, tmp_path, deaths):
        """Runs whose worker was killed are tried again by themselves; all but those killed twice are stored."""
        (tmp_path / "fits").mkdir()
        calm = run(tmp_path / "calm", seeds=3)
        first = {row.seed: row.indices[0] for row in calm.rows() if row.round == 0}
        assert len(set(first.values())) == 3  # so that one run alone begins with the deadly sample
        fragile = Fragile(str(tmp_path / "fits"), deadly=DATA.x_train[first[1]], deaths=deaths)
        reason = r"1 runs could not be run:\n  margin, seed 1: its worker was killed twice"
        with pytest.raises(IncompleteRunError, match=reason) if deaths == 2 else nullcontext():
            run(tmp_path / "out", seeds=3, estimator=fragile, workers=Workers(jobs=2))
        lost = {("margin", 1)} if deaths == 2 else set()
        assert Store(tmp_path / "out").finished() == calm.finished() - lost
        assert len(list((tmp_path / "fits").glob("death-*"))) >= deaths
        fragile.deaths = 0
        whole = run(tmp_path / "out", seeds=3, estimator=fragile)
        assert results(whole) == results(calm)

    def test_a_run_that_an_ending_pool_took_is_run(self):
        """What another thread asks for after the pool has ended comes back with the others."""

        class Ending(Workers):
            passes = []

            @contextmanager
            def parallel(self):
                if len(Ending.passes) == 1:
                    next(Ending.passes[0])
                yield self._results

            def _results(self, tasks):
                Ending.passes.append(tasks)
                for function, args, kwargs in tasks:
                    if len(Ending.passes) == 1:
                        raise RuntimeError("the pool has ended")
                    yield function(*args, **kwargs)

        protocol = Protocol(dataset="blobs", strategies=["margin"], seeds=3, n_initial=6, batch_size=4, n_rounds=1)
        plan = Plan.of(protocol, dataset=DATA, estimator=LogisticRegression())
        found = list(plan.curves(protocol.cells, Ending()))
        assert sorted(seed for _, seed, curve in found if not isinstance(curve, str)) == [0, 1, 2]
        assert len(found) == 3


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import elsewhere, numpy as np, zoo
from modal_ntk.bench import Dataset, Protocol, Workers, run_protocol
X, y = zoo.blobs(n=90)
run_protocol(
    Protocol(dataset="blobs", strategies=["margin"], seeds=6, n_initial=6, batch_size=4, n_rounds=2),
    out={out!r}, dataset=Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3)),
    estimator=elsewhere.Fragile({fits!r}, waits=0.5), workers=Workers(jobs=2),
)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_ends_the_workers_too(tmp_path):
    """SIGTERM exits with 143, says how to go on, leaves no worker behind, and loses no round."""
    (tmp_path / "fits").mkdir()
    script = SCRIPT.format(
        path=[str(Path(__file__).parents[2] / "shared")], out=str(tmp_path / "out"), fits=str(tmp_path / "fits")
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "fits" / "fit-3").exists():
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "terminated; the same command goes on where this one stopped" in said
    psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    whole = run(tmp_path / "out", seeds=6, estimator=Fragile(str(tmp_path / "fits")))
    assert results(whole) == results(run(tmp_path / "calm", seeds=6))


class TestMoreRounds:
    @pytest.mark.parametrize("strategy", ["margin", "albl"])
    def test_a_finished_store_takes_more(self, tmp_path, strategy):
        """Rounds may be added, and strategies and seeds with them; the rows are a longer run's."""
        first = results(run(tmp_path / "out", [strategy], n_rounds=1))
        longer = run(tmp_path / "out", [strategy, "random_sampling"], n_rounds=3, seeds=2)
        assert results(longer) == results(run(tmp_path / "calm", [strategy, "random_sampling"], n_rounds=3, seeds=2))
        assert set(map(str, first)) <= set(map(str, results(longer)))

    def test_finished_rounds_are_not_run_again(self, tmp_path):
        """Only what is added is fitted, and the last fit before it once more."""
        (tmp_path / "fits").mkdir()
        fragile = Fragile(str(tmp_path / "fits"))
        run(tmp_path / "out", n_rounds=2, estimator=fragile)
        before = len(os.listdir(tmp_path / "fits"))
        run(tmp_path / "out", n_rounds=4, estimator=fragile)
        assert len(os.listdir(tmp_path / "fits")) - before == 2 + 1

    @pytest.mark.parametrize("changes", [{"n_rounds": 1}, {"batch_size": [4, 3, 4]}, {"n_rounds": 3, "n_initial": 7}])
    def test_other_schedules_are_refused(self, tmp_path, changes):
        """Fewer rounds, other sizes, or a longer schedule with another difference change nothing."""
        before = results(run(tmp_path / "out"))
        with pytest.raises(InvalidInputError, match="holds another comparison"):
            run(tmp_path / "out", **changes)
        assert results(Store(tmp_path / "out")) == before
        assert results(run(tmp_path / "out")) == before


def test_without_matplotlib_it_is_said_before_the_first_run(tmp_path, capsys, monkeypatch):
    """The note comes before any progress, and the page is there without pictures, saying how to get them."""
    np.savez(tmp_path / "blobs.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = [
        "--dataset",
        str(tmp_path / "blobs.npz"),
        "--strategy",
        "random_sampling",
        "--seeds",
        "1",
        "--rounds",
        "0",
    ]
    assert main(["bench", *options, "--initial", "6", "--out", str(tmp_path / "out"), "--plain"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0].startswith("modal-ntk: note: matplotlib is not installed, so the page has no")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "modal-ntk[bench]" in page
    assert "<img" not in page
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", 3),
        ("dataset", ""),
        ("seeds", 10**21),
        ("seeds", [-1]),
        ("seeds", [2**64]),
        ("seeds", "many"),
        ("n_initial", 0),
        ("n_initial", 1e30),
        ("n_initial", 10**30),
        ("batch_size", [4, 0]),
        ("batch_size", True),
        ("n_rounds", -1),
        ("n_rounds", 10**18),
        ("initial", "best"),
        ("initial", 1),
        ("reinitialise", "no"),
        ("reinitialise", 0),
        ("estimator", 3),
        ("estimator_params", [1]),
        ("estimator_params", {1: 2}),
        ("test_size", "half"),
        ("test_size", float("nan")),
        ("validation", 2.5),
        ("imbalance", "strong"),
        ("imbalance", [1.0, None]),
        ("pool_size", 0),
        ("split_seed", 2**32),
        ("metrics", 3),
        ("metrics", [3]),
        ("unlabeled_param", 5),
    ],
)
def test_values_of_a_protocol_are_checked_by_type_and_range(key, value):
    """Each is an error of ours that names the key, at once and in little memory."""
    with pytest.raises(modal_ntk.errors.ModalNTKError, match=key if key != "metrics" else "metric"):
        Protocol.from_dict({"strategies": ["margin"], key: value})


def test_what_reads_like_no_is_not_yes():
    """A text in place of a truth value is refused by the simulation, too."""
    simulation = SimulatedActiveLearning(LogisticRegression(), modal_ntk.Margin(), reinitialise="no")
    with pytest.raises(InvalidInputError, match="reinitialise to be True or False, got 'no'"):
        simulation.fit(X, y)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "\0", "strategies = [1979-05-27]", "strategies = ['x']\nn_initial = 'a'"]
)
def test_files_name_themselves(tmp_path, text):
    """Whatever is wrong with a protocol, its file is named."""
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(modal_ntk.errors.ModalNTKError, match=r"odd\.toml"):
        Protocol.from_toml(tmp_path / "odd.toml")


def test_doctors_json_ends_as_it_says(monkeypatch, capsys):
    """Status 1 where ok is false, 0 where it is true."""
    from modal_ntk.commands import doctor

    for problems in ([], ["something"]):
        found = doctor.Diagnosis({"Python": "3"}, "known to work", [], [], {}, problems)
        monkeypatch.setattr(doctor, "diagnose", lambda found=found: found)
        status = main(["doctor", "--json"])
        assert json.loads(capsys.readouterr().out)["ok"] is (status == 0)
        assert status == int(bool(problems))
