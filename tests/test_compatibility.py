"""What is known of versions, against what is installed."""

from importlib.metadata import version

import pytest
from conftest import MODAL_RUNS

from modal_ntk import compatibility

TODAY = {"modAL-python": "0.4.1", "scikit-learn": "1.7.2", "skorch": "1.4.0"}


@pytest.mark.parametrize("modal", ["0.4.1", "0.4.2.1"])
@pytest.mark.parametrize("sklearn", ["1.5.0", "1.7.2", "1.8.0rc1", "1.8.0", "1.9.1"])
def test_modal_cannot_teach_from_scikit_learn_1_8_on(modal, sklearn):
    """The clash applies to both modALs from 1.8.0 on, and to nothing below."""
    found = compatibility.clashes({**TODAY, "modAL-python": modal, "scikit-learn": sklearn})
    assert (found == [compatibility.MODAL_LEARNER]) == (sklearn in ("1.8.0", "1.9.1"))


@pytest.mark.parametrize(
    ("change", "tried"),
    [({}, True), ({"modAL-python": "0.4.2"}, False), ({"scikit-learn": "1.4.2"}, False), ({"skorch": None}, False)],
)
def test_only_what_was_run_counts_as_tried(change, tried):
    """Versions outside those that were run, and what is not installed, are not tried."""
    assert compatibility.was_tried({**TODAY, **change}) == tried


def test_old_skorch_is_a_clash():
    """skorch 0.9 is known not to work; skorch not installed is not known at all."""
    assert len(compatibility.clashes({**TODAY, "skorch": "0.9.0"})) == 1
    assert not compatibility.clashes({**TODAY, "skorch": None})


def test_versions_are_those_installed():
    """Each is what the metadata say; scikit-learn's verdict on modAL is that of the tests' own switch."""
    assert compatibility.installed_versions()["torch"] == version("torch")
    assert compatibility.modal_learner_runs() == MODAL_RUNS


def test_requirements_are_those_of_the_package(monkeypatch):
    """A version outside the declared range, and a missing one, are told with both; extras are nobody's need."""
    declared = ['numpy>=900; extra == "big"', "numpy>=1", "numpy<1", "no-such-thing>=2"]
    monkeypatch.setattr(compatibility, "requires", lambda name: declared)
    assert compatibility.unmet_requirements("mine") == [
        f'mine declares "numpy<1", and {version("numpy")} is installed',
        'mine declares "no-such-thing>=2", and nothing of it is installed',
    ]


def test_a_source_tree_that_is_not_installed_is_told():
    """Without metadata there are no plugins, and the sentence says what to do."""
    assert "Run: pip install no-such-thing" in compatibility.unmet_requirements("no-such-thing")[0]
