"""Scorers of simulations, for searches."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import check_scoring

from modal_ntk import checks
from modal_ntk.bench.analysis.statistics import aubc
from modal_ntk.bench.loop.simulation import SimulatedActiveLearning


def area_score(simulation: SimulatedActiveLearning, X: Any, y: Any) -> float:
    """Score a simulation by the area under its budget curve; a scorer for searches.

    Parameters
    ----------
    simulation : SimulatedActiveLearning
        Fitted with ``keep_estimators=True``.
    X : samples (n, ...)
        What every round's estimator is scored on: in a search, the fold held out.
    y : array-like (n,)
        Its labels.

    Returns
    -------
    float
        `modal_ntk.bench.analysis.statistics.aubc` of the rounds' scores, by the simulation's ``scoring``.

    Raises
    ------
    InvalidInputError
        If the estimators were not kept.
    """
    if not hasattr(simulation, "estimators_"):
        remedy = "Pass keep_estimators=True."
        raise checks.expected("a simulation that kept its estimators", "one without", remedy)
    scores = [
        float(check_scoring(estimator, scoring=simulation.scoring)(estimator, X, y))
        for estimator in simulation.estimators_
    ]
    return aubc(np.array([entry.n_labels for entry in simulation.curve_]), np.array(scores))
