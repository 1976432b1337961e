"""Settings of the library, in the manner of scikit-learn's `set_config`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from modal_ntk import checks

Progress = Literal["auto"] | bool

_everywhere: dict[str, Any] = {"progress": "auto"}
_here: ContextVar[dict[str, Any] | None] = ContextVar("modal_ntk_config", default=None)


def get_config() -> dict[str, Any]:
    """Return the settings in force.

    Returns
    -------
    dict
        A copy, by name.

    Examples
    --------
    >>> get_config()
    {'progress': 'auto'}
    """
    return {**_everywhere, **(_here.get() or {})}


def set_config(*, progress: Progress | None = None) -> None:
    """Change settings, for all that comes after.

    Parameters
    ----------
    progress : {"auto", True, False} or None, default=None
        Whether work that takes longer than a second shows how far it is. "auto", the setting at the start, shows a bar
        on a terminal and in a notebook, and nothing in logs, pipes and worker processes. True shows it everywhere and
        ends with the seconds of each stage, as ``verbose=1`` of one object does. False shows nothing, whatever
        ``verbose`` says. None changes nothing.

    Raises
    ------
    InvalidInputError
        If there is no such setting.

    See Also
    --------
    config_context : For a while.

    Examples
    --------
    >>> set_config(progress=False)
    >>> get_config()["progress"]
    False
    >>> set_config(progress="auto")
    """
    _everywhere.update(_checked(progress))


@contextmanager
def config_context(*, progress: Progress | None = None) -> Iterator[None]:
    """Change settings within a ``with`` block, in this thread.

    Parameters
    ----------
    progress : {"auto", True, False} or None, default=None
        As for `set_config`.

    Examples
    --------
    >>> with config_context(progress=True):
    ...     get_config()["progress"]
    True
    """
    token = _here.set({**(_here.get() or {}), **_checked(progress)})
    try:
        yield
    finally:
        _here.reset(token)


def _checked(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        return {}
    return {"progress": checks.check_choice("progress", progress, ("auto", True, False))}
