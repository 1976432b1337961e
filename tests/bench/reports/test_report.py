"""The page of a comparison: what it says, that it needs nothing else, and that names in it are only names."""

import csv
import dataclasses
import signal
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from modal_ntk import writing
from modal_ntk.bench import Dataset, Protocol, load_dataset, report, run_protocol
from modal_ntk.bench.analysis.significance import average_ranks
from modal_ntk.bench.loop.simulation import Round
from modal_ntk.bench.reports import figures, page
from modal_ntk.bench.reports.queried import count_classes, evenness, first_images
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError
from modal_ntk.writing import write_csv

NASTY = ['<script>alert(1)</script>"', "a' onload='x", "$x$ & <b>", '"><img src=http://x.test/y>', "=1+1"]
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Collects tags, attributes and cells, and checks that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows, self.text = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def data_set(images=False):
    rng = np.random.default_rng(0)
    shape = (60, 1, 6, 6) if images else (60, 4)
    x, y = rng.random(shape, np.float32), np.repeat([0, 1, 2], 20)
    return Dataset("made up", x, y, x[:9], y[:9], np.array([0, 10, 20]))


def stored(folder, names=("random_sampling", "margin"), data=None, n_seeds=3, n_rounds=3):
    data = data_set() if data is None else data
    store = Store(folder)
    store.agree({"dataset": data.name, "fingerprint": data.fingerprint, "n_initial": 6})
    for k, name in enumerate(names):
        for seed in range(n_seeds):
            rng = np.random.default_rng((seed, k))
            order = rng.permutation(60)
            scores = [0.5 + 0.01 * seed, *(0.6 + 0.05 * i + 0.1 * k + 0.01 * rng.random() for i in range(1, n_rounds))]
            rounds = [Round(6 * (i + 1), s, 0.5 * i, 1.0, order[6 * i : 6 * i + 6]) for i, s in enumerate(scores)]
            store.add(name, seed, rounds)
    return store


@pytest.mark.parametrize("place", [0, 1, 2])
def test_names_of_ranks_lie_within_the_picture(place):
    """However long a strategy's name is, and whatever its rank."""
    pytest.importorskip("matplotlib")
    names = ["margin", "entropy", "random_sampling"]
    names[place] = "ntkcpl:max_clusters=100,variant=self,feature_scaling=center_l2"
    drawing = figures.draw_ranks(average_ranks(names, np.array([[3.0, 2.0, 1.0]] * 3)))
    drawing.canvas.draw()
    for text in drawing.axes[0].texts:
        found = text.get_window_extent()
        assert found.x0 >= 0
        assert found.x1 <= drawing.bbox.x1


