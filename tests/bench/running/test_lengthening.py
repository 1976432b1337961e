"""A store to which rounds are added, and whose run is broken off: nothing is run twice or called changed."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import zoo
from elsewhere import Fragile
from sklearn.linear_model import LogisticRegression

from modal_ntk.bench import Dataset, Protocol, run_protocol, verify
from modal_ntk.bench.storage.store import FILE_NAME, Store
from modal_ntk.errors import IncompleteRunError

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))
GIVEN = {"dataset": DATA, "estimator": LogisticRegression()}


def run(out, estimator=None, n_rounds=1, strategies=("margin",), seeds=1):
    protocol = Protocol("blobs", strategies=strategies, seeds=seeds, n_initial=6, batch_size=4, n_rounds=n_rounds)
    return run_protocol(
        protocol, out=out, dataset=DATA, estimator=LogisticRegression() if estimator is None else estimator
    )


def results(store):
    return [row.result for row in store.rows()]


@pytest.fixture
def fits(tmp_path):
    """A folder in which fits are counted."""
    (tmp_path / "fits").mkdir()
    return tmp_path / "fits"


def test_rounds_noted_while_a_store_is_lengthened_are_not_run_again(tmp_path, fits):
    """Three rounds stored, two noted, then a crash: what is left is run after the last fit, and is a calm run's."""
    run(tmp_path / "out", Fragile(str(fits)), n_rounds=2)
    with pytest.raises(IncompleteRunError, match="fit 7 went wrong"):
        run(tmp_path / "out", Fragile(str(fits), raises=(7,)), n_rounds=6)  # 3 fits, 1 again, 2 new
    store = Store(tmp_path / "out")
    assert len(store.noted("margin", 0, 3)) == 2
    assert store.under_way() == {("margin", 0): 5}
    assert store.finished() == {("margin", 0)}
    before = len(list(fits.glob("fit-*")))
    longer = run(tmp_path / "out", Fragile(str(fits)), n_rounds=6)
    assert len(list(fits.glob("fit-*"))) - before == 2 + 1
    assert results(longer) == results(run(tmp_path / "calm", n_rounds=6))
    assert longer.under_way() == {}


def test_a_cell_of_ddal_starts_anew(tmp_path, fits):
    """A graph made anew of the rows left would differ in the last digits: DDAL's rows are a calm run's to the bit."""
    strategies = ["ddal:n_neighbors=5"]
    with pytest.raises(IncompleteRunError, match="fit 4 went wrong"):
        run(tmp_path / "out", Fragile(str(fits), raises=(4,)), n_rounds=4, strategies=strategies)
    resumed = run(tmp_path / "out", Fragile(str(fits)), n_rounds=4, strategies=strategies)
    assert results(resumed) == results(run(tmp_path / "calm", n_rounds=4, strategies=strategies))


class TestVerify:
    @pytest.fixture
    def half_lengthened(self, tmp_path, fits):
        """A store of three seeds, of which one alone has the rounds that were added."""
        run(tmp_path / "out", Fragile(str(fits)), n_rounds=1, seeds=3)
        with pytest.raises(IncompleteRunError, match="2 runs could not be run"):
            run(tmp_path / "out", Fragile(str(fits), raises=(10, 13)), n_rounds=3, seeds=3)
        assert {(row.seed, row.round) for row in Store(tmp_path / "out").rows()} >= {(0, 3), (1, 1), (2, 1)}
        return tmp_path / "out"

    def test_cells_of_either_length_are_reproduced(self, half_lengthened):
        """A cell to which the rounds did not come is compared over those that it has."""
        estimator = Fragile(str(half_lengthened.parent / "fits"))
        found = verify(half_lengthened, cells=3, dataset=DATA, estimator=estimator)
        assert (len(found.cells), found.differences) == (3, [])

    def test_what_no_run_asked_for_is_a_difference(self, half_lengthened):
        """Two rounds or four were asked for: a cell of three has lost one; a changed score is seen in short ones."""
        connection = sqlite3.connect(half_lengthened / FILE_NAME)
        connection.execute("DELETE FROM rounds WHERE seed = 0 AND round = 3")
        connection.execute("UPDATE rounds SET score = score + 0.1 WHERE seed = 1 AND round = 1")
        connection.commit()
        connection.close()
        estimator = Fragile(str(half_lengthened.parent / "fits"))
        lost, changed = verify(half_lengthened, cells=3, dataset=DATA, estimator=estimator).differences
        assert lost == "margin, seed 0: 3 rounds stored, 4 run"
        assert changed.startswith("margin, seed 1: round 1: score")

    def test_a_run_that_ended_before_its_manifest(self, tmp_path):
        """The schedule was lengthened and nothing else written: the cells are those of the run before."""
        run(tmp_path)
        store = Store(tmp_path)
        store.agree({**store.protocol(), "batch_sizes": [4, 4, 4]})
        assert verify(tmp_path, **GIVEN).differences == []
        assert store.protocol()["batch_sizes"] == [4, 4, 4]

    def test_nothing_is_written(self, tmp_path):
        """No byte of the folder changes, and no file is left beside."""
        run(tmp_path)
        before = contents(tmp_path)
        verify(tmp_path, **GIVEN)
        assert contents(tmp_path) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
