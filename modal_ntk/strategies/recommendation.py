"""Which strategy to take where nothing else is known: what the committed study of all of them found."""

from __future__ import annotations

from typing import Any, Literal

from modal_ntk import checks, nets
from modal_ntk.strategies.base import QueryStrategy
from modal_ntk.strategies.baselines.uherding import UHerding
from modal_ntk.strategies.ntkcpl import NTKCPL

FEW = 10
"""Labels a class below which a net that is trained from its first layer on knows less than its inputs tell."""


def recommended(
    n_labeled: int, n_classes: int, learner: Any = None, *, features: Literal["fixed", "trained"] = "fixed"
) -> QueryStrategy:
    """Return the strategy that was best in our study for so many labels.

    Parameters
    ----------
    n_labeled : int
        Labels there are, zero before the first query.
    n_classes : int
        Classes there will be.
    learner : learner or estimator, optional
        Who will be asked. One that gives no probabilities is not recommended a strategy that reads some.
    features : {"fixed", "trained"}, default="fixed"
        Whether samples are rows of numbers that stay, such as the features of a frozen backbone or a table's columns;
        or inputs such as images, from which a net learns its features.

    Returns
    -------
    QueryStrategy
        A new one, at its defaults.

    Raises
    ------
    InvalidInputError
        If a number cannot be used.

    Notes
    -----
    The study is ``examples/reproduce/strategies.toml``, its figures ``examples/reproduce/results/strategies.md``: on
    fixed features UHerding, from one label a class to a hundred; where the features are trained, NTKCPL up to ten
    labels a class, which looks at the inputs themselves, and UHerding beyond. For a loop that goes from one to the
    other by itself write ``Switch([(NTKCPL(), 10 * n_classes), (UHerding(), None)])``.

    Examples
    --------
    >>> from modal_ntk import recommended
    >>> recommended(0, 10)
    UHerding()
    >>> recommended(40, 10, features="trained")
    NTKCPL()
    """
    checks.check_integer("n_labeled", n_labeled, minimum=0)
    checks.check_integer("n_classes", n_classes, minimum=2)
    checks.check_choice("features", features, ("fixed", "trained"))
    if features == "trained" and n_labeled < FEW * n_classes:
        return NTKCPL()
    if n_labeled and learner is not None and not _gives_probabilities(nets.NetView(learner)):
        return NTKCPL()
    return UHerding()


def _gives_probabilities(view: nets.NetView) -> bool:
    return view.offers("probabilities") if view.is_fitted else hasattr(view.estimator, "predict_proba")
