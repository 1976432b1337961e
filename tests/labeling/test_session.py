"""LabelingSession: ask, tell, skip, correct, undo, over a log that is only added to."""

import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from modal_ntk import NTKCPL, Entropy, LabelingSession, Margin
from modal_ntk.errors import InvalidInputError, UnmetNeedError
from modal_ntk.labeling import fingerprint

X, y = zoo.blobs(n=60)
ANSWERS = st.tuples(st.sampled_from("tsc"), st.integers(0, 5), st.sampled_from("ab"))
NAMES = [f"photo {i}.png" for i in range(60)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.sqlite"


def opened(path, **options):
    given = {"estimator": LogisticRegression(), "query_strategy": Margin(), **options}
    return LabelingSession(path, given.pop("X", X), **given)


def label(session, n, step=3):
    while len(session.labeled) < n:
        for row in session.ask(step):
            session.tell(row, int(y[row]))


class TestAsking:
    def test_picks_are_the_strategys(self, path):
        """What is asked is what the strategy picks from the open rows, with the estimator fitted to the labels."""
        session = opened(path)
        label(session, 9)
        session.skip(next(i for i in range(60) if i not in session.labeled))
        taken = set(session.labeled.tolist()) | set(session.skipped.tolist())
        free = np.array([i for i in range(60) if i not in taken])
        model = LogisticRegression().fit(X[session.labeled], session.labels)
        seeds = np.random.SeedSequence([0, 3]).generate_state(2)
        expected = free[Margin(random_state=int(seeds[0]) % 2**31)(model, X[free], 5)]
        np.testing.assert_array_equal(session.ask(5), expected)

    def test_open_questions_are_not_asked_again(self, path):
        """Every row is asked once, skipped ones too, until there are none."""
        session = opened(path)
        asked = []
        for _ in range(12):
            rows = session.ask(5)
            assert rows.dtype == np.int64
            asked += rows.tolist()
            session.skip(rows[0])
            session.tell(rows[1], int(y[rows[1]]))
        assert sorted(asked) == list(range(60))
        assert set(session.pending.tolist()) == set(asked) - set(session.labeled.tolist()) - set(
            session.skipped.tolist()
        )
        with pytest.raises(InvalidInputError, match="at least one sample"):
            session.ask()

    def test_more_than_there_are(self, path):
        """A batch is never shortened silently."""
        with pytest.raises(InvalidInputError, match="between 1 and the pool's 60"):
            opened(path).ask(61)

    def test_chance_asks_until_there_are_two_classes(self, path):
        """With one class no classifier can be fitted; who asked is in the log."""
        session = opened(path)
        session.ask(2)
        for row in np.flatnonzero(y == 0)[:2]:
            session.tell(row, 0)
        session.ask(2)
        session.tell(np.flatnonzero(y == 1)[0], 1)
        session.ask(2)
        by = [event.value["by"] for event in session.events if event.kind == "ask"]
        assert by == ["random", "random", "Margin()"]

    def test_a_cold_start_may_be_the_strategys(self, path, tmp_path):
        """initial="query" asks the strategy from nothing, and one that cannot start so says it."""
        net = zoo.net()
        session = LabelingSession(path, X, net, NTKCPL(variant="self"), initial="query")
        session.ask(4)
        assert session.events[0].value["by"].startswith("NTKCPL(")
        assert not hasattr(net, "module_")
        with pytest.raises(UnmetNeedError, match="start without labels"):
            LabelingSession(tmp_path / "b", X, net, Entropy(), initial="query").ask()

    def test_without_a_strategy_chance_asks(self, path):
        """Repeatably, and without an estimator."""
        first = LabelingSession(path, X).ask(6)
        again = LabelingSession(path.with_name("b"), X).ask(6)
        other = LabelingSession(path.with_name("c"), X, random_state=1).ask(6)
        np.testing.assert_array_equal(first, again)
        assert len(set(first.tolist())) == 6
        assert first.tolist() != other.tolist()

    def test_a_skorch_net_leaves_no_trace(self, path):
        """Global generators and the caller's net are as before."""
        net, strategy = zoo.net(), NTKCPL()
        session = LabelingSession(path, X, net, strategy)
        with zoo.generators_untouched():
            label(session, 6)
            session.ask(2)
        assert not hasattr(net, "module_")
        assert strategy.random_state is None

    def test_fit_is_repeatable(self, path):
        """Fitting twice, or from the file, gives the same net."""
        session = LabelingSession(path, X, zoo.net(), Margin())
        label(session, 6)
        again = LabelingSession(path, X, zoo.net(), Margin())
        probabilities = [s.fit().predict_proba(X) for s in (session, session, again)]
        np.testing.assert_array_equal(probabilities[0], probabilities[1])
        np.testing.assert_array_equal(probabilities[0], probabilities[2])
        with pytest.raises(InvalidInputError, match="an estimator and labels"):
            LabelingSession(path.with_name("b"), X).fit()


class TestAnswering:
    def test_labels_keep_their_order_and_kind(self, path):
        """Strings of NumPy and Python are the same; rows come in the order told."""
        session = LabelingSession(path, X)
        session.tell(5, np.str_("cat"))
        session.tell(2, "dog")
        assert session.labeled.tolist() == [5, 2]
        assert session.labels.tolist() == ["cat", "dog"]
        assert session.label_of(2) == "dog"
        assert session.label_of(3) is None

    def test_corrections_keep_the_place(self, path):
        """A corrected row stays where it was told first."""
        session = LabelingSession(path, X)
        for row, name in ((5, "cat"), (2, "dog")):
            session.tell(row, name)
        session.correct(5, "dog")
        assert session.labeled.tolist() == [5, 2]
        assert session.labels.tolist() == ["dog", "dog"]

    def test_a_skipped_row_may_be_labelled_after_all(self, path):
        """And taking that back skips it again."""
        session = LabelingSession(path, X)
        session.skip(4)
        session.tell(4, "cat")
        assert session.skipped.tolist() == []
        assert session.undo() == 4
        assert session.skipped.tolist() == [4]
        assert session.labeled.tolist() == []

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("tsc"), st.integers(0, 5), st.sampled_from("ab")), max_size=12),
        st.integers(0, 12),
    )
    def test_undo_brings_back_what_was(self, tmp_path_factory, actions, n_undone):
        """After k answers are undone the session is as it was k answers ago, whatever they were."""
        session = LabelingSession(tmp_path_factory.mktemp("undo") / "log", X)

        def snapshot():
            return session.labeled.tolist(), session.labels.tolist(), session.skipped.tolist(), session.pending.tolist()

        session.ask(3)
        seen = [snapshot()]
        for kind, row, name in actions:
            try:
                {"t": session.tell, "c": session.correct, "s": lambda row, _: session.skip(row)}[kind](row, name)
            except InvalidInputError:
                continue
            seen.append(snapshot())
        for back in range(min(n_undone, len(seen) - 1)):
            session.undo()
            assert snapshot() == seen[-2 - back]

    def test_undo_is_an_event_too(self, path):
        """Nothing is ever taken out of the log."""
        session = LabelingSession(path, X)
        session.tell(1, "a")
        session.undo()
        assert [(e.kind, e.row, e.value) for e in session.events] == [("label", 1, "a"), ("undo", 1, 1)]
        with pytest.raises(InvalidInputError, match="an answer to take back"):
            session.undo()

    @pytest.mark.parametrize(
        ("act", "message"),
        [
            (lambda s: s.tell(0, "a"), r"row 0 to have no label, got 'a' already\. Use correct"),
            (lambda s: s.correct(1, "a"), r"row 1 to have a label, got none\. Use tell"),
            (lambda s: s.skip(0), "row 0 to be open, got 'a'"),
            (lambda s: s.skip(2), "row 2 to be open, got skipped"),
            (lambda s: s.tell(60, "a"), "a row below 60, got 60"),
            (lambda s: s.tell(-1, "a"), "row to be an integer of at least 0"),
            (lambda s: s.tell(1, 3), "a label that is text like the others, got 3, beside 'a'"),
            (lambda s: s.tell(1, None), "a label that is text, a number"),
            (lambda s: s.tell(1, float("nan")), "a label that is text, a number"),
            (lambda s: s.tell(1, ["a"]), "a label that is text, a number"),
            (lambda s: s.tell(1, "a\0"), "a label of characters that can be written"),
            (lambda s: s.tell(1, "\ud800"), "a label of characters that can be written"),
        ],
    )
    def test_answers_that_make_no_sense_change_nothing(self, path, act, message):
        """Each is an error that says what to do, and no event."""
        session = LabelingSession(path, X)
        session.tell(0, "a")
        session.skip(2)
        with pytest.raises(InvalidInputError, match=message):
            act(session)
        assert len(session.events) == 2

    def test_classes_are_kept(self, path):
        """A label must be one of them, by value and kind; too few are none."""
        session = LabelingSession(path, X, classes=[0, 1])
        for wrong in (2, "0", True):
            with pytest.raises(InvalidInputError, match="one of 0, 1"):
                session.tell(0, wrong)
        session.tell(0, np.int64(1))
        for classes in ([1], [1, 1], [1, "1"]):
            with pytest.raises(InvalidInputError, match="two distinct classes"):
                LabelingSession(path, X, classes=classes)


