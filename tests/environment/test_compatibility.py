"""What is known of versions, against what is installed."""

import ast
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from modal_ntk.environment import compatibility, repairs

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
    """Each is what the metadata say."""
    assert compatibility.installed_versions()["torch"] == version("torch")


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


OWN = """
import os, sys, warnings
import numpy as np, pandas as pd
{first}
{second}
from modAL.utils.data import add_row
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from modal_ntk.environment import compatibility, repairs

X, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
frame = pd.DataFrame(X, columns=["a", "b"])
warnings.simplefilter("error", FutureWarning)
assert compatibility.modal_learner_runs()
for hold in (np.asarray, sparse.csr_matrix, lambda rows: frame.iloc[: len(rows)]):
    learner = modAL.models.ActiveLearner(LogisticRegression(), margin, hold(X[:4]), y[:4])
    learner.query(hold(X), n_instances=1)
    learner.teach(hold(X[4:]), y[4:])
    assert learner.X_training.shape == (6, 2), learner.X_training
    learner.fit(hold(X), y)
committee = modAL.models.Committee([modAL.models.ActiveLearner(LogisticRegression(), margin, X, y)], margin)
committee.teach(X, y)
assert len(committee.learner_list[0].X_training) == 12
mixed = frame.assign(b=list("xyzxyz"))
grown = add_row(mixed, mixed.iloc[0])
pd.testing.assert_frame_equal(grown, mixed.iloc[[*range(6), 0]])
print(sorted(set(repairs.states().values())))
"""
IMPORTS = ["import modAL.models", "from modal_ntk import margin"]


def _python(code, **environment):
    # Repaired unless a test says otherwise, also where this process is not.
    everything = {name: value for name, value in os.environ.items() if name != "MODAL_NTK_REPAIR"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=everything)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["modAL first", "modal_ntk first"])
def test_modals_own_learner_teaches(order):
    """Arrays, sparse matrices, frames and rows, its committee too, whichever is imported first, without a warning."""
    first, second = (IMPORTS[i] for i in order)
    states = ast.literal_eval(_python(OWN.format(first=first, second=second)))
    assert set(states) <= {repairs.ACTIVE, repairs.NOT_NEEDED}


@pytest.mark.skipif(repairs.states()[repairs.CHECKS] != repairs.ACTIVE, reason="this scikit-learn knows the old name")
def test_repairs_are_switched_off_and_taken_back():
    """With the variable nothing of modAL is replaced; restoring gives its own functions again, and its loader stays."""
    look = "import modAL.models.base as b, modAL.models.learners as l; from modal_ntk.environment import repairs as r; "
    ask = "c = getattr(b, 'check_X_y', None) or l.check_X_y; print(c.__module__)"
    loader = "import modAL.models as m; print(type(m.__loader__).__name__)"
    repaired, loaded, restored = _python("\n".join((look + ask, loader, "r.restore_modal(); " + ask))).split()
    assert (repaired, loaded) == ("modal_ntk.environment.repairs", "SourceFileLoader")
    assert restored.startswith("sklearn")
    assert _python(look + ask, MODAL_NTK_REPAIR="0").strip().startswith("sklearn")
    states = ast.literal_eval(_python(look + "print(list(r.states().values()))", MODAL_NTK_REPAIR="off"))
    assert repairs.OFF in states
    assert repairs.ACTIVE not in states


def test_another_modal_is_left_alone(monkeypatch):
    """Where modAL has no such name, or one of its own, nothing is replaced, and the clash stands with its remedies."""
    modules = [sys.modules[name] for name in repairs._MODULES if name in sys.modules]
    repairs.restore_modal()
    try:
        for module in modules:
            if hasattr(module, "check_X_y"):
                monkeypatch.setattr(module, "check_X_y", lambda X, y: None)
        repairs.apply_now()
        assert repairs.states()[repairs.CHECKS] == repairs.UNFIT
        assert not compatibility.is_mended(compatibility.MODAL_LEARNER)
        monkeypatch.setattr(compatibility, "_modal_learner_clashes", lambda: True)
        assert not compatibility.modal_learner_runs()
    finally:
        monkeypatch.undo()
        repairs.restore_modal()
        repairs.repair_modal()
