"""What a label may be, which class it is, and how it stands in a cell of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.writing import marked

LONGEST = 1000
"""Characters of the longest label."""


def plain(label: Any) -> Any:
    """Return a label as JSON holds it.

    Parameters
    ----------
    label : object
        Text, number or truth value, of Python or NumPy.

    Returns
    -------
    str, int, float or bool
        Of Python.

    Raises
    ------
    InvalidInputError
        If it is anything else, or text that is too long or cannot be kept.

    Examples
    --------
    >>> plain(np.int64(3)), plain(np.str_("cat"))
    (3, 'cat')
    """
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, (str, int, float)) or value != value or value in (float("inf"), float("-inf")):
        raise checks.expected("a label that is text, a number or a truth value", repr(label), "Convert it first.")
    if isinstance(value, str):
        if len(value) > LONGEST:
            got = f"{len(value)}, beginning with {value[:20]!r}"
            raise checks.expected(f"a label of at most {LONGEST} characters", got, "Keep long text beside the sample.")
        # NumPy takes a NUL at the end off; half of a pair of surrogates cannot be written as UTF-8.
        if re.search("[\0\ud800-\udfff]", value):
            raise checks.expected("a label of characters that can be written", repr(value), "Leave it out.")
    elif isinstance(value, int) and value.bit_length() > 1000:
        raise checks.expected("a label that is a number of at most 300 digits", "a longer one", "Name classes shortly.")
    return value


def kind(value: Any) -> str:
    """Return what kind of label a value is, in words."""
    return "text" if isinstance(value, str) else "a truth value" if isinstance(value, bool) else "a number"


def settled(label: Any, classes: Sequence[Any] | None, others: Iterable[Any]) -> Any:
    """Return the class that a label equals.

    Parameters
    ----------
    label : str, int, float or bool
        The label.
    classes : sequence or None
        What there may be.
    others : iterable
        The labels that are there already.

    Returns
    -------
    str, int, float or bool
        The class, as it was named, so that 1.0 is stored as 1 where there is a class 1; without classes the label there
        already that it equals, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of the classes, or of another kind than the others: 1 and "1" would be two classes.

    Examples
    --------
    >>> settled(1.0, [0, 1], ()), settled(2.0, None, [1, 2])
    (1, 2)
    """
    if (found := _known(label, others if classes is None else classes)) is not None:
        return found
    if classes is not None:
        listing = ", ".join(map(repr, classes))
        raise checks.expected(f"a label that is one of {listing}", repr(label), "Name one of the classes.")
    other = next(iter(others), None)
    if other is not None and kind(label) != kind(other):
        got = f"{label!r}, beside {other!r}"
        raise checks.expected(f"a label that is {kind(other)} like the others", got, "Keep to one kind of label.")
    return label


def _known(label: Any, values: Iterable[Any]) -> Any:
    return next((value for value in values if value == label and kind(value) == kind(label)), None)


def check_classes(classes: Sequence[Any]) -> list[Any]:
    """Return classes as JSON holds them.

    Parameters
    ----------
    classes : sequence
        Labels.

    Returns
    -------
    list
        Of Python's values.

    Raises
    ------
    InvalidInputError
        If there are fewer than two, two alike, or of different kinds.
    """
    values = [plain(label) for label in classes]
    if len(set(values)) != len(values) or len(values) < 2 or len({kind(value) for value in values}) > 1:
        raise checks.expected("two distinct classes or more, of one kind", repr(values), "Name each class once.")
    return values


def check_names(names: Sequence[str], n: int) -> list[str]:
    """Return names of samples as a list.

    Parameters
    ----------
    names : sequence of str
        One for each sample.
    n : int
        Number of samples.

    Returns
    -------
    list of str
        The names.

    Raises
    ------
    InvalidInputError
        If they are not n distinct texts, or one cannot be written.
    """
    found = [str(name) for name in names]
    if len(found) != n or len(set(found)) != n:
        got = f"{len(found)} with {len(set(found))} distinct"
        raise checks.expected(f"{n} distinct names, one for each sample", got, "Leave names out, or make them so.")
    if odd := next((name for name in found if re.search("[\0\ud800-\udfff]", name)), None):
        raise checks.expected("names of characters that files can hold", repr(odd), "Leave them out.")
    return found


def cell_of(label: Any) -> str:
    """Return a label as a cell of a table, from which `read_cell` gives it back.

    Parameters
    ----------
    label : str, int, float or bool
        The label.

    Returns
    -------
    str
        Text that would be read as a number or truth value is put in quotes, as JSON has it.
    """
    if not isinstance(label, str):
        return json.dumps(label)
    bare = isinstance(_literal(label), str) and label[:1] != '"' and label.strip()
    return marked(label) if bare else json.dumps(label)


def read_cell(cell: str, known: Sequence[Any]) -> Any:
    """Return the label that a cell means.

    Parameters
    ----------
    cell : str
        What `cell_of` has written, or what somebody has typed.
    known : sequence
        The classes, or the labels there are.

    Returns
    -------
    str, int, float or bool
        One of `known`, if the cell can be read as one: as written by `cell_of`, as it stands, without the white space
        around it, as text of it, or, among truth values, in any case. Else what `cell_of` would have written so.

    Examples
    --------
    >>> read_cell(" cat", ["cat", "dog"]), read_cell("1.50", ["1.50", "2"]), read_cell("TRUE", [True, False])
    ('cat', '1.50', True)
    >>> read_cell("1.0", [0, 1]), read_cell("7", ["7"]), read_cell("7", [])
    (1, '7', 7)
    """
    bare = cell.strip()
    for reading in (_literal(cell), cell, bare, _literal(bare)):
        if (found := _known(reading, known)) is not None:
            return found
    for value in known:
        if str(value) == bare or (isinstance(value, bool) and str(value).casefold() == bare.casefold()):
            return value
    return _literal(cell)


def _literal(cell: str) -> Any:
    if cell.startswith("'"):
        return cell[1:]
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, (str, int, float)) else cell
