"""Cells run again give the same rows: those that were broken off go on, those that are stored are verified."""

import dataclasses
import json
import os
import sqlite3
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from slow_study import write_study
from small_runs import DATA, X, protocol, small_run, y

from modal_ntk.bench import Workers, verify
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.storage.manifest import manifest
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError

ESTIMATOR = """
from sklearn.linear_model import LogisticRegression

class Slow(LogisticRegression):
    pass
"""


class Dies(LogisticRegression):
    """Raises at the fit that would be number `lives`; counts fits in a file."""

    def __init__(self, folder=None, lives=None):
        super().__init__()
        self.folder = folder
        self.lives = lives

    def __repr__(self):
        return "Dies()"  # how long it lives is no part of the protocol

    def fit(self, X, y):
        with open(os.path.join(self.folder, "fits"), "a+") as file:
            file.write(".")
            file.seek(0)
            fits = len(file.read())
        if self.lives is not None and fits > self.lives:
            raise KeyboardInterrupt
        return super().fit(X, y)


class TestUnfinishedCells:
    @pytest.mark.parametrize("strategy", ["margin", "random_sampling", "ntkcpl:variant=self", "ddal"])
    @pytest.mark.parametrize("initial", ["random", "query"])
    @pytest.mark.parametrize("lives", [1, 3])
    def test_rounds_are_not_run_again(self, tmp_path, strategy, initial, lives):
        """A cell broken off goes on after its last whole round, with one fit repeated; its rows are a calm cell's."""
        if (strategy, initial) == ("margin", "query"):
            pytest.skip("margin does not start without labels")
        settings = {"strategies": [strategy], "seeds": 1, "n_rounds": 4, "initial": initial}
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path / "out", estimator=Dies(str(tmp_path), lives), **settings)
        assert len(Store(tmp_path / "out").noted(strategy, 0)) == lives
        assert Store(tmp_path / "out").rows() == []
        before = len((tmp_path / "fits").read_text())
        resumed = small_run(tmp_path / "out", estimator=Dies(str(tmp_path)), **settings)
        assert len((tmp_path / "fits").read_text()) - before == 5 - lives + 1
        assert resumed.noted(strategy, 0) == []
        calm = small_run(tmp_path / "calm", estimator=Dies(str(tmp_path)), **settings)
        assert [row.result for row in resumed.rows()] == [row.result for row in calm.rows()]

    @pytest.mark.parametrize(
        ("strategy", "reinitialise"), [("albl", True), ("random_sampling", False)], ids=["bandit", "continued"]
    )
    def test_what_no_round_tells_is_run_from_the_start(self, tmp_path, strategy, reinitialise):
        """A strategy with a state of its own, and training that goes on, begin anew and end as a calm cell does."""
        from sklearn.linear_model import SGDClassifier

        class Breaks(SGDClassifier):
            left = 3

            def __repr__(self):
                return "Breaks()"

            def fit(self, X, y):
                Breaks.left -= 1
                return super().fit(X, y)

            def score(self, X, y):
                if Breaks.left == 0:
                    Breaks.left = 10**6
                    raise KeyboardInterrupt
                if not reinitialise:
                    Breaks.left -= 1
                return super().score(X, y)

        settings = {"strategies": [strategy], "seeds": 1, "n_rounds": 4, "reinitialise": reinitialise}
        model = Breaks(loss="log_loss", max_iter=5, tol=None)
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path / "out", estimator=model, **settings)
        resumed = small_run(tmp_path / "out", estimator=model, **settings)
        calm = small_run(tmp_path / "calm", estimator=model, **settings)
        assert [row.result for row in resumed.rows()] == [row.result for row in calm.rows()]

    def test_rounds_of_another_replay_are_left_unread(self, tmp_path):
        """Rounds that do not fit seed, schedule or pool change nothing."""
        settings = {"strategies": ["margin"], "seeds": 1}
        calm = small_run(tmp_path / "calm", **settings)
        right = [Round(r.n_labels, r.score, 0.0, 0.0, np.array(r.indices), fit_seed=r.fit_seed) for r in calm.rows()]
        wrong = [
            dataclasses.replace(right[0], fit_seed=1),
            dataclasses.replace(right[0], indices=right[0].indices + 1000),
            dataclasses.replace(right[0], indices=right[0].indices[:3]),
            dataclasses.replace(right[0], indices=right[0].indices[::-1]),
        ]
        for i, entry in enumerate(wrong):
            store = Store(tmp_path / str(i))
            store.note("margin", 0, 0, entry)
            again = small_run(tmp_path / str(i), **settings)
            assert [row.result for row in again.rows()] == [row.result for row in calm.rows()]


