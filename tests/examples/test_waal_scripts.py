"""The scripts of WAAL run, at sizes that take seconds, and go on where they were."""

import json
import sys

import pytest
from scripts import imported, run_small


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.setenv("MODAL_NTK_SMALL", "1")
    return imported("waal_fashion_mnist", monkeypatch)


def test_it_goes_on_where_it_was(script, tmp_path, capsys):
    """What was stopped in the middle of a run ends with the rows and the table of one call."""
    arguments = ["--arms", "eq. 7", "no critic", "plain"]
    script.main([str(tmp_path / "once"), *arguments])
    table = capsys.readouterr().out.split("Fashion-MNIST: ")[1]
    lines = (tmp_path / "once" / "waal_fashion_mnist.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "waal_fashion_mnist.jsonl").write_text("".join(lines[:3]))
    script.main([str(tmp_path / "parts"), *arguments])
    told = capsys.readouterr().out
    assert told.count("fit_seconds") == len(lines) - 3 == 3
    assert told.split("Fashion-MNIST: ")[1] == table
    assert (tmp_path / "parts" / "waal_fashion_mnist.png").stat().st_size > 0


def test_cells_are_done_once_by_several_processes(script, tmp_path):
    """A cell in hand is left out by others, and taken up once its process has let go of it."""
    cells = sys.modules["cells"]
    ours = cells.claimed(tmp_path, [(0, "eq. 7"), (1, "eq. 7")])
    assert next(ours) == (0, "eq. 7")
    assert list(cells.claimed(tmp_path, [(0, "eq. 7"), (1, "eq. 7")])) == [(1, "eq. 7")]
    assert list(ours) == [(1, "eq. 7")]
    assert len(list(cells.claimed(tmp_path, [(0, "eq. 7"), (1, "eq. 7")]))) == 2


def test_the_starved_study_runs_and_goes_on(tmp_path):
    """Every arm leaves accuracy and areas for each round; a second call repeats the table and trains nothing."""
    arguments = [tmp_path, "--task", "modes", "--arms", "no critic", "eq. 8"]
    first, again = (run_small("waal_starved", *arguments) for _ in range(2))
    rows = [json.loads(line) for line in (tmp_path / "waal_starved_modes.jsonl").read_text().splitlines()]
    assert [(r["arm"], r["n_labels"]) for r in rows] == [(a, n) for a in ("no critic", "eq. 8") for n in (105, 130)]
    assert all(0 <= r[name] <= 1 for r in rows for name in ("accuracy", "auc", "auc_starved", "starved_share"))
    assert again == first
