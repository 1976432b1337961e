"""Strategies as text, the name under which their rows are stored, and back."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from modal_ntk import checks, host
from modal_ntk.errors import InvalidInputError


def parse_strategy(text: str) -> Any:
    """Build a strategy from its name and parameters as written on a command line.

    Parameters
    ----------
    text : str
        ``name`` or ``name:parameter=value,parameter=value``; values are Python literals, else strings.

    Returns
    -------
    QueryStrategy
        A new instance.

    Raises
    ------
    InvalidInputError
        If a parameter is written badly or unknown to the strategy.
    UnknownNameError
        If there is no such strategy.

    Examples
    --------
    >>> parse_strategy("ntkcpl:max_clusters=50,variant=al")
    NTKCPL(max_clusters=50, variant='al')
    """
    name, _, rest = text.partition(":")
    strategy = host.get_strategy(name)
    known = strategy.get_params()
    for part in _parts(rest):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            remedy = f"{name} knows {', '.join(sorted(known)) or 'no parameters'}."
            raise checks.expected(f"parameter=value in {text!r}", repr(part), remedy)
        strategy.set_params(**{key: _literal(value)})
    return strategy


def checked_strategies(texts: tuple[str, ...]) -> dict[str, Any]:
    """Build strategies from their texts, and have each check its parameters.

    Parameters
    ----------
    texts : tuple of str
        As for `parse_strategy`.

    Returns
    -------
    dict of str to QueryStrategy
        By text.

    Raises
    ------
    ModalNTKError
        If there is none of that name, or a parameter cannot be used.
    """
    parsed = {text: parse_strategy(text) for text in texts}
    for text, strategy in parsed.items():
        try:
            checks.check_parameters(strategy)
        except InvalidInputError as error:
            raise InvalidInputError(f"{text}: {error}") from error
    return parsed


def strategy_text(entry: Any) -> str:
    """Return a strategy's text: the entry itself, or a table's name and parameters in order.

    Parameters
    ----------
    entry : str or mapping
        Text as for `parse_strategy`, or a mapping with ``name`` and the parameters.

    Returns
    -------
    str
        From which `parse_strategy` builds the same strategy.

    Raises
    ------
    InvalidInputError
        If it is neither.

    Examples
    --------
    >>> strategy_text({"name": "albl", "strategies": ["margin", "entropy"], "delta": 0.1})
    "albl:strategies=['margin', 'entropy'],delta=0.1"
    """
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        remedy = 'Write "margin", or a table such as {name = "ntkcpl", max_clusters = 50}.'
        raise checks.expected("a strategy by name", repr(entry), remedy)
    params = ",".join(f"{key}={_written(value)}" for key, value in entry.items() if key != "name")
    return f"{entry['name']}:{params}" if params else entry["name"]


def _written(value: Any) -> str:
    # Bare words stay bare, so that a table and a command line give one strategy one name.
    if isinstance(value, str) and _literal(value) == value and not set(value) & set("'\"()[]{},\\"):
        return value
    return repr(value)


def _parts(text: str) -> Iterator[str]:
    # Commas inside brackets or quotes belong to a value.
    start, depth, quote, escaped = 0, 0, "", False
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and not escaped else quote
            escaped = c == "\\" and not escaped
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth <= 0:
            if i > start:
                yield text[start:i]
            start = i + 1
    if text[start:]:
        yield text[start:]


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deep
        return value
