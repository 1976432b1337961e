"""The scripts of WAAL run, at sizes that take seconds, and go on where they were."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples/reproduce/waal_fashion_mnist.py"


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.setenv("MODAL_NTK_SMALL", "1")
    spec = importlib.util.spec_from_file_location("waal_fashion_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_goes_on_where_it_was(script, tmp_path, capsys):
    """A second call does only the rounds that are missing, from the rows chosen before, as one call would have."""
    arms = ["--seeds", "1", "--arms", "waal:waal", "plain:entropy"]
    at_once, in_parts = str(tmp_path / "once"), str(tmp_path / "parts")
    script.main([at_once, "--rounds", "1", *arms])
    script.main([in_parts, "--rounds", "0", *arms])
    capsys.readouterr()
    script.main([in_parts, "--rounds", "1", *arms])
    assert capsys.readouterr().out.count("fit_seconds") == 2
    timed = ("fit_seconds", "query_seconds")
    stored = [
        sorted(json.dumps({k: v for k, v in r.items() if k not in timed}) for r in script.results(out))
        for out in (at_once, in_parts)
    ]
    assert stored[0] == stored[1]
    assert [row[:2] for row in script.summary(in_parts)] == [
        ["plain:entropy", 50], ["plain:entropy", 70], ["waal:waal", 50], ["waal:waal", 70],
    ]  # fmt: skip
    assert (tmp_path / "parts" / "waal_fashion_mnist.png").stat().st_size > 0


def test_the_starved_study_runs_and_goes_on(tmp_path):
    """Every arm leaves accuracy and areas for each round; a second call repeats the table and trains nothing."""
    script = SCRIPT.with_name("waal_starved.py")
    command = [sys.executable, str(script), str(tmp_path), "--task", "modes", "--arms", "no critic", "eq. 8"]
    environment = {**os.environ, "MODAL_NTK_SMALL": "1", "OMP_NUM_THREADS": "1"}
    first, again = (
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout for _ in range(2)
    )
    rows = [json.loads(line) for line in (tmp_path / "waal_starved_modes.jsonl").read_text().splitlines()]
    assert [(r["arm"], r["n_labels"]) for r in rows] == [(a, n) for a in ("no critic", "eq. 8") for n in (105, 130)]
    assert all(0 <= r[name] <= 1 for r in rows for name in ("accuracy", "auc", "auc_starved", "starved_share"))
    assert again == first
