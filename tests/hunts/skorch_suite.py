"""Has skorch's own tests of its classifier judge `WAALClassifier`, case by case.

Run by hand: ``python tests/hunts/skorch_suite.py [PYTEST'S OPTIONS]``. It runs the tests that the installed skorch
brings along twice, with its ``NeuralNetClassifier`` and with `WAALClassifier` in that one's place, and prints what
fails for ours alone. The module of a test becomes the extractor. In ``test_classifier`` the head comes after it. The
tests of ``test_net`` are about the net as such, make it before they have data, and look at its losses and epochs: there
the head is the identity, the critic finds its width itself, and what else is ours by default is skorch's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

from skorch.dataset import ValidSplit
from torch import nn

from modal_ntk.nets import WAALClassifier
from modal_ntk.nets.waal.critic_parts import FeaturesAndHead

JUDGED = "MODAL_NTK_JUDGED"
SUITES = ("skorch.tests.test_classifier", "skorch.tests.test_net")


class LazyCritic(nn.Sequential):
    """A critic that finds the width of the features itself."""

    def __init__(self):
        super().__init__(nn.LazyLinear(1), nn.Sigmoid())


class Seen(FeaturesAndHead):
    """Extractor and head, in which the tests find the attributes of the module that they gave."""

    def __getattr__(self, name):
        return super().__getattr__(name) if name in ("extractor", "head") else getattr(self.extractor, name)


class AsSkorchHasIt(WAALClassifier):
    """`WAALClassifier` with the defaults of skorch's classifier, and the plainest of the parts that it alone has."""

    def __init__(self, module, *, head=nn.Identity, critic=LazyCritic, **options):
        plain = {"criterion": nn.NLLLoss, "train_split": ValidSplit(5), "max_epochs": 10, "batch_size": 128}
        plain |= {"lr_decay": (), "patience": None, "momentum": 0.0}
        super().__init__(module, head=head, critic=critic, **{**plain, **options})

    def initialize_module(self):
        super().initialize_module()
        self.module_.__class__ = Seen
        return self


AsSkorchHasIt.__name__ = "NeuralNetClassifier"  # which messages name


def pytest_configure(config):
    """Put ours in the place of skorch's, before its tests are imported."""
    import skorch
    import skorch.classifier

    # The tests mark some of themselves as flaky, by a package that need not be there.
    sys.modules.setdefault("flaky", types.SimpleNamespace(flaky=lambda *_, **__: lambda test: test))
    judged = os.environ.get(JUDGED)
    if judged:
        ours = AsSkorchHasIt if judged.endswith("test_net") else WAALClassifier
        # Skorch's own module goes on knowing its class, by whose name it calls upwards.
        seen = types.ModuleType("skorch.classifier")
        vars(seen).update({**vars(skorch.classifier), "NeuralNetClassifier": ours})
        sys.modules["skorch.classifier"] = seen
        skorch.NeuralNetClassifier = ours


def failing(suite: str, judged: bool, options: list[str]) -> tuple[dict[str, str], str]:
    """Run the tests; return those that fail with the first words of why, and pytest's last line."""
    here = Path(__file__)
    environment = {**os.environ, JUDGED: suite if judged else ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parent), str(here.parents[2])])
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-W", "ignore", "-p", here.stem, "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(here.parent), "--tb=no", *options, "--pyargs", suite]
    output = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True).stdout
    found = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)(?: - (.*))?$", output, re.M)
    return dict(found), output.rstrip().rpartition("\n")[2]


if __name__ == "__main__":
    for suite in SUITES:
        theirs, told = failing(suite, False, sys.argv[1:])
        print(f"{suite}, skorch's: {told}", flush=True)
        ours, told = failing(suite, True, sys.argv[1:])
        print(f"{suite}, ours: {told}")
        for name, why in ours.items():
            if name not in theirs:
                print(f"{name}  {why}")
