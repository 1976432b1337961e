"""Progress of a comparison: counts, time left, and the three ways to show it."""

import io
import time

import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression

from modal_ntk.bench import Dataset, run
from modal_ntk.bench.running.progress import Progress, Tally, mode_of
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import InvalidInputError

X, y = zoo.blobs(n=60)
DATA = Dataset("made up", X[:40], y[:40], X[40:], y[40:], np.arange(3))


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestTally:
    def test_time_left_is_at_the_pace_so_far(self):
        """12 rounds of 3 runs in 30 s, 5 of them in 10 s: 14 are left for 25 rounds' work at two a second."""
        tally = Tally(3, 4, started=100.0)
        tally.look(100.0, {})
        tally.finished = 1
        tally.look(110.0, {("a", 1): 1})
        assert (tally.done, tally.total) == (5, 12)
        assert tally.left(110.0) == pytest.approx(7 * 10 / 5)

    def test_rounds_of_an_earlier_call_do_not_count_for_the_pace(self):
        """Three rounds were there at the start: two new ones in ten seconds, and seven left, take 35."""
        tally = Tally(3, 4, started=0.0)
        tally.look(0.0, {("a", 0): 3})
        assert tally.left(5.0) is None
        tally.finished = 1
        tally.look(10.0, {("b", 0): 1})
        assert tally.left(10.0) == pytest.approx(7 * 10 / 2)

    def test_each_run_has_its_own_pace(self):
        """From two rounds at 10 s to four at 20 s, of six: ten seconds more."""
        tally = Tally(2, 6, started=0.0)
        tally.look(10.0, {("a", 0): 2})
        assert tally.left_of(("a", 0), 15.0) is None
        tally.look(20.0, {("a", 0): 4, ("b", 3): 1})
        assert tally.left_of(("a", 0), 20.0) == pytest.approx(10)
        assert tally.runs(20.0) == "a 0: 4/6, 00:10 left; b 3: 1/6"

    def test_names_are_one_line(self):
        """A name from elsewhere sends no control character to the terminal."""
        tally = Tally(1, 2, started=0.0)
        tally.look(0.0, {("\x1b[2Ja\nb", 0): 1})
        assert tally.runs(0.0).isprintable()


class TestModes:
    def test_true_is_a_bar_on_a_terminal_only(self):
        """A log gets lines; False is quiet; names are taken at their word; others are refused."""
        assert [mode_of(p, Terminal()) for p in (True, False, "plain")] == ["bar", "quiet", "plain"]
        assert [mode_of(p, io.StringIO()) for p in (True, False, "bar")] == ["plain", "quiet", "bar"]
        with pytest.raises(InvalidInputError, match="progress to be one of"):
            mode_of("loud", io.StringIO())

    def test_lines_come_for_each_run_and_from_time_to_time(self):
        """Counts, time left, and what is under way; no carriage return, which a log would show."""
        out = io.StringIO()
        rounds = {("a", 0): 1}
        settings = {"mode": "plain", "stream": out, "interval": 0.01, "every": 0.05}
        with Progress("digits", 2, 4, lambda: dict(rounds), **settings) as shown:
            time.sleep(0.2)
            rounds.clear()
            shown.done("a", 0)
            shown.done("a", 1)
        lines = out.getvalue().splitlines()
        assert lines[0] == "digits: 0/2 runs, 1/8 rounds; a 0: 1/4"
        assert lines[-2].startswith("digits: 1/2 runs, 4/8 rounds, ")
        assert lines[-2].endswith("left; a 0 done")
        assert lines[-1] == "digits: 2/2 runs, 8/8 rounds, 00:00 left; a 1 done"
        assert "\r" not in out.getvalue()

    def test_the_bar_counts_rounds(self):
        """It ends at all of them."""
        out = Terminal()
        with Progress("digits", 1, 3, dict, mode="bar", stream=out, interval=0.01) as shown:
            shown.done("a", 0)
        assert "3/3" in out.getvalue()

    def test_quiet_is_quiet(self):
        """Nothing is written, and the store is not looked at."""
        out = io.StringIO()

        def never():
            raise AssertionError("looked")

        with Progress("digits", 1, 3, never, mode="quiet", stream=out, interval=0.01) as shown:
            shown.done("a", 0)
        assert out.getvalue() == ""

    def test_the_watcher_ends_with_an_error(self):
        """An interrupted run leaves no thread behind."""
        with pytest.raises(KeyboardInterrupt), Progress("d", 1, 3, dict, mode="plain", stream=io.StringIO()) as shown:
            raise KeyboardInterrupt
        assert not shown._watcher.is_alive()


class TestRuns:
    @pytest.mark.parametrize("mode", ["bar", "plain", "quiet"])
    def test_a_comparison_shows_how_far_it_is(self, tmp_path, capsys, mode):
        """Each mode ends with all of it done, on stderr alone; the rows are the same."""
        settings = {"seeds": 2, "n_initial": 6, "batch_size": 4, "n_rounds": 2, "estimator": LogisticRegression()}
        store = run(DATA, ["margin"], out=tmp_path, progress=mode, **settings)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert ("6/6" in printed.err) is (mode != "quiet")
        assert len(store.rows()) == 6
        assert store.under_way() == {}

    def test_unfinished_rounds_are_counted_by_run(self, tmp_path):
        """The store tells how far each run is."""
        from modal_ntk.bench.loop.simulation import Round

        store = Store(tmp_path)
        for number in range(3):
            store.note("a", 4, number, Round(5, 0.5, 0.0, 0.0, np.arange(5)))
        store.note("b", 0, 0, Round(5, 0.5, 0.0, 0.0, np.arange(5)))
        assert store.under_way() == {("a", 4): 3, ("b", 0): 1}
