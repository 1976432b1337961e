"""Data sets, resumable runs, tables and the command line."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import apart
import numpy as np
import pytest
import zoo
from sklearn.linear_model import LogisticRegression, SGDClassifier

from modal_ntk import NTKCPL
from modal_ntk.bench import default_estimator, load_dataset, report, run
from modal_ntk.bench.experiment.naming import parse_strategy
from modal_ntk.bench.storage.store import Store
from modal_ntk.cli import main
from modal_ntk.errors import InvalidInputError, UnknownNameError

X, y = zoo.blobs(n=90)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "blobs.npz"
    np.savez_compressed(path, x_train=X[:60], y_train=y[:60] * 10, x_test=X[60:], y_test=y[60:] * 10)
    return path


def small_run(npz, out, strategies=("margin", "random_sampling"), **options):
    settings = {
        "seeds": 2,
        "n_initial": 6,
        "batch_size": 4,
        "n_rounds": 2,
        "estimator": LogisticRegression(),
        **options,
    }
    return run(npz, strategies, out=out, **settings)


class TestDatasets:
    def test_digits_are_split_once_and_for_all(self):
        """The embedded data set is the same every time, stratified, in [0, 1]."""
        one, two = load_dataset("digits"), load_dataset("digits")
        assert one.fingerprint == two.fingerprint
        assert one.x_train.shape == (1257, 64)
        assert one.x_train.dtype == np.float32
        assert one.x_train.max() == 1
        assert np.bincount(one.y_test).min() > 50

    def test_tables_are_standardised_by_their_pool(self):
        """Columns of the pool have mean zero and deviation one; the test set is shifted by the same amounts."""
        data = load_dataset("wine")
        np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(data.x_train.std(axis=0), 1, rtol=1e-5)
        assert 0 < np.abs(data.x_test.mean(axis=0)).max() < 0.5
        assert len(load_dataset("breast_cancer").classes) == 2

    def test_labels_become_positions(self, npz):
        """Labels with gaps are numbered by class; their values are kept."""
        data = load_dataset(npz)
        assert data.classes.tolist() == [0, 10, 20]
        np.testing.assert_array_equal(data.y_test, y[60:])

    def test_images_get_channels_first(self, tmp_path):
        """Bytes are scaled to [0, 1]; (n, h, w) and (n, h, w, c) become (n, c, h, w)."""
        pixels = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)
        labels = np.array([0, 1, 0, 1])
        for name, x in (("colour", pixels), ("grey", pixels[..., 0])):
            np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
        colour, grey = (load_dataset(tmp_path / f"{n}.npz").x_train for n in ("colour", "grey"))
        np.testing.assert_allclose(colour, pixels.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
        np.testing.assert_allclose(grey, colour[:, :1])

    def test_named_files_of_the_data_folder(self, npz, monkeypatch):
        """Every .npz of MODAL_NTK_DATA is known by its stem."""
        monkeypatch.setenv("MODAL_NTK_DATA", str(npz.parent))
        assert load_dataset("blobs").name == "blobs"
        with pytest.raises(UnknownNameError, match=r"Unknown data set 'blob'. Did you mean 'blobs'"):
            load_dataset("blob")
        monkeypatch.delenv("MODAL_NTK_DATA")
        with pytest.raises(UnknownNameError, match="MODAL_NTK_DATA may name a folder"):
            load_dataset("blobs")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x_train": X, "y_train": y}, "without x_test, y_test"),
            ({"x_train": X, "y_train": y[:5], "x_test": X, "y_test": y}, "90 labels"),
            ({"x_train": X, "y_train": y * 0, "x_test": X, "y_test": y * 0}, r"at least two classes .* only \[0\]"),
            ({"x_train": X, "y_train": y, "x_test": X[:, :2], "y_test": y}, r"shape \(6,\)"),
            ({"x_train": X, "y_train": y, "x_test": X, "y_test": y + 9}, r"classes of y_test .* also \[9, 10, 11\]"),
            ({"x_train": X * np.nan, "y_train": y, "x_test": X, "y_test": y}, "finite values in x_train"),
        ],
    )
    def test_files_that_will_not_do_say_why(self, tmp_path, arrays, message):
        """Missing keys, lengths, shapes, single classes and NaN are errors that name them."""
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InvalidInputError, match=message):
            load_dataset(tmp_path / "bad.npz")

    def test_nothing_in_a_file_is_executed(self, tmp_path):
        """A pickled object in an archive is refused, not loaded; so is a file that is no archive."""

        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        trap = np.array([Trap()], dtype=object)
        np.savez(tmp_path / "trap.npz", x_train=trap, y_train=trap, x_test=trap, y_test=trap)
        (tmp_path / "text.npz").write_text("not an archive")
        for name in ("trap.npz", "text.npz"):
            with pytest.raises(InvalidInputError, match="npz of plain arrays"):
                load_dataset(tmp_path / name)
        assert not (tmp_path / "sprung").exists()
        (tmp_path / "folder.npz").mkdir()
        with pytest.raises(InvalidInputError, match="which is a folder"):
            load_dataset(str(tmp_path / "folder.npz"))
        with pytest.raises(InvalidInputError, match="does not exist"):
            load_dataset(tmp_path / "none.npz")


class TestRun:
    def test_rows_are_complete_and_paired(self, npz, tmp_path):
        """Each strategy and seed has every round; within a seed the initial rows and score are shared."""
        rows = small_run(npz, tmp_path / "out").rows()
        assert len(rows) == 2 * 2 * 3
        for seed in (0, 1):
            starts = [r for r in rows if r.seed == seed and r.round == 0]
            assert starts[0].indices == starts[1].indices
            assert starts[0].score == starts[1].score
        assert [r.n_labels for r in rows[:3]] == [6, 10, 14]

    def test_the_same_run_again_repeats_nothing(self, npz, tmp_path):
        """Finished cells keep their very times; more seeds and strategies add to them."""
        first = small_run(npz, tmp_path / "out").rows()
        again = small_run(npz, tmp_path / "out", ("margin", "random_sampling", "entropy"), seeds=3).rows()
        assert [r for r in again if r.strategy != "entropy" and r.seed < 2] == first
        assert len(again) == 3 * 3 * 3

    def test_two_workers_give_the_same_rows(self, npz, tmp_path):
        """Rows do not depend on the number of jobs, times aside."""

        def key(rows):
            return [(r.strategy, r.seed, r.round, r.score, r.indices) for r in rows]

        serial, parallel = (small_run(npz, tmp_path / str(jobs), jobs=jobs).rows() for jobs in (1, 2))
        assert key(serial) == key(parallel)

    @pytest.mark.slow
    def test_a_killed_run_is_finished_by_the_same_command(self, npz, tmp_path):
        """After kill -9 the store holds whole cells only, and resuming gives an undisturbed run's rows."""
        out, calm = tmp_path / "out", tmp_path / "calm"
        command = ["bench", "--dataset", str(npz), "--strategy", "margin", "--strategy", "random_sampling"]
        command += ["--seeds", "3", "--initial", "6", "--batch", "4", "--rounds", "2", "--quiet", "--out"]
        process = apart.command(tmp_path, *command, out)
        # However slow the machine is; the suite's own limit ends what never comes.
        while process.is_alive() and not ((out / "results.sqlite").exists() and Store(out).finished()):
            time.sleep(0.05)
        process.kill()
        process.join()
        with closing(sqlite3.connect(out / "results.sqlite")) as connection:
            counts = connection.execute("SELECT COUNT(*) FROM rounds GROUP BY strategy, seed").fetchall()
        assert {n for (n,) in counts} == {3}
        assert main([*command, str(out)]) == main([*command, str(calm)]) == 0
        resumed, undisturbed = (
            [(r.strategy, r.seed, r.round, r.n_labels, r.score, r.indices) for r in Store(o).rows()]
            for o in (out, calm)
        )
        assert resumed == undisturbed
        assert len(resumed) == 2 * 3 * 3

    def test_another_protocol_is_refused_with_the_difference(self, npz, tmp_path):
        """An old store takes no rows of another protocol, and says which part differs."""
        small_run(npz, tmp_path / "out")
        with pytest.raises(InvalidInputError, match=r"n_initial is 6 there and 7 here\. Use another folder"):
            small_run(npz, tmp_path / "out", n_initial=7)

    def test_training_may_go_on_from_round_to_round(self, npz, tmp_path):
        """Continued rounds are another protocol, which starts from the same first round."""
        options = {"strategies": ["random_sampling"], "seeds": 1, "estimator": SGDClassifier(max_iter=5, tol=None)}
        fresh = small_run(npz, tmp_path / "a", **options)
        continued = small_run(npz, tmp_path / "b", **options, reinitialise=False)
        assert (fresh.protocol().get("reinitialise"), continued.protocol()["reinitialise"]) == (None, False)
        assert fresh.rows()[0].score == continued.rows()[0].score
        with pytest.raises(InvalidInputError, match="reinitialise"):
            small_run(npz, tmp_path / "a", **options, reinitialise=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strategies": ["margn"]}, "Did you mean 'margin'"),
            ({"strategies": []}, "at least one strategy"),
            ({"strategies": ["ntkcpl:clusters=5"]}, "parameter=value in 'ntkcpl:clusters=5', got 'clusters=5'"),
            ({"strategies": ["ntkcpl:max_clusters=0"]}, "ntkcpl:max_clusters=0: Expected max_clusters"),
            ({"seeds": 0}, "seeds to be an integer of at least 1"),
            ({"n_rounds": 500}, "at most 60 labels"),
        ],
    )
    def test_what_cannot_be_run_is_refused_before_any_work(self, npz, tmp_path, options, message):
        """Unknown strategies, parameters and schedules are errors, and no folder is made."""
        with pytest.raises((InvalidInputError, UnknownNameError), match=message):
            small_run(npz, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_written(self, npz, tmp_path):
        """A file in the way is an error before any work."""
        (tmp_path / "out").write_text("")
        with pytest.raises(InvalidInputError, match="output folder that can be written"):
            small_run(npz, tmp_path / "out")

    def test_strategies_are_read_from_text(self):
        """Values are Python literals where they are, else strings."""
        strategy = parse_strategy("ntkcpl:max_clusters=50,variant=self,n_start=None")
        assert strategy.get_params() == NTKCPL(max_clusters=50, variant="self").get_params()


class TestReport:
    def test_table_holds_mean_and_deviation(self, tmp_path):
        """Scores .1, .3 and .8 have mean .4000 and sample deviation .3606; one seed has no deviation."""
        from modal_ntk.bench.loop.simulation import Round

        store = Store(tmp_path)
        store.agree({"dataset": "made up"})
        for seed, score in enumerate((0.1, 0.3, 0.8)):
            store.add("a", seed, [Round(20, score, 0.0, 0.0, np.arange(20))])
        store.add("b", 0, [Round(40, 0.5, 0.0, 0.0, np.arange(40))])
        found = report(tmp_path)
        lines = [line.split() for line in found.table.splitlines()]
        assert lines == [
            ["labels", "a", "b"],
            ["20", "0.4000", "±", "0.3606", "-"],
            ["40", "-", "0.5000"],
            ["seeds", "3", "1"],
        ]
        assert found.curves.read_bytes().startswith(b"\x89PNG")

    def test_nothing_to_report(self, tmp_path):
        """A folder without results, or without a finished run, is an error that says what to do."""
        with pytest.raises(InvalidInputError, match="modal-ntk bench"):
            report(tmp_path)
        Store(tmp_path).agree({"dataset": "x"})
        with pytest.raises(InvalidInputError, match="finished runs"):
            report(tmp_path)


class TestEstimators:
    def test_defaults_learn(self):
        """The default nets learn a hundred digits, as vectors and as images; a last batch of one is no trap."""
        data = load_dataset("digits")
        net = default_estimator(data).fit(data.x_train[:101], data.y_train[:101])
        assert net.score(data.x_test, data.y_test) > 0.7
        import dataclasses

        images = dataclasses.replace(data, x_train=data.x_train.reshape(-1, 1, 8, 8).repeat(2, 2).repeat(2, 3))
        conv = default_estimator(images).fit(images.x_train[:101], images.y_train[:101])
        assert conv.score(images.x_train[101:400], images.y_train[101:400]) > 0.5


class TestCommandLine:
    def test_bench_prints_the_table_and_draws(self, npz, tmp_path, capsys):
        """One command ends with the table on stdout and curves.png in the folder."""
        arguments = [
            "bench",
            "--dataset",
            str(npz),
            "--strategy",
            "random_sampling",
            "--strategy",
            "ntkcpl:variant=self",
        ]
        arguments += ["--seeds", "2", "--initial", "6", "--batch", "4", "--rounds", "1"]
        arguments += ["--out", str(tmp_path / "o")]
        assert main(arguments) == 0
        printed = capsys.readouterr()
        assert printed.out.splitlines()[0].split() == ["labels", "ntkcpl:variant=self", "random_sampling"]
        assert "4/4" in printed.err
        assert (tmp_path / "o" / "curves.png").exists()
        assert main(["report", str(tmp_path / "o")]) == 0
        assert capsys.readouterr().out == printed.out

    def test_bench_continues_training_if_told(self, npz, tmp_path, capsys):
        """--continue reaches the protocol."""
        arguments = ["bench", "--dataset", str(npz), "--strategy", "random_sampling", "--continue", "--quiet"]
        arguments += ["--seeds", "1", "--initial", "6", "--rounds", "0", "--out", str(tmp_path / "o")]
        assert main(arguments) == 0
        assert Store(tmp_path / "o").protocol()["reinitialise"] is False
        assert capsys.readouterr().err == ""

    def test_strategies_are_listed(self, capsys):
        """Names, origin and needs, as text and as JSON."""
        assert main(["strategies"]) == 0
        assert "ntkcpl  (modal-ntk " in capsys.readouterr().out
        assert main(["strategies", "--json"]) == 0
        listing = json.loads(capsys.readouterr().out)
        assert {"name", "needs", "paper", "distribution"} <= set(listing["strategies"][0])

    def test_listing_does_not_import_torch(self):
        """`modal-ntk strategies` reads metadata and specs only: neither torch nor numba is loaded for it."""
        code = "import sys; from modal_ntk.cli import main; main(['strategies']); "
        code += "assert not {'torch', 'numba'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["bench", "--strategy", "magic"], "Unknown strategy 'magic'"),
            (["bench", "--strategy", "margin", "--dataset", "mnits"], "Unknown data set 'mnits'"),
            (["report", "/nonexistent"], "Expected a folder with results.sqlite"),
        ],
    )
    def test_errors_are_one_line(self, arguments, message, capsys):
        """What is wrong stands in one line on stderr, the status is 2, there is no traceback."""
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"modal-ntk: error: {message}")
        assert len(printed.err.splitlines()) == 1
