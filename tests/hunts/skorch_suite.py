"""Has skorch's own tests of its classifier judge `WAALClassifier`, case by case.

Run by hand: ``python tests/hunts/skorch_suite.py [PYTEST'S OPTIONS]``. It runs the tests that the installed skorch
brings along twice, with its ``NeuralNetClassifier`` and with `WAALClassifier` in that one's place, and prints what
fails for ours alone. The module of a test becomes the extractor; the head comes after it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

JUDGED = "MODAL_NTK_JUDGED"
SUITES = ("skorch.tests.test_classifier", "skorch.tests.test_net")


def pytest_configure(config):
    """Put ours in the place of skorch's, before its tests are imported."""
    import skorch
    import skorch.classifier

    # The tests mark some of themselves as flaky, by a package that need not be there.
    sys.modules.setdefault("flaky", types.SimpleNamespace(flaky=lambda *_, **__: lambda test: test))
    if os.environ.get(JUDGED):
        from modal_ntk.nets import WAALClassifier

        # Skorch's own module goes on knowing its class, by whose name it calls upwards.
        seen = types.ModuleType("skorch.classifier")
        vars(seen).update({**vars(skorch.classifier), "NeuralNetClassifier": WAALClassifier})
        sys.modules["skorch.classifier"] = seen
        skorch.NeuralNetClassifier = WAALClassifier


def failing(judged: bool, options: list[str]) -> tuple[dict[str, str], str]:
    """Run the tests; return those that fail with the first words of why, and pytest's last line."""
    here = Path(__file__)
    environment = {**os.environ, JUDGED: "1" if judged else ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parent), str(here.parents[2])])
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-W", "ignore", "-p", here.stem, "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(here.parent), "--tb=no", *options, "--pyargs", *SUITES]
    output = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True).stdout
    found = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)(?: - (.*))?$", output, re.M)
    return dict(found), output.rstrip().rpartition("\n")[2]


if __name__ == "__main__":
    theirs, told = failing(False, sys.argv[1:])
    print(f"skorch's: {told}", flush=True)
    ours, told = failing(True, sys.argv[1:])
    print(f"ours: {told}")
    for name, why in ours.items():
        if name not in theirs:
            print(f"{name}  {why}")
