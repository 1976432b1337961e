"""Checks of single arguments: numbers, flags, choices, seeds, row numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np

from modal_ntk.checks.wording import expected


def _is_integer(value: Any) -> bool:
    # True is an integer to Python, and never what somebody meant by a number of samples.
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """Return `value` if it is one of `choices`.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        What was given.
    choices : iterable
        What may be given.

    Returns
    -------
    object
        `value`, unchanged.

    Raises
    ------
    InvalidInputError
        If it is none of them.
    """
    options = list(choices)
    if not any(value is option or (isinstance(value, str) and value == option) for option in options):
        listing = ", ".join(repr(option) for option in options)
        raise expected(f"{name} to be one of {listing}", repr(value), "Choose one of these.")
    return value


def check_integer(name: str, value: Any, *, minimum: int = 1, optional: bool = False) -> int:
    """Return `value` as an int of at least `minimum`.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        What was given.
    minimum : int, default=1
        The least admissible value.
    optional : bool, default=False
        Only changes the message: None is admissible where the caller asks for it.

    Returns
    -------
    int
        The value.

    Raises
    ------
    InvalidInputError
        If it is not an integer, or too small.

    Examples
    --------
    >>> check_integer("n_hidden", np.int64(3))
    3
    """
    if not _is_integer(value) or value < minimum:
        kind = f"{name} to be an integer of at least {minimum}{' or None' if optional else ''}"
        raise expected(kind, repr(value), f"Pass {name} as a whole number.")
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        What was given; "no" is a text, and would pass for true.

    Returns
    -------
    bool
        The value.

    Raises
    ------
    InvalidInputError
        If it is anything else.

    Examples
    --------
    >>> check_flag("reinitialise", False)
    False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise expected(f"{name} to be True or False", repr(value), "Write it without quotes.")
    return bool(value)


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float above zero.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        What was given.

    Returns
    -------
    float
        The value.

    Raises
    ------
    InvalidInputError
        If it is no finite number above zero.

    Examples
    --------
    >>> check_positive("rel_jitter", 1e-6)
    1e-06
    """
    if not _is_number(value) or not 0 < float(value) < np.inf:
        remedy = f"Pass {name} as a small number, such as 1e-6."
        raise expected(f"{name} to be a finite number above zero", repr(value), remedy)
    return float(value)


def check_instance(what: str, value: Any, *, keyword: str = "") -> None:
    """Check that an object was given, not its class.

    Parameters
    ----------
    what : str
        What would have been right, naming the argument.
    value : object
        What was given.
    keyword : str, default=""
        What stands before the object in a call, for the message.

    Raises
    ------
    InvalidInputError
        If it is a class.

    Examples
    --------
    >>> check_instance("a learner", 3)
    """
    if isinstance(value, type):
        remedy = f"Make an instance of it: {keyword}{value.__name__}()."
        raise expected(what, f"the class {value.__name__}", remedy)


def check_query_strategy(query_strategy: Any) -> None:
    """Check that a strategy can be called: an instance or a function, not the class of one.

    Parameters
    ----------
    query_strategy : object
        What was given.

    Raises
    ------
    InvalidInputError
        If it is a class or no callable.

    Examples
    --------
    >>> check_query_strategy(lambda learner, X_pool: [0])
    """
    check_instance("query_strategy to be a strategy", query_strategy, keyword="query_strategy=")
    if not callable(query_strategy):
        remedy = "Pass a strategy such as modal_ntk.ntkcpl or modal_ntk.NTKCPL()."
        raise expected("query_strategy to be callable", repr(query_strategy), remedy)


def check_number(name: str, value: Any, *, minimum: float = 0.0, maximum: float = np.inf) -> float:
    """Return `value` as a finite float between two bounds, both included.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        What was given.
    minimum, maximum : float, default=0 and infinity
        The bounds.

    Returns
    -------
    float
        The value.

    Raises
    ------
    InvalidInputError
        If it is no finite number, or out of bounds.

    Examples
    --------
    >>> check_number("mixture", 1, maximum=1)
    1.0
    """
    if not _is_number(value) or not np.isfinite(value) or not minimum <= value <= maximum:
        bounds = f"of at least {minimum:g}" if maximum == np.inf else f"between {minimum:g} and {maximum:g}"
        raise expected(f"{name} to be a finite number {bounds}", repr(value), f"Pass {name} as such a number.")
    return float(value)


