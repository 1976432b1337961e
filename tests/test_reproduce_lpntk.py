"""The script that reproduces lpNTK's tables runs, stage by stage, and goes on where it was stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "reproduce" / "lpntk_mnist.py"


def run(stage, out):
    environment = {**os.environ, "MODAL_NTK_SMALL": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--stage", stage, "--out", str(out), "--epochs", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        ("pruning", ["pruning.csv", "reference.pt", "kept pruned lpNTK.npy"]),
        ("difficulty", ["difficulty.csv"]),
        ("pictures", ["redundant.png", "interchangeable.png", "contradictory.png", "clusters.png"]),
    ],
)
def test_a_stage_writes_its_results(stage, files, tmp_path):
    """Every stage ends well and leaves its tables and pictures."""
    run(stage, tmp_path)
    assert all((tmp_path / name).stat().st_size for name in files)


def test_a_stage_goes_on_where_it_was_stopped(tmp_path):
    """Cells that are there already are not computed again."""
    run("forgetting", tmp_path)
    first = (tmp_path / "forgetting.csv").read_text()
    (tmp_path / "forgetting.csv").write_text("\n".join(first.splitlines()[:-1]) + "\n")
    run("forgetting", tmp_path)
    assert (tmp_path / "forgetting.csv").read_text().splitlines() == first.splitlines()
