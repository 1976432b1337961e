"""The command line without its script."""

import subprocess
import sys
from importlib.metadata import version


def test_the_package_runs_as_a_module():
    """``python -m modal_ntk`` is the command ``modal-ntk``."""
    told = subprocess.run([sys.executable, "-m", "modal_ntk", "--version"], capture_output=True, text=True, check=True)
    assert version("modal-ntk") in told.stdout
