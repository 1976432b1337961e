"""Torch for modules that listing the strategies imports: it is loaded when something of it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Late:
    """Stands for a module until an attribute of it is needed.

    Parameters
    ----------
    name : str
        The module's name.

    Notes
    -----
    Python's own ``LazyLoader`` enters the unloaded module in ``sys.modules``, where scikit-learn and SciPy look to know
    whether torch is in use, and thereby load it.

    Examples
    --------
    >>> numbers = Late("numbers")
    >>> issubclass(bool, numbers.Integral)
    True
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = Late("torch")
