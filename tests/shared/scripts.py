"""Studies of examples/reproduce run as by hand, in the tests' own process, which has torch loaded already."""

import contextlib
import importlib
import io
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch

REPRODUCE = Path(__file__).parents[2] / "examples" / "reproduce"


def run_small(study, *arguments):
    """Run a study in its short form, and return what it prints."""
    threads, printed = torch.get_num_threads(), io.StringIO()
    long_form = _taken_out()
    with pytest.MonkeyPatch.context() as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here.setenv("MODAL_NTK_SMALL", "1")
        here.setenv("MPLBACKEND", "Agg")
        here.setattr(sys, "argv", [str(REPRODUCE), study, *map(str, arguments)])
        here.setattr(sys, "path", list(sys.path))
        try:
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(REPRODUCE), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
            _taken_out()
            sys.modules.update(long_form)
    return printed.getvalue()


def imported(study, monkeypatch):
    """The module of a study, which finds those beside it while the test lasts."""
    for folder in sorted({path.parent for path in REPRODUCE.rglob("*.py")}):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(study)


def _taken_out():
    # What lies beside a script reads at import whether the form is short, so no module serves both forms.
    beside = {name: module for name, module in sys.modules.items()
              if str(getattr(module, "__file__", "")).startswith(str(REPRODUCE))}  # fmt: skip
    for name in beside:
        del sys.modules[name]
    return beside
