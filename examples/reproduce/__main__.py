"""The studies behind the pages of results, by name.

    python examples/reproduce                      the studies there are
    python examples/reproduce STUDY [ARGUMENTS]    run one; --help says with what

A study is a script of a folder beside this one. What several share lies beside this one, too.
"""

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FOLDERS = [FOLDER, *sorted({path.parent for path in FOLDER.glob("*/*.py")})]


def studies():
    """First lines of the scripts, by name."""
    scripts = [path for folder in FOLDERS for path in sorted(folder.glob("*.py")) if path.stem != "__main__"]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in scripts}
    runnable = {name: ast.parse(text) for name, text in texts.items() if "\nif __name__ ==" in text}
    return {name: ast.get_docstring(tree).splitlines()[0] for name, tree in runnable.items()}


def main(name=None, *arguments):
    """Run a study as its own script, or say which there are."""
    known = studies()
    if name not in known:
        listed = "\n".join(f"  {study:22s}{line}" for study, line in known.items())
        raise SystemExit(f"expected a study, got {name}:\n{listed}" if name else listed)
    sys.path[:0] = [str(folder) for folder in FOLDERS]
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
