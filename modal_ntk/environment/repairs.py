"""Small repairs of modAL in its own namespace: of what newer scikit-learn and pandas took from it.

modAL passes scikit-learn an argument under a name that 1.8 dropped, and appends frames by a method that
pandas 2 dropped. Each repair replaces a name in modAL's own modules. `restore_modal` puts it back; the variable
``MODAL_NTK_REPAIR=0`` leaves modAL alone. What is not as modAL 0.4.1 and 0.4.2.1 have it stays.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

VARIABLE = "MODAL_NTK_REPAIR"
"""Environment variable that switches the repairs off: 0, no, off or false."""

ACTIVE, OFF, UNFIT, NOT_NEEDED = "active", f"switched off by {VARIABLE}", "does not fit this modAL", "not needed"

CHECKS = "checks by scikit-learn's new name"
FRAMES = "frames appended by pandas.concat"

_MODULES = ("modAL.models.base", "modAL.models.learners", "modAL.utils.data", "modAL.utils", "modAL.batch")
_replaced: list[tuple[ModuleType, str, Any]] = []


def is_switched_off() -> bool:
    """Tell whether the environment variable leaves modAL alone.

    Returns
    -------
    bool
        Whether it does.
    """
    return os.environ.get(VARIABLE, "").strip().lower() in ("0", "no", "off", "false")


def _checks_by_new_name(original: Callable[..., Any]) -> Callable[..., Any] | None:
    # scikit-learn 1.6 renamed the argument, 1.8 dropped the old name.
    if "ensure_all_finite" not in inspect.signature(original).parameters:
        return None

    def check_X_y(*args: Any, **kwargs: Any) -> Any:
        if "force_all_finite" in kwargs:
            kwargs["ensure_all_finite"] = kwargs.pop("force_all_finite")
        return original(*args, **kwargs)

    return check_X_y


def _appends_frames(original: Callable[..., Any]) -> Callable[..., Any] | None:
    import pandas as pd

    if hasattr(pd.DataFrame, "append"):
        return None

    def data_vstack(blocks: Sequence[Any]) -> Any:
        if isinstance(blocks[0], pd.DataFrame):  # below which a Series is a row
            blocks = [block.to_frame().T.infer_objects() if isinstance(block, pd.Series) else block for block in blocks]
        frames = isinstance(blocks[0], (pd.DataFrame, pd.Series))
        return pd.concat(list(blocks)) if frames else original(blocks)

    return data_vstack


# What each repair replaces, where that comes from in a modAL it fits, and with what.
_REPAIRS: dict[str, tuple[str, str, Callable[[Callable[..., Any]], Callable[..., Any] | None]]] = {
    CHECKS: ("check_X_y", "sklearn", _checks_by_new_name),
    FRAMES: ("data_vstack", "modAL", _appends_frames),
}


def apply_now() -> None:
    """Put the repairs in place; modAL is imported. Done twice it changes nothing more."""
    for name, source, make in _REPAIRS.values():
        for module in filter(None, map(sys.modules.get, _MODULES)):
            held = getattr(module, name, None)
            if held is None or not str(getattr(held, "__module__", "")).startswith(source):
                continue
            repaired = make(held)
            if repaired is not None:
                _replaced.append((module, name, held))
                setattr(module, name, repaired)


def restore_modal() -> None:
    """Put back every name that was replaced."""
    while _replaced:
        module, name, held = _replaced.pop()
        setattr(module, name, held)


def repair_modal() -> None:
    """Repair modAL, at once where it is imported already, else as soon as it is; unless switched off."""
    if is_switched_off():
        return
    if "modAL.models" in sys.modules:
        apply_now()
    elif not any(isinstance(finder, _OnceImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnceImported())


def states() -> dict[str, str]:
    """Return what became of each repair; modAL is imported to see.

    Returns
    -------
    dict of str to str
        "active", "not needed", "switched off by MODAL_NTK_REPAIR" or "does not fit this modAL", by the repair.

    Examples
    --------
    >>> list(states())
    ["checks by scikit-learn's new name", 'frames appended by pandas.concat']
    """
    try:
        for module in _MODULES:
            importlib.import_module(module)
    except ImportError:
        return dict.fromkeys(_REPAIRS, "modAL cannot be imported")
    found = {}
    for repair, (name, source, make) in _REPAIRS.items():
        if any(replaced == name for _, replaced, _ in _replaced):
            found[repair] = ACTIVE
            continue
        held = [getattr(sys.modules[module], name) for module in _MODULES if hasattr(sys.modules[module], name)]
        fitting = [value for value in held if str(getattr(value, "__module__", "")).startswith(source)]
        if not fitting:
            found[repair] = UNFIT
        else:
            found[repair] = NOT_NEEDED if make(fitting[0]) is None else OFF
    return found


class _OnceImported(importlib.abc.MetaPathFinder):
    """Waits for modAL to be imported, whose modules are then as their author wrote them but for the repairs."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find modAL's learners as ever, and have them repaired once they are there."""
        if fullname != "modAL.models":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Repairing(spec.loader)
        return spec


class _Repairing(importlib.abc.Loader):
    """A loader that hands over to another and applies the repairs afterwards."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module as its own loader does, which from here on is its loader."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        apply_now()
