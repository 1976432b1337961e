"""The command line without its script."""

import subprocess
import sys

import modal_ntk


def test_the_package_runs_as_a_module():
    """``python -m modal_ntk`` is the command ``modal-ntk``."""
    told = subprocess.run([sys.executable, "-m", "modal_ntk", "--version"], capture_output=True, text=True, check=True)
    assert modal_ntk.__version__ in told.stdout