class TestTheFile:
    def test_another_process_goes_on(self, path, tmp_path):
        """Copied elsewhere, with the pool in another float type, the session asks what it would have asked."""
        session = opened(path)
        label(session, 9)
        session.ask(2)
        shutil.copy(path, tmp_path / "elsewhere.sqlite")
        moved = opened(tmp_path / "elsewhere.sqlite", X=X.astype(np.float64))
        assert moved.pending.tolist() == session.pending.tolist()
        np.testing.assert_array_equal(moved.labels, session.labels)
        np.testing.assert_array_equal(moved.ask(3), session.ask(3))
        assert {p.name for p in tmp_path.iterdir()} == {"labels.sqlite", "elsewhere.sqlite"}

    def test_two_sessions_see_each_other(self, path):
        """What one is told the other knows, and neither asks the other's open questions."""
        one, two = opened(path), opened(path)
        rows = one.ask(4)
        one.tell(rows[0], int(y[rows[0]]))
        assert two.label_of(rows[0]) == y[rows[0]]
        assert not set(two.ask(4).tolist()) & set(rows.tolist())
        with pytest.raises(InvalidInputError, match="already"):
            two.tell(rows[0], 0)

    def test_many_at_once_neither_lose_nor_double(self, path):
        """Four sessions asking and telling at the same time share out the pool."""

        def annotate(_):
            session = LabelingSession(path, X)
            for _ in range(5):
                for row in session.ask(3):
                    session.tell(row, int(y[row]))

        LabelingSession(path, X)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(annotate, range(4)))
        session = LabelingSession(path, X)
        assert sorted(session.labeled.tolist()) == list(range(60))
        np.testing.assert_array_equal(session.labels, y[session.labeled])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"X": X[::-1]}, "pool is"),
            ({"X": X[:50]}, "n_rows is 60 there and 50 here"),
            ({"random_state": 1}, "random_state is 0 there and 1 here"),
            ({"classes": [0, 1]}, "classes is null there"),
            ({"names": NAMES}, "pool is"),
        ],
    )
    def test_another_pool_is_refused(self, path, options, message):
        """Rows would mean other samples: the difference is shown, and nothing changed."""
        opened(path).tell(0, 1)
        before = path.read_bytes()
        with pytest.raises(InvalidInputError, match=f"holds another session: .*{message}"):
            opened(path, **options)
        assert path.read_bytes() == before

    def test_events_cannot_be_changed(self, path):
        """Whoever opens the file can add only."""
        opened(path).tell(0, 1)
        connection = sqlite3.connect(path)
        for statement in ("UPDATE events SET value = '2'", "DELETE FROM events"):
            with pytest.raises(sqlite3.DatabaseError, match="events are not"):
                connection.execute(statement)
        connection.close()

    def test_foreign_files_are_left_alone(self, path):
        """Text and other databases are an error about the file, not a traceback, and stay as they are."""
        path.write_text("not a database, but long enough to be looked at" * 20)
        with pytest.raises(InvalidInputError, match="to be the log of a labelling session"):
            opened(path)
        other = path.with_name("other.sqlite")
        connection = sqlite3.connect(other)
        connection.execute("CREATE TABLE diary (secret TEXT)")
        connection.close()
        before = other.read_bytes()
        with pytest.raises(InvalidInputError, match="a database with other tables"):
            opened(other)
        assert other.read_bytes() == before
        with pytest.raises(InvalidInputError, match="in a folder that is there"):
            opened(path.with_name("none") / "log")

    @pytest.mark.parametrize(
        ("kind", "row", "value"),
        [
            ("label", 99, '"a"'),
            ("label", "many", '"a"'),
            ("label", 1, "__import__('os').abort()"),
            ("label", 1, "[" * 100_000),
            ("ask", None, '{"rows": 7}'),
            ("ask", None, '{"rows": ["a"]}'),
            ("undo", 1, "7"),
            ("burn", 1, "1"),
        ],
    )
    def test_damaged_logs_are_named(self, path, kind, row, value):
        """Events that cannot have happened are an error about the file, and nothing in them is run."""
        session = LabelingSession(path, X)
        connection = sqlite3.connect(path)
        connection.execute("INSERT INTO events (time, kind, row, value) VALUES ('', ?, ?, ?)", (kind, row, value))
        connection.commit()
        connection.close()
        with pytest.raises(InvalidInputError, match=r"damaged|to be the log of a labelling session"):
            _ = session.labeled

    def test_nasty_labels_are_bound(self, path):
        """Whatever a class is called, it comes back as it was."""
        names = ["'; DROP TABLE events; --", "ünïcödé", 'a"b', "\x1b[2J", "%s {0}", "\ud7ff\U0001f600"]
        session = LabelingSession(path, X)
        for row, name in enumerate(names):
            session.tell(row, name)
        assert LabelingSession(path, X).labels.tolist() == names

    def test_options_are_checked_first(self, path):
        """An unusable option makes no file."""
        for options, message in (
            ({"estimator": None}, "an estimator for query_strategy"),
            ({"initial": "all"}, "initial to be one of"),
            ({"random_state": None}, "random_state to be an integer"),
            ({"names": ["a"] * 60}, "60 distinct names"),
            ({"X": X * np.nan}, "finite values in X_pool"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                opened(path, **options)
        assert not path.exists()

    def test_it_shows_how_far_it_is(self, path):
        """repr counts."""
        session = opened(path)
        rows = session.ask(3)
        session.tell(rows[0], 0)
        session.skip(rows[1])
        assert repr(session).endswith("labels.sqlite': 1 labelled, 1 skipped, 1 pending of 60)")


class TestPools:
    def test_fingerprints_follow_values_and_order(self):
        """Containers and float types of the same values agree; one changed value, or names, do not."""
        import pandas as pd
        import scipy.sparse as sp

        same = [X, X.astype(np.float64), torch.tensor(X), X.tolist(), sp.csr_matrix(X), pd.DataFrame(X)]
        assert len({fingerprint(pool) for pool in same}) == 1
        changed = X.copy()
        changed[-1, -1] += 1e-3
        others = [changed, X[::-1], X[:-1], {"x": X}]
        assert len({fingerprint(X), *(fingerprint(pool) for pool in others), fingerprint(X, NAMES)}) == 6

    def test_memory_maps_and_dicts_are_pools(self, path, tmp_path):
        """A pool on disk, and one of several inputs."""
        np.save(tmp_path / "pool.npy", X)
        mapped = np.load(tmp_path / "pool.npy", mmap_mode="r", allow_pickle=False)
        assert LabelingSession(path, mapped).ask(3).tolist() == LabelingSession(path, X).pending.tolist()
        assert LabelingSession(tmp_path / "d", {"a": X, "b": X}).ask(3).shape == (3,)


def test_the_benchmark_is_not_needed():
    """Labelling for real imports nothing of modal_ntk.bench."""
    code = "import sys; from modal_ntk import LabelingSession; "
    code += "assert not [m for m in sys.modules if m.startswith('modal_ntk.bench')]"
    subprocess.run([sys.executable, "-c", code], check=True)
