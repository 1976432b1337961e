"""The studies are found by their names."""

import pytest
from scripts import REPRODUCE, imported, run_small


def test_every_script_is_a_study_and_is_listed():
    """What can be run, and only that, stands in the list with the first line of its docstring."""
    with pytest.raises(SystemExit) as listing:
        run_small("")
    listed = dict(line.split(maxsplit=1) for line in str(listing.value).splitlines())
    scripts = {path.stem: path.read_text() for path in REPRODUCE.rglob("*.py") if path.stem != "__main__"}
    assert set(listed) == {name for name, text in scripts.items() if 'if __name__ == "__main__"' in text}
    assert all(scripts[name].startswith(f'"""{line}') for name, line in listed.items())


def test_an_unknown_study_is_refused_beside_those_there_are():
    """The error names what was asked for and what can be."""
    with pytest.raises(SystemExit, match=r"got ddal:\n(.*\n)*  ddal_defaults "):
        run_small("ddal")


def test_no_two_scripts_share_a_name(monkeypatch):
    """A study is found by its name alone, so names are unique over all folders."""
    names = [path.stem for path in REPRODUCE.rglob("*.py")]
    assert len(names) == len(set(names))
    assert imported("cells", monkeypatch).__file__ == str(REPRODUCE / "cells.py")
