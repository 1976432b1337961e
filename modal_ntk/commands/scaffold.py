"""A new plugin from the template: a distribution of the user's own, installed, tested and used by name at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import modal_ntk
from modal_ntk import checks, host

_TEMPLATE = "epsilon_margin"
_IMPORTED = {"QueryStrategy", "Selection", "StrategySpec"}  # what the template's module has under these names


def new_plugin(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Write a distribution around one strategy, ready to be installed, tested and made one's own.

    Parameters
    ----------
    name : str
        What users will ask for: lower-case letters, digits and underscores, and nobody else's name.
    folder : str or path, optional
        Where to write; ``modal-ntk-NAME`` in the working directory by default. It must not be there, or be empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidInputError
        If the name cannot be used or is taken, or the folder holds something; nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> folder = new_plugin("my_margin", tempfile.mkdtemp())
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'modal_ntk_my_margin', 'pyproject.toml', 'tests']
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or _class_name(name) in _IMPORTED:
        what = "a name of lower-case letters and digits, words joined by underscores"
        raise checks.expected(what, repr(name), "Try my_margin.")
    taken = host.build_host().strategies.get(name)
    if taken is not None:
        got = f"{name}, which {taken.distribution} {taken.version} has"
        raise checks.expected("a name that no installed strategy has", got, "See modal-ntk strategies.")
    out = Path(f"modal-ntk-{name.replace('_', '-')}" if folder is None else folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise checks.expected("a folder that is not there, or empty", str(out), "Name another one, or move it away.")
    template = _template()
    # Everything is read before anything is written.
    sources = {path.relative_to(template): path.read_text(encoding="utf-8") for path in _files(template)}
    for relative, text in sources.items():
        target = out / _renamed(str(relative), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(_without_renaming_steps(text), name), encoding="utf-8")
    return out


def _renamed(text: str, name: str) -> str:
    spelt = {
        _TEMPLATE: name,
        _TEMPLATE.replace("_", "-"): name.replace("_", "-"),
        "EpsilonMargin": _class_name(name),
    }
    for old, new in spelt.items():
        text = text.replace(old, new)
    return text


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _without_renaming_steps(text: str) -> str:
    # What the template's page tells those who copy it by hand has been done.
    return re.sub(r"<!-- by hand -->.*?<!-- end -->\n", "", text, flags=re.DOTALL)


def _template() -> Path:
    # In the package where it is installed from a wheel; in the checkout where it runs from there.
    package = Path(modal_ntk.__file__).parent
    for folder in (package / "plugin_template", package.parent / "examples" / "plugin_template"):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise checks.expected("the plugin template beside the package", f"none in {package}", "Install modal-ntk again.")


def _files(template: Path) -> list[Path]:
    kinds = {".py", ".md", ".toml"}
    return sorted(path for path in template.rglob("*") if path.suffix in kinds and "__pycache__" not in path.parts)
