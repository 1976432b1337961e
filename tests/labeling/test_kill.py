"""A labelling session whose process is killed loses nothing and repeats nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_session.py")


@pytest.mark.slow
def test_twenty_kills_leave_the_log_of_an_undisturbed_session(tmp_path):
    """After kill -9 at twenty random moments, and going on each time, the log is an undisturbed one's."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["landed"] >= 10
    assert found["rough"] == found["calm"]
    assert {"ask", "label", "skip", "undo"} == {kind for _, kind, _, _ in found["calm"]}
