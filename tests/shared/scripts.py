"""Scripts of examples/ run as by hand, in the tests' own process, which has torch loaded already."""

import contextlib
import io
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch

REPRODUCE = Path(__file__).parents[2] / "examples" / "reproduce"


def run_small(script, *arguments):
    """Run a script of examples/reproduce in its short form, and return what it prints."""
    path, before, threads, printed = REPRODUCE / script, set(sys.modules), torch.get_num_threads(), io.StringIO()
    with pytest.MonkeyPatch.context() as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here.setenv("MODAL_NTK_SMALL", "1")
        here.setenv("MPLBACKEND", "Agg")
        here.syspath_prepend(str(path.parent))
        here.setattr(sys, "argv", [str(path), *map(str, arguments)])
        try:
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(path), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
            # What lies beside it read the short form, too, and is read anew by whoever wants the long one.
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(path.parent)):
                    del sys.modules[name]
    return printed.getvalue()