def check_n_instances(n_instances: Any, n_pool: int) -> int:
    """Return the batch size if that many samples can be taken from the pool.

    Parameters
    ----------
    n_instances : int
        Number of samples asked for.
    n_pool : int
        Number of samples there are.

    Returns
    -------
    int
        `n_instances` as an int.

    Raises
    ------
    InvalidInputError
        If the pool is empty, or the number no integer between 1 and `n_pool`.
    """
    if n_pool == 0:
        raise expected("X_pool to hold at least one sample", "an empty pool", "Stop querying: all is labelled.")
    if not _is_integer(n_instances):
        raise expected("n_instances to be an integer", repr(n_instances), "Pass a whole number, such as 20.")
    if not 1 <= n_instances <= n_pool:
        remedy = f"Ask for between 1 and {n_pool} samples: a batch is never shortened silently."
        raise expected(f"n_instances to be between 1 and the pool's {n_pool} samples", n_instances, remedy)
    return int(n_instances)


def check_random_state(random_state: Any) -> np.random.Generator:
    """Make a local generator, leaving every global one and the caller's own untouched.

    Parameters
    ----------
    random_state : int, numpy Generator, numpy RandomState or None
        A seed; or a generator, which is read but not advanced, so that the same object gives the same
        picks; or None for fresh entropy.

    Returns
    -------
    numpy.random.Generator
        A generator nobody else holds.

    Raises
    ------
    InvalidInputError
        If it is none of these.

    Examples
    --------
    >>> int(check_random_state(0).integers(100)) == int(check_random_state(0).integers(100))
    True
    """
    if random_state is None:
        return np.random.default_rng()
    if _is_integer(random_state) and random_state >= 0:
        return np.random.default_rng(int(random_state))
    if isinstance(random_state, np.random.Generator):
        return copy.deepcopy(random_state)
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(copy.deepcopy(random_state).randint(2**31, size=4))
    kinds = "random_state to be a non-negative integer, a NumPy generator or None"
    raise expected(kinds, repr(random_state), "Pass a seed such as random_state=0.")


def check_rows(name: str, rows: Any, n: int | None, *, length: int | None = None) -> np.ndarray:
    """Return row numbers, or class numbers, as an int64 vector.

    Parameters
    ----------
    name : str
        The argument's name.
    rows : array-like (k,) of int
        Numbers from zero; distinct where they name rows.
    n : int or None
        How many rows there are; None for class numbers, which may repeat and have no upper end.
    length : int, optional
        How many numbers there must be.

    Returns
    -------
    numpy.ndarray (k,), int64
        A copy.

    Raises
    ------
    InvalidInputError
        If they are no integers, out of range, repeated, or of another number.
    """
    values = np.array(rows.detach().cpu().numpy() if hasattr(rows, "detach") else rows)
    if values.size == 0:
        values = values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        got = f"{values.dtype} of shape {values.shape}"
        raise expected(f"{name} to be a vector of integers", got, "Pass positions counted from zero.")
    if length is not None and len(values) != length:
        raise expected(f"{length} values in {name}, one for each row", f"{len(values)}", "Pass one for every row.")
    if len(values) and (values.min() < 0 or (n is not None and values.max() >= n)):
        end = "" if n is None else f" and below {n}"
        got = f"{values.min()} to {values.max()}"
        raise expected(f"{name} of at least 0{end}", got, "Count from zero.")
    ordered = np.sort(values)
    if n is not None and (ordered[1:] == ordered[:-1]).any():
        raise expected(f"distinct rows in {name}", "a row named twice", "Name every row once.")
    return values.astype(np.int64)
