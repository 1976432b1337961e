"""What may come from anywhere, such as files: whatever one holds, it is an error about the file, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modal_ntk.checks.wording import expected, one_line
from modal_ntk.errors import ModalNTKError


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Context in which whatever goes wrong says that a file is not what it should be; never a traceback.

    Parameters
    ----------
    what : str
        The file, or what else somebody gave, and what it should be.
    remedy : str
        What to do.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    InvalidInputError
        In place of any other error; those of this package pass.
    """
    try:
        yield
    except ModalNTKError:
        raise
    except Exception as error:
        # Whatever is damaged, the decoder in charge has an error of its own for it; that of a key is the key alone.
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError) or not str(error) else ""
        raise expected(what, one_line(f"{kind}{error}"), remedy) from error


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return how what a file was made for differs from what is asked for now.

    Parameters
    ----------
    there, here : dict of str to str
        By what is compared.

    Returns
    -------
    str
        On one line; nothing where they agree.
    """
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    parts = (f"{key} is {there.get(key, 'absent')} there and {here.get(key, 'absent')} here" for key in keys)
    return "; ".join(map(one_line, parts))
