"""The scripts that reproduce dynamicAL run, at a size that takes seconds."""

import json
from types import SimpleNamespace

import pytest
from scripts import imported, run_small


def test_theory(tmp_path):
    """Both plots and all values are written; alignment goes with the dynamics, more so under true labels."""
    printed = run_small("dynamical_theory", "--out", tmp_path)
    assert (tmp_path / "dynamical_theory.png").stat().st_size > 0
    record = json.loads((tmp_path / "dynamical_theory.json").read_text())
    taus = record["kendall_tau"]
    assert 0 < taus["A and G_MSE, pseudo-labels"] < taus["A and G_MSE, true labels"]
    assert f"{taus['B and G_MSE, true labels']:.3f}" in printed


def test_table_goes_on_where_it_stopped(tmp_path):
    """A second strategy joins the first one's rows, which are not computed again."""
    asked = ["dynamical_table", tmp_path, "--strategy", "random_sampling"]
    first = run_small(*asked).splitlines()
    second = run_small(*asked, "--strategy", "dynamical").splitlines()
    assert [line.split()[-1] for line in first] == [line.split()[-1] for line in second]
    table = (tmp_path / "table.md").read_text()
    assert "dynamical_table OUT --strategy" in table
    assert str(tmp_path) not in table


def test_an_annealed_round_starts_at_the_rate_and_ends_near_none(monkeypatch):
    """Half a cosine over a round's epochs, from the net's own rate, again in every round."""
    annealed = imported("dynamical_table", monkeypatch).Annealed()
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


def test_batches(tmp_path):
    """Counts are printed and written; no rule beats the best batch."""
    printed = run_small("dynamical_batches", "--problems", 2, "--out", tmp_path / "batches.txt")
    text = (tmp_path / "batches.txt").read_text()
    assert text == printed
    assert "part of its G: mean" in text
    parts = [float(line.split("mean ")[1].split("%")[0]) for line in text.splitlines() if "part of its G" in line]
    assert len(parts) == 2
    assert max(parts) <= 100


@pytest.mark.slow
def test_rounds(tmp_path):
    """Every number of queries has its row; a second call computes nothing and prints the same."""
    first = run_small("dynamical_rounds", tmp_path)
    lines = (tmp_path / "dynamical_rounds.jsonl").read_text()
    assert {json.loads(line)["n_labels"] for line in lines.splitlines()} == {90}
    assert run_small("dynamical_rounds", tmp_path).splitlines()[-5:] == first.splitlines()[-5:]
    assert (tmp_path / "dynamical_rounds.jsonl").read_text() == lines


@pytest.mark.slow
def test_settling(tmp_path):
    """Every way of training has its row, with shares that are shares; a second call computes nothing."""
    first = run_small("dynamical_settling", tmp_path)
    found = [json.loads(line) for line in (tmp_path / "dynamical_settling.jsonl").read_text().splitlines()]
    assert len(found) == len({row["recipe"] for row in found}) == 4
    assert all(-1 <= row["correlation"] <= 1 and 1 / row["classes"] <= row["largest"] <= 1 for row in found)
    assert run_small("dynamical_settling", tmp_path).splitlines()[-5:] == first.splitlines()[-5:]