class TestVerify:
    def test_what_was_run_is_reproduced(self, tmp_path, monkeypatch, capsys):
        """`modal-ntk verify` runs cells again from the manifest once it is told what may be called, with status 0."""
        write_study(tmp_path, ESTIMATOR, 2, X, y)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "slow_estimator", raising=False)
        monkeypatch.chdir(tmp_path)
        assert main(["bench", "study.toml", "--out", "out", "--quiet"]) == 0
        capsys.readouterr()
        assert main(["verify", "out", "--cells", "3", "--run-estimator", "slow_estimator:Slow"]) == 0
        assert capsys.readouterr().out == "3 of 3 cells reproduced\n"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("UPDATE rounds SET score = score + 1e-12 WHERE round = 1", "round 1: score"),
            ("UPDATE rounds SET indices = '[1, 2, 3, 4]' WHERE round = 2", "round 2: other samples were labelled"),
            ("UPDATE details SET scores = '[0, 0, 0, 0]' WHERE round = 1", "round 1: the strategy gave other scores"),
            ("UPDATE details SET metrics = '{\"f1\": 1}' WHERE round = 0", "round 0: f1 1.0 stored, nan run"),
            ("UPDATE details SET fit_seed = 1 WHERE round = 0", "round 0: seed 1 stored"),
            ("DELETE FROM rounds WHERE round = 2", "2 rounds stored, 3 run"),
        ],
    )
    def test_every_difference_is_found(self, tmp_path, change, message):
        """Whatever of a row differs is named, with the round."""
        small_run(tmp_path, seeds=1, strategies=["margin"])
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            connection.execute(change)
        connection.close()
        given = {"dataset": DATA, "estimator": LogisticRegression()}
        (found,) = verify(tmp_path, **given).differences
        assert found.startswith(f"margin, seed 0: {message}")
        if "1e-12" in change:
            assert verify(tmp_path, tolerance=1e-9, **given).differences == []

    def test_what_was_given_as_an_object_is_asked_for(self, tmp_path):
        """A store made from objects needs them again, and refuses others."""
        small_run(tmp_path, seeds=1)
        with pytest.raises(InvalidInputError, match=r"no dataset and no estimator.*dataset=\.\.\., est"):
            verify(tmp_path)
        with pytest.raises(InvalidInputError, match=r"estimator is .* there and .* here"):
            verify(tmp_path, dataset=DATA, estimator=LogisticRegression(C=2))

    def test_chosen_cells(self, tmp_path):
        """Cells may be named, on other workers; one that is not there is an error that lists what is."""
        small_run(tmp_path, seeds=1)
        given = {"dataset": DATA, "estimator": LogisticRegression()}
        found = verify(tmp_path, cells=[("random_sampling", 0)], workers=Workers(jobs=2), **given)
        assert (found.cells, found.differences) == ([("random_sampling", 0)], [])
        with pytest.raises(LookupError, match="Unknown finished cell"):
            verify(tmp_path, cells=[("random_sampling", 9)], **given)


def test_a_manifest_names_everything():
    """Versions, hardware, commits and the protocol's hash are there, and JSON can hold them."""
    made = json.loads(json.dumps(manifest(protocol(), Workers().describe())))
    assert made["protocol_hash"] == protocol().digest
    assert made["hardware"]["cores"] == os.cpu_count()
    assert set(made["commits"]) == {"modal_ntk", "working_directory"}
