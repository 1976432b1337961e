"""What the parameters of an estimator may be, in scikit-learn's terms, and the one check of them all.

`Interval`, `Options` and `StrOptions` are scikit-learn's own, from a private module that imbalanced-learn and
scikit-activeml build on as well; it is the same from 1.5 to 1.9. Only the words of the errors are ours.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import Options as Options
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._param_validation import make_constraint

from modal_ntk.checks.wording import expected

Constraints = dict[str, list[Any]]
"""For each parameter what it may be: one of a list, as in scikit-learn's ``_parameter_constraints``."""

COUNT = Interval(Integral, 1, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
SHARE = Interval(Real, 0, 1, closed="both")


def check_parameters(estimator: Any) -> None:
    """Check the parameters of an estimator: each by itself, then what they must be to each other.

    Parameters
    ----------
    estimator : object
        With constraints by parameter in ``_parameter_constraints``, and maybe a method ``_check_together`` for what
        these cannot say. A method ``check_params``, which strategies written for version 0.1.0 have, is called as well.

    Raises
    ------
    InvalidInputError
        For the first that cannot be used.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> constraints = {"n_init": [COUNT], "mode": [StrOptions({"heads", "tails"}), None]}
    >>> check_parameters(SimpleNamespace(n_init=3, mode=None, _parameter_constraints=constraints))
    >>> check_parameters(SimpleNamespace(n_init=3, mode="edge", _parameter_constraints=constraints))
    Traceback (most recent call last):
    modal_ntk.errors.InvalidInputError: Expected mode to be one of 'heads', 'tails' or None, got 'edge'. Choose one of
    these.
    """
    for name, allowed in getattr(estimator, "_parameter_constraints", {}).items():
        # A class that inherits constraints may lack a parameter of its base.
        if hasattr(estimator, name) and not any(_allows(one, getattr(estimator, name)) for one in allowed):
            what = " or ".join(map(_in_words, allowed))
            raise expected(f"{name} to be {what}", repr(getattr(estimator, name)), _remedy(name, allowed[0]))
    for method in ("_check_together", "check_params"):
        if hasattr(estimator, method):
            getattr(estimator, method)()


def _allows(constraint: Any, value: Any) -> bool:
    # True is a number to Python, and never what somebody meant by one.
    if isinstance(constraint, Interval) and isinstance(value, (bool, np.bool_)):
        return False
    return bool(make_constraint(constraint).is_satisfied_by(value))


def _in_words(constraint: Any) -> str:
    if isinstance(constraint, Options):
        return f"one of {', '.join(map(repr, sorted(constraint.options)))}"
    if isinstance(constraint, Interval):
        endless = constraint.closed == "both" and constraint.right is None
        kind = "an integer" if constraint.type is Integral else "a number" if endless else "a finite number"
        low = "of at least" if constraint.closed in ("left", "both") else "above"
        if constraint.right is None:
            return f"{kind} {low} {constraint.left or 'zero' if low == 'above' else constraint.left}"
        if constraint.closed == "both":
            return f"{kind} between {constraint.left} and {constraint.right}"
        return f"{kind} {low} {constraint.left} and at most {constraint.right}"
    words = {callable: "callable", str: "a string", "boolean": "True or False", "array-like": "a sequence"}
    return words.get(constraint, str(constraint))


def _remedy(name: str, constraint: Any) -> str:
    if isinstance(constraint, Options):
        return "Choose one of these."
    if isinstance(constraint, Interval):
        return f"Pass {name} as {'a whole' if constraint.type is Integral else 'such a'} number."
    words = {callable: "Pass a function.", "boolean": "Write it without quotes.", "array-like": "Put it in a list."}
    return words.get(constraint, "Pass one of these.")
