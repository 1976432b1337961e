"""The commit of a checkout, found without running anything that the checkout names.

A checkout may come from anywhere, and its ``.git/config`` may name programs that every git command there starts. The
commit is therefore read from git's files, and what has changed since is asked of a git that is shown the index and the
objects, but a repository of its own without any configuration.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_LONGEST = 2**24  # bytes of a file of references that are read


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder is checked out at.

    Parameters
    ----------
    folder : Path
        A folder in the checkout.

    Returns
    -------
    str or None
        Its hexadecimal digits, with ``+changes`` where files that git follows differ from it, and ``+unknown`` where
        git cannot tell; None outside of a checkout.
    """
    try:
        folder = folder.resolve()
        root = next(place for place in (folder, *folder.parents) if (place / ".git").exists())
        own = _git_folder(root)
        common = own / _text(own / "commondir") if (own / "commondir").is_file() else own
        commit = _head(own, common)
    except (OSError, ValueError, StopIteration):
        return None
    return commit + _difference(root, own, common, commit)


def _git_folder(root: Path) -> Path:
    entry = root / ".git"
    if entry.is_dir():
        return entry
    name, _, path = _text(entry).partition(": ")  # of a linked work tree or a submodule
    if name != "gitdir":
        raise ValueError("no git folder")
    return root / path


def _text(path: Path) -> str:
    if path.stat().st_size > _LONGEST:
        raise ValueError("no file of git")
    return path.read_text(encoding="utf-8").strip()


def _head(own: Path, common: Path) -> str:
    found = _text(own / "HEAD")
    if found.startswith("ref: "):
        name = found[5:]
        if not re.fullmatch(r"refs(/[^/\s]+)+", name) or ".." in name:
            raise ValueError("no reference")
        loose = [place / name for place in (own, common) if (place / name).is_file()]
        packed = (line.split(" ", 1) for line in _text(common / "packed-refs").splitlines()) if not loose else ()
        found = _text(loose[0]) if loose else next(line[0] for line in packed if line[1:] == [name])
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found):
        raise ValueError("no commit")
    return found


def _difference(root: Path, own: Path, common: Path, commit: str) -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"]
    try:
        with tempfile.TemporaryDirectory() as bare:
            place = Path(bare)
            for name in ("objects", "refs"):
                (place / name).mkdir()
            (place / "HEAD").write_text(f"{commit}\n")
            # With its time, by which git knows what may have changed since.
            shutil.copy2(own / "index", place / "index")
            settings = {
                "GIT_DIR": bare,
                "GIT_WORK_TREE": str(root),
                "GIT_OBJECT_DIRECTORY": str(common / "objects"),
                # A filter of the user's own would be run on the checkout's files, if its attributes say so.
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "HOME": bare,
                "XDG_CONFIG_HOME": bare,
            }
            others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
            done = subprocess.run(
                command, env={**others, **settings}, cwd=bare, capture_output=True, check=True, timeout=10
            )
    except (OSError, subprocess.SubprocessError):
        return "+unknown"
    return "+changes" if done.stdout else ""
