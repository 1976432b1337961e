"""A plugin from the template: renamed throughout, sound at once, and never written over anything."""

import dataclasses
import re
import runpy
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

from modal_ntk import cli
from modal_ntk.commands import listing
from modal_ntk.commands.scaffold import new_plugin
from modal_ntk.errors import InvalidInputError
from modal_ntk.host import build_host
from modal_ntk.testing import strategy_checks

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "examples" / "plugin_template"


def test_nothing_of_the_templates_name_is_left(tmp_path):
    """Files, folders, distribution, entry point, class and tests bear the new name, the page no steps of renaming."""
    folder = new_plugin("my_margin", tmp_path / "out")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    expected = {str(p.relative_to(TEMPLATE)).replace("epsilon_margin", "my_margin") for p in TEMPLATE.rglob("*.[pmt]*")}
    assert set(files) == {name for name in expected if "__pycache__" not in name}
    text = "".join((folder / name).read_text() for name in files)
    for old in ("epsilon_margin", "epsilon-margin", "EpsilonMargin", "<!--", "new-plugin"):
        assert old not in text
    assert 'my_margin = "modal_ntk_my_margin.strategy"' in text
    assert "class MyMargin(QueryStrategy)" in text


def test_the_strategy_keeps_the_contract_at_once(tmp_path):
    """What was written runs and passes the clauses about the form of a choice."""
    folder = new_plugin("my_margin", tmp_path)
    strategy = runpy.run_path(str(folder / "modal_ntk_my_margin" / "strategy.py"))["MyMargin"]
    checks = [check for check in strategy_checks() if "gives_as_many" in str(check)]
    assert checks
    for check in checks:
        check(strategy(random_state=0))


def test_the_command_writes_it_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    """Without a folder it goes to modal-ntk-NAME beside the user; the remedies of errors are those that work."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-plugin", "my_margin"]) == 0
    assert "pip install -e" in capsys.readouterr().out
    assert (tmp_path / "modal-ntk-my-margin" / "pyproject.toml").is_file()
    assert cli.main(["new-plugin", "my_margin"]) == 2
    assert "Name another one" in capsys.readouterr().err
    assert cli.main(["new-plugin", "my_margin", "--out", "elsewhere"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Margin", "Try my_margin"),
        ("../up", "lower-case"),
        ("my_", "joined"),
        ("selection", "joined"),
        ("entropy", "modal-ntk .* has"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(tmp_path, name, message):
    """Names that are no identifiers, lead elsewhere or are taken leave no file."""
    with pytest.raises(InvalidInputError, match=message):
        new_plugin(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_strategy_is_shown_with_its_parameters(capsys):
    """`modal-ntk strategies NAME` prints need, source and the documented parameters, and explains a name it has not."""
    assert cli.main(["strategies", "ntkcpl"]) == 0
    shown = capsys.readouterr().out
    for part in ("from: NTKCPL", "features: a feature matrix", "max_clusters : int or None", "random_state"):
        assert part in shown
    assert "Notes" not in shown
    assert cli.main(["strategies", "ntkcp"]) == 2
    assert "ntkcpl" in capsys.readouterr().err


def test_the_page_of_a_strategy_is_named(monkeypatch):
    """Each of ours has a page of the documentation that speaks of its class; another's is the address it declares."""
    found = build_host().strategies
    for strategy in found.values():
        (page,) = re.findall("^page: (.*)$", listing.described(strategy), re.MULTILINE)
        assert f"modal_ntk.{strategy.spec.factory.__name__}`" in (ROOT / page).read_text(encoding="utf-8")
    theirs = dataclasses.replace(found["margin"], distribution="theirs")
    assert "page:" not in listing.described(theirs)
    declared = Message()
    declared["Project-URL"] = "Documentation, https://theirs.test/margin"
    monkeypatch.setattr(listing, "metadata", {"theirs": declared}.__getitem__)
    assert "\npage: https://theirs.test/margin\n" in listing.described(theirs)


def test_listing_waits_for_no_torch():
    """Scaffold and listing are imported by the command line, and import no torch."""
    code = "import sys, modal_ntk.commands.scaffold, modal_ntk.commands.listing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
