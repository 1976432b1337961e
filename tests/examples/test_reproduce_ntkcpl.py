"""The script behind the table of NTKCPL's protocol: its arithmetic, and a run of seconds."""

import numpy as np
import pytest
from scripts import imported, run_small


@pytest.fixture
def table(monkeypatch):
    return imported("ntkcpl_table", monkeypatch)


def test_effective_budget_is_counted_in_labels(table):
    """Budgets above random's mean plus deviation count by the labels they added: 20 and 100 of 200."""
    budgets = np.array([20, 40, 100, 200])
    baseline = np.array([[0.4, 0.5, 0.6, 0.7], [0.6, 0.7, 0.8, 0.9]])
    bar = baseline.mean(0) + np.sqrt(0.02)
    scores = np.tile(bar + np.array([0.01, 0.0, -0.1, 0.01]), (3, 1))
    assert table.effective_budget_ratio(budgets, scores, baseline) == pytest.approx(120 / 200)
    assert table.effective_budget_ratio(budgets, baseline, baseline) == 0


def test_strategies_without_a_cold_start_begin_at_random(table):
    """Look-ahead and entropy start from random labels, beside random itself; NTKCPL chooses its first batch."""
    compared = table.comparisons(2500)
    assert all("lookahead" not in name and name != "entropy" for name in compared["query"])
    assert [name for name in compared["query"] if "ntkcpl" in name] == [
        "ntkcpl:n_candidates=2500",
        "ntkcpl:n_candidates=2500,variant=al",
    ]
    assert {"random_sampling", "badge"} <= set(compared["random"])
    assert len(table.comparisons(2500, clusters=True)["query"]) == 4


def test_the_papers_own_table_by_the_same_rule(table):
    """Cut at 500 labels its CIFAR-10 table gives 80 % (variant al and TypiClust) and 64 % (BADGE), not 92.7 %."""
    ratio = table.paper_ratio
    assert [round(100 * ratio(name, 500)) for name in ("NTKCPL(al)", "TypiClust", "BADGE")] == [80, 80, 64]
    assert ratio("TypiClust", 2000) < ratio("NTKCPL(al)", 2000)


def test_a_short_run_writes_the_table_and_goes_on(tmp_path):
    """Every strategy gets its row and the picture is drawn; a second call repeats nothing; --report only reads."""
    options = ["--pool", "150", "--candidates", "60", "--seeds", "1", "--rounds", "1"]
    first = run_small("ntkcpl_table", tmp_path, *options)
    assert first.count("| ntkcpl:") == 2
    assert "to 2,000" in first
    assert first.count("| lookahead:") == 2
    assert (tmp_path / "ntkcpl_table.png").stat().st_size > 0
    assert str(tmp_path) not in first
    again = run_small("ntkcpl_table", tmp_path, *options, "--report")
    rows, same = ([line for line in told.splitlines() if line.startswith("|")] for told in (first, again))
    assert rows == same
    written = (tmp_path / "ntkcpl_table.md").read_text().splitlines()
    assert [line for line in written if line.startswith("|")] == rows
