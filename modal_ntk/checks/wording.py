"""How an error is worded: what was expected, what was got, what to do; names nobody has, and modules not installed."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit
from urllib.request import url2pathname

from modal_ntk.errors import InvalidInputError, MissingExtraError, UnknownNameError


def expected(what: str, got: object, remedy: str) -> InvalidInputError:
    """Build the error for a bad argument.

    Parameters
    ----------
    what : str
        What would have been right, naming the argument.
    got : object
        What came instead: a string is a sentence and stands as it is, so pass ``repr(value)`` for a value that
        may be one; anything else is shown by ``repr``.
    remedy : str
        What the caller can do.

    Returns
    -------
    InvalidInputError
        To be raised by the caller.

    Examples
    --------
    >>> str(expected("n_instances to be at least 1", 0, "Ask for one sample or more."))
    'Expected n_instances to be at least 1, got 0. Ask for one sample or more.'
    """
    return InvalidInputError(f"Expected {what}, got {got if isinstance(got, str) else repr(got)}. {remedy}")


def unknown_name(kind: str, name: object, known: Collection[str], remedy: str = "") -> UnknownNameError:
    """Build the error for a name nobody has, with the near ones.

    Parameters
    ----------
    kind : str
        What the name should have named.
    name : object
        The name asked for.
    known : collection of str
        The names there are.
    remedy : str, default=""
        A further sentence.

    Returns
    -------
    UnknownNameError
        To be raised by the caller.

    Examples
    --------
    >>> str(unknown_name("strategy", "margn", ["entropy", "margin"]))
    "Unknown strategy 'margn'. Did you mean 'margin'? Known: entropy, margin."
    """
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listing = ", ".join(sorted(known)) or "none"
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} Known: {listing}.{' ' + remedy if remedy else ''}")


def one_line(text: str) -> str:
    r"""Make text from elsewhere fit to be printed: one line, without control characters, which a terminal obeys.

    Parameters
    ----------
    text : str
        What a plugin raised, a file holds, or a user called something.

    Returns
    -------
    str
        The same, with runs of white space and unprintable characters made one space.

    Examples
    --------
    >>> one_line("red \x1b[31m\n alert")
    'red [31m alert'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def check_installed(what: str, modules: Iterable[str], *, extra: str = "", distribution: str = "modal-ntk") -> None:
    """Check that optional modules are there, without importing them.

    Parameters
    ----------
    what : str
        What needs them: the subject of the message.
    modules : iterable of str
        Names under which they are imported.
    extra : str, default=""
        The extra that brings them; without one each is to be installed by its own name.
    distribution : str, default="modal-ntk"
        The distribution whose extra it is.

    Raises
    ------
    MissingExtraError
        If one is missing, with the command that installs it.

    Examples
    --------
    >>> check_installed("This example", ["numpy"])
    >>> check_installed("Search by neighbours", ["no_such_module"], extra="ann")
    Traceback (most recent call last):
    modal_ntk.errors.MissingExtraError: Search by neighbours needs no_such_module, which is not installed. Run:
    pip install ...[ann]"
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        wanted = _with_extra(distribution, extra) if extra else " ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"{what} needs {', '.join(missing)}, which {verb} not installed. Run: pip install {wanted}"
        )


def _with_extra(distribution: str, extra: str) -> str:
    # What was installed from a checkout is not to be looked for on an index.
    try:
        record = json.loads(importlib.metadata.distribution(distribution).read_text("direct_url.json") or "{}")
    except importlib.metadata.PackageNotFoundError:
        record = {}
    url = urlsplit(record.get("url", ""))
    if url.scheme != "file" or "dir_info" not in record:
        return f'"{distribution}[{extra}]"'
    editable = "-e " if record["dir_info"].get("editable") else ""
    return f'{editable}"{url2pathname(url.path)}[{extra}]"'


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
