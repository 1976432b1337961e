"""The command line without its script."""

import re
import subprocess
import sys
from importlib.metadata import version

from modal_ntk import cli


def test_the_package_runs_as_a_module():
    """``python -m modal_ntk`` is the command ``modal-ntk``."""
    told = subprocess.run([sys.executable, "-m", "modal_ntk", "--version"], capture_output=True, text=True, check=True)
    assert version("modal-ntk") in told.stdout


def test_the_bare_command_shows_its_help(capsys):
    """Whoever types the name alone is shown what there is, with the status of a call that asked for nothing."""
    assert cli.main([]) == 2
    assert "new-plugin" in capsys.readouterr().err


def test_a_comparison_without_strategies_says_which_option_names_them(capsys):
    """In the words of the command line, with a call that can be copied."""
    assert cli.main(["bench", "--dataset", "digits"]) == 2
    told = capsys.readouterr().err
    assert "Expected at least one --strategy" in told
    call = re.findall(r"--strategy \w+ --strategy \w+", told)[0].split()
    assert cli._parser().parse_args(["bench", *call]).strategies
