"""The scripts that reproduce dynamicAL run, at a size that takes seconds."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "examples/reproduce"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setenv("MODAL_NTK_SMALL", "1")

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(FOLDER / name), run_name="__main__")

    return run


def test_theory(script, tmp_path, capsys):
    """Both plots and all values are written; alignment goes with the dynamics, more so under true labels."""
    script("dynamical_theory.py", "--out", tmp_path)
    assert (tmp_path / "dynamical_theory.png").stat().st_size > 0
    record = json.loads((tmp_path / "dynamical_theory.json").read_text())
    taus = record["kendall_tau"]
    assert 0 < taus["A and G_MSE, pseudo-labels"] < taus["A and G_MSE, true labels"]
    assert f"{taus['B and G_MSE, true labels']:.3f}" in capsys.readouterr().out


def test_table_goes_on_where_it_stopped(script, tmp_path, capsys):
    """A second strategy joins the first one's rows, which are not computed again."""
    script("dynamical_table.py", tmp_path, "--strategy", "random_sampling")
    first = capsys.readouterr().out.splitlines()
    script("dynamical_table.py", tmp_path, "--strategy", "random_sampling", "--strategy", "dynamical")
    second = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in first] == [line.split()[-1] for line in second]
    table = (tmp_path / "table.md").read_text()
    assert "dynamical_table.py OUT --strategy" in table
    assert str(tmp_path) not in table


def test_an_annealed_round_starts_at_the_rate_and_ends_near_none(monkeypatch):
    """Half a cosine over a round's epochs, from the net's own rate, again in every round."""
    monkeypatch.syspath_prepend(str(FOLDER))
    annealed = importlib.import_module("dynamical_table").Annealed()
    group = {"lr": 0.0}
    net = SimpleNamespace(lr=0.1, max_epochs=20, optimizer_=SimpleNamespace(param_groups=[group]))
    for _ in range(2):
        annealed.on_train_begin(net)
        rates = []
        for _ in range(20):
            annealed.on_epoch_begin(net)
            rates.append(group["lr"])
        assert rates[0] == 0.1
        assert rates[10] == pytest.approx(0.05)
        assert 0 < rates[-1] < 0.001


def test_batches(script, tmp_path, capsys):
    """Counts are printed and written; no rule beats the best batch."""
    script("dynamical_batches.py", "--problems", 2, "--out", tmp_path / "batches.txt")
    text = (tmp_path / "batches.txt").read_text()
    assert text == capsys.readouterr().out
    assert "part of its G: mean" in text
    parts = [float(line.split("mean ")[1].split("%")[0]) for line in text.splitlines() if "part of its G" in line]
    assert len(parts) == 2
    assert max(parts) <= 100


def test_rounds(script, monkeypatch, tmp_path, capsys):
    """Every number of queries has its row; a second call computes nothing and prints the same."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script("dynamical_rounds.py", tmp_path)
    first = capsys.readouterr().out
    lines = (tmp_path / "dynamical_rounds.jsonl").read_text()
    assert {json.loads(line)["n_labels"] for line in lines.splitlines()} == {90}
    script("dynamical_rounds.py", tmp_path)
    assert capsys.readouterr().out.splitlines()[-5:] == first.splitlines()[-5:]
    assert (tmp_path / "dynamical_rounds.jsonl").read_text() == lines


def test_settling(script, monkeypatch, tmp_path, capsys):
    """Every way of training has its row, with shares that are shares; a second call computes nothing."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script("dynamical_settling.py", tmp_path)
    first = capsys.readouterr().out
    found = [json.loads(line) for line in (tmp_path / "dynamical_settling.jsonl").read_text().splitlines()]
    assert len(found) == len({row["recipe"] for row in found}) == 4
    assert all(-1 <= row["correlation"] <= 1 and 1 / row["classes"] <= row["largest"] <= 1 for row in found)
    script("dynamical_settling.py", tmp_path)
    assert capsys.readouterr().out.splitlines()[-5:] == first.splitlines()[-5:]