class TestPage:
    def test_it_is_well_formed_and_loads_nothing(self, tmp_path):
        """Tags close, pictures are inside, the policy forbids loading, and phones get their own width."""
        stored(tmp_path, data=data_set(images=True))
        text = report(tmp_path, dataset=data_set(images=True)).page.read_text()
        found = Page(text)
        links = [value for tag, name, value in found.attributes if name in ("src", "href", "action", "data")]
        assert links
        assert all(link.startswith("data:image/png;base64,") for link in links)
        assert not {"script", "link", "iframe", "object", "form", "a"} & set(found.tags)
        assert "url(" not in text
        assert "@import" not in text
        assert any("default-src 'none'" in value for _, name, value in found.attributes if name == "content")
        assert ("meta", "content", "width=device-width, initial-scale=1") in found.attributes
        assert all(any(n == "alt" and v for t, n, v in found.attributes if t == "img") for _ in links)

    @pytest.mark.parametrize("name", NASTY)
    def test_names_are_text(self, tmp_path, name):
        """Strategy, data set and classes are shown as they are called, and add no tag or attribute."""
        labels = np.array([name, "b", "c"])
        plain = dataclasses.replace(data_set(), name="plain", classes=np.array(["x", "b", "c"]))
        nasty = dataclasses.replace(data_set(), name=name, classes=labels)
        found = []
        for folder, data, strategy in (("a", plain, "margin"), ("b", nasty, name)):
            stored(tmp_path / folder, ("random_sampling", strategy), data)
            found.append(Page(report(tmp_path / folder, dataset=data).page.read_text()))
        assert [t for t in sorted(found[0].tags) if t != "wbr"] == [t for t in sorted(found[1].tags) if t != "wbr"]
        assert {(t, n) for t, n, _ in found[0].attributes} == {(t, n) for t, n, _ in found[1].attributes}
        assert sum(name in row for row in found[1].rows) >= 4

    @given(st.text(max_size=40))
    def test_any_text_survives(self, text):
        """Whatever a paragraph or cell says comes back from a parser as it was."""
        text = text.replace("\x00", "").replace("\r", "")
        found = Page(page.page("t", [page.table(["a", "b"], [[text, text]], "c")]))
        assert found.rows[1] == [text, text]

    def test_figures_are_in_the_tables(self, tmp_path):
        """A row of the page's summary has mean and deviation as the printed table has them."""
        stored(tmp_path)
        found = report(tmp_path)
        last = found.table.splitlines()[-2].split()
        rows = Page(found.page.read_text()).rows
        summary = next(row for row in rows if row[0] == "margin" and len(row) == 7)
        assert summary[3] == " ".join(last[1:4])
        assert summary[1] == "3"

    def test_wins_are_in_the_row_of_the_winner(self, tmp_path):
        """Margin, better by ten deviations at both budgets, has 1.00 in its row and 0.00 in its column."""
        stored(tmp_path, n_seeds=6)
        rows = Page(report(tmp_path).page.read_text()).rows
        wins = {row[0]: row[1:] for row in rows if row[0][:2] in ("1.", "2.")}
        assert wins == {"1. margin": ["-", "1.00"], "2. random_sampling": ["0.00", "-"]}
        with (tmp_path / "penalties.csv").open() as file:
            assert list(csv.reader(file))[1:] == [["margin", "0.0", "1.0"], ["random_sampling", "0.0", "0.0"]]

    def test_doubts_are_said_on_top_and_printed(self, tmp_path, capsys):
        """Three seeds are few: the page, the result and the command line say so."""
        stored(tmp_path)
        found = report(tmp_path)
        assert found.doubts[0].startswith("3 seeds are few")
        assert found.doubts[0] in Page(found.page.read_text()).text
        assert main(["report", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert f"note: {found.doubts[0]}" in printed
        assert printed.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"

    def test_one_strategy_with_one_seed_is_reported_too(self, tmp_path):
        """There is nothing to test or rank, which is said, and no baseline to gain over."""
        stored(tmp_path, ("margin",), n_seeds=1)
        text = report(tmp_path).page.read_text()
        assert "Nothing could be tested" in text
        assert "nothing to rank" in text
        assert not (tmp_path / "gain.png").exists()

    def test_ragged_stores_are_reported(self, tmp_path):
        """Strategies without budgets in common keep their own columns."""
        store = stored(tmp_path)
        for seed in (0, 1):
            store.add("late", seed, [Round(999, 0.5, 0.0, 0.0, np.arange(3))])
        found = report(tmp_path)
        assert "999" in found.table
        assert any("in common" in doubt for doubt in found.doubts)

    def test_baseline_and_target_are_the_callers(self, tmp_path):
        """Gains are over the strategy named; an unknown one is an error."""
        stored(tmp_path)
        text = report(tmp_path, baseline="margin", target=0.55).page.read_text()
        assert "less that of margin" in text
        assert "labels to 0.5500" in text
        with pytest.raises(InvalidInputError, match="baseline to be one of"):
            report(tmp_path, baseline="entropy")


class TestQueried:
    def test_class_counts_by_hand(self, tmp_path):
        """Counts add up round by round and are means over the seeds."""
        data = data_set()
        store = Store(tmp_path)
        for seed, rows in enumerate([([0, 1, 20], [40, 2]), ([0, 21, 41], [42, 43])]):
            rounds = [Round(3, 0.5, 0, 0, np.array(rows[0])), Round(5, 0.5, 0, 0, np.array(rows[1]))]
            store.add("a", seed, rounds)
        found = count_classes(store.rows(), data)["a"]
        np.testing.assert_array_equal(found.counts, [[1.5, 1, 0.5], [2, 1, 2]])
        by_seed = [evenness(np.array(c)) for c in ([3, 1, 1], [1, 1, 3])]
        assert found.evenness[1] == pytest.approx(np.mean(by_seed))

    def test_evenness_is_entropy(self):
        """One for equal classes, zero for one class or none, half for two of four."""
        assert evenness(np.array([7, 7, 7])) == pytest.approx(1)
        assert evenness(np.array([9, 0, 0])) == 0
        assert evenness(np.array([0, 0, 0])) == 0
        assert evenness(np.array([1, 1, 0, 0])) == pytest.approx(0.5)

    def test_another_data_set_is_refused(self, tmp_path):
        """Classes of other data would be nonsense: a fingerprint that differs is an error."""
        stored(tmp_path)
        with pytest.raises(InvalidInputError, match="fingerprint"):
            report(tmp_path, dataset=load_dataset("digits"))

    def test_data_that_are_not_at_hand_are_not_needed(self, tmp_path):
        """The rest of the page is there, and says what is left out; a path in a store is not opened."""
        stored(tmp_path / "a")
        assert "not at hand" in report(tmp_path / "a").page.read_text()
        np.savez(tmp_path / "x.npz", x_train=data_set().x_train)
        stored(tmp_path / "b", data=dataclasses.replace(data_set(), name=str(tmp_path / "x.npz")))
        assert "the store names a file. Pass it" in report(tmp_path / "b").page.read_text()

    def test_what_is_named_in_place_of_missing_data_shows_them(self, tmp_path, monkeypatch):
        """The option that the page of an own file's comparison names makes the page whole."""
        data = data_set()
        monkeypatch.chdir(tmp_path)
        parts = {key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")}
        np.savez(tmp_path / "mine.npz", **parts)
        stored(tmp_path / "out", data=load_dataset("mine.npz"))
        assert main(["report", "out"]) == 0
        told = " ".join(Page(Path("out/report.html").read_text()).text)
        assert "none is called mine here. Pass it: `modal-ntk report DIR --dataset FILE.npz`" in told
        assert main(["report", "out", "--dataset", "mine.npz"]) == 0
        assert "not at hand" not in Path("out/report.html").read_text()

    def test_a_report_leaves_nothing_of_an_earlier_one(self, tmp_path):
        """Without the data their pictures and tables go, without a baseline the gain; files of others stay."""
        stored(tmp_path, data=data_set(images=True))
        (tmp_path / "images_of_mine.png").write_bytes(b"")
        before = {path.name for path in report(tmp_path, dataset=data_set(images=True)).files}
        assert {"balance.png", "classes.csv", "images_1.png", "images_2.png", "gain.png", "ranks.png"} <= before
        after = {path.name for path in report(tmp_path).files}
        assert before - after == {"balance.png", "classes.csv", "images_1.png", "images_2.png"}
        assert {path.name for path in tmp_path.iterdir()} == {*after, "results.sqlite", "images_of_mine.png"}

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    def test_sigterm_leaves_nothing_half_written(self, tmp_path, monkeypatch, capsys):
        """The command ends with 143 and says how to go on; the file that was being written is not there."""
        stored(tmp_path)
        monkeypatch.setattr(writing.csv, "writer", lambda _: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            main(["report", str(tmp_path)])
        assert ended.value.code == 143
        assert "the same command goes on" in capsys.readouterr().err
        assert not [path for path in tmp_path.iterdir() if path.is_dir() or path.suffix == ".csv"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_data_are_split_as_the_protocol_says(self, tmp_path):
        """A comparison on part of a data set shows the classes of that part, whoever names the whole."""
        protocol = Protocol(
            dataset="digits", strategies=["random_sampling"], seeds=1, n_initial=10, n_rounds=0, pool_size=100
        )
        store = run_protocol(protocol, out=tmp_path, estimator=LogisticRegression())
        rows = list(store.rows()[0].indices)
        drawn = protocol.carved(load_dataset("digits"))
        for dataset in (None, "digits", drawn):
            report(tmp_path, dataset=dataset)
            with (tmp_path / "classes.csv").open() as file:
                counts = [float(line["mean_count"]) for line in csv.DictReader(file)]
            assert counts == np.bincount(drawn.y_train[rows], minlength=10).tolist()

    def test_the_manifest_is_shown(self, tmp_path):
        """Versions and hardware of the last call are on the page, and what is empty is called none."""
        store = stored(tmp_path)
        how = {"devices": []}
        store.begin({"versions": {"torch": "9.8.7"}, "hardware": ["two <cores>"], "protocol": {"x": 1}, "how": how})
        text = "".join(Page(report(tmp_path).page.read_text()).text)
        assert "torch 9.8.7" in text
        assert "two <cores>" in text
        assert "devices none" in text

    def test_images_are_shown_from_the_first_rounds(self, tmp_path):
        """Images come from the lowest seed in the order queried; vectors have none."""
        data = data_set(images=True)
        rows = stored(tmp_path, data=data).rows()
        shown = first_images(rows, data, n_rounds=2, n_images=4)
        assert [row.indices for row in shown["margin"]] == [row.indices[:4] for row in rows[:2]]
        assert first_images(rows, data_set()) == {}
        written = {path.name for path in report(tmp_path, dataset=data).files}
        assert {"images_1.png", "images_2.png", "balance.png", "classes.csv"} <= written

    def test_rows_outside_the_pool_are_an_error(self, tmp_path):
        """A store that names samples the data do not have is not shown as if it did."""
        stored(tmp_path).add("bad", 0, [Round(1, 0.5, 0, 0, np.array([60]))])
        with pytest.raises(InvalidInputError, match="queried by bad"):
            report(tmp_path, dataset=data_set())


class TestTables:
    def test_cells_do_not_become_formulas(self, tmp_path):
        """A name that begins like a formula is quoted; numbers, also negative ones, are as they are; NaN is empty."""
        write_csv(tmp_path / "t.csv", ["a", "b", "c"], [["=1+1", -0.5, float("nan")], ["@x", "-", 3]])
        with (tmp_path / "t.csv").open() as file:
            assert list(csv.reader(file)) == [["a", "b", "c"], ["'=1+1", "-0.5", ""], ["'@x", "'-", "3"]]

    def test_every_round_is_exported(self, tmp_path):
        """rounds.csv has a line for each row of the store."""
        rows = stored(tmp_path).rows()
        report(tmp_path)
        with (tmp_path / "rounds.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [(r.strategy, r.seed, r.n_labels, r.score) for r in rows] == [
            (line["strategy"], int(line["seed"]), int(line["n_labels"]), float(line["score"])) for line in lines
        ]
