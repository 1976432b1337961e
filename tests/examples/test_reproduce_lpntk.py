"""The script that reproduces lpNTK's tables runs, stage by stage, and goes on where it was stopped."""

import pytest
from scripts import imported, run_small

FILES = {
    "pruning": ["pruning.csv", "reference.pt", "kept pruned lpNTK.npy"],
    "small": ["small.csv", "kept heads.npy"],
    "forgetting": ["forgetting.csv"],
    "difficulty": ["difficulty.csv"],
    "control": ["control.csv", "control.png"],
    "pictures": ["redundant.png", "interchangeable.png", "contradictory.png", "clusters.png"],
    "conflicts": ["conflicts.csv"],
}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setenv("MODAL_NTK_SMALL", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return imported("lpntk_mnist", monkeypatch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", FILES)
def test_a_stage_writes_its_results(script, stage, tmp_path):
    """Every stage ends well and leaves its tables and pictures."""
    script.main(["--stage", stage, "--out", str(tmp_path), "--epochs", "1", "--n", "150"])
    assert all((tmp_path / name).stat().st_size for name in FILES[stage])


@pytest.mark.filterwarnings("ignore")
def test_a_stage_goes_on_where_it_was_stopped(script, tmp_path):
    """Cells that are there already are not computed again, and those that are missing are."""
    arguments = ["--stage", "forgetting", "--out", str(tmp_path)]
    script.main(arguments)
    first = (tmp_path / "forgetting.csv").read_text()
    (tmp_path / "forgetting.csv").write_text("\n".join(first.splitlines()[:-1]) + "\n")
    script.main(arguments)
    assert (tmp_path / "forgetting.csv").read_text().splitlines() == first.splitlines()


@pytest.mark.parametrize(
    ("study", "row"), [("lpntk_conflicts", "| conflicts, three-fold |"), ("small_queries", "| lpntk |")]
)
def test_a_small_study_runs_and_goes_on(tmp_path, study, row):
    """Every arm has its row; a second call repeats the table from the file."""
    first, again = (run_small(study, tmp_path) for _ in range(2))
    assert first == again
    assert first.count(row.strip("| ")) >= 1


def test_the_theorem_holds_for_pairs_of_one_label(monkeypatch):
    """The labelled kernel nears the whole one as the net widens, and stays 4 / K of it away where labels differ."""
    lpntk_theorem = imported("lpntk_theorem", monkeypatch)
    monkeypatch.setattr(lpntk_theorem, "N_PAIRS", 15)
    narrow, wide = (lpntk_theorem.norms(width, 0, True) for width in (64, 1024))
    assert wide[0] < narrow[0] / 4
    assert wide[1] < 0.05
    assert abs(lpntk_theorem.norms(1024, 0, False)[1] - 0.4) < 0.05
