"""Clauses on where a strategy is used: simulation, session, benchmark; and on pools that are nearly nothing."""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.base import clone

from modal_ntk import nets
from modal_ntk.bench import SimulatedActiveLearning
from modal_ntk.bench.storage.store import Store
from modal_ntk.checks import n_rows
from modal_ntk.errors import ModalNTKWarning, UnmetNeedError
from modal_ntk.labeling import LabelingSession
from modal_ntk.testing.situations import Situation
from modal_ntk.testing.trial import Trial, check_form, clause, require

N_INITIAL = 8
"""Labels that a simulation starts with; a session is told as many."""


def _home(trial: Trial) -> tuple[Situation, Any]:
    """Return the situation, and an unfitted copy of what its learner trains."""
    situation = trial.queryable()
    if n_rows(situation.X_labeled) < N_INITIAL + 3:
        raise SkipTest(f"the learner has fewer than {N_INITIAL + 3} labelled samples to replay")
    return situation, clone(nets.learners.estimator_of(situation.learner))


def _one_round(trial: Trial, estimator: Any) -> SimulatedActiveLearning:
    return SimulatedActiveLearning(
        estimator, clone(trial.strategy), n_initial=N_INITIAL, batch_size=2, n_rounds=1, random_state=3
    )


def _simulation(trial: Trial, situation: Situation, estimator: Any) -> None:
    simulation = _one_round(trial, estimator)
    curves = [clone(simulation).fit(situation.X_labeled, situation.y_labeled).curve_ for _ in range(2)]
    counts = [entry.n_labels for entry in curves[0]]
    require(counts == [N_INITIAL, N_INITIAL + 2], f"{[N_INITIAL, N_INITIAL + 2]} labels after the rounds", counts)
    picks = [curve[-1].indices.tolist() for curve in curves]
    require(picks[0] == picks[1], f"the picks {picks[0]} again from the simulation's seed", picks[1])


def _session(trial: Trial, situation: Situation, estimator: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.sqlite"
        session = LabelingSession(path, situation.X_labeled, estimator, clone(trial.strategy))
        for row, label in enumerate(np.asarray(situation.y_labeled).tolist()[:N_INITIAL]):
            session.tell(row, label)
        asked = session.ask(2)
        left = list(range(N_INITIAL, n_rows(situation.X_labeled)))
        require(len(set(asked.tolist()) & set(left)) == 2, f"two different rows of {left}", asked)


def _bench_cell(trial: Trial, situation: Situation, estimator: Any) -> None:
    simulation = _one_round(trial, estimator)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        # As a cell of a comparison: rounds are kept as they end, and the whole once it is done.
        simulation.replay(situation.X_labeled, situation.y_labeled, on_round=partial(store.note, "it", 3))
        store.add("it", 3, simulation.curve_)
        rows = store.rows()
    got = [len(row.indices) for row in rows]
    require(got == [N_INITIAL, 2], f"rounds of {[N_INITIAL, 2]} samples in the store", got)
    finite = all(np.isfinite(row.scores or 0.0).all() for row in rows)
    require(finite, "finite scores in the store", [row.scores for row in rows])


_USES = {"simulation": _simulation, "labelling session": _session, "cell of a benchmark": _bench_cell}


@clause(*_USES)
def works_where_strategies_are_used(trial: Trial) -> None:
    """A simulation, a labelling session and a cell of a benchmark run with the strategy, which need not have a seed."""
    situation, estimator = _home(trial)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModalNTKWarning)  # of so few samples
            _USES[trial.case](trial, situation, estimator)
    except UnmetNeedError as error:
        raise SkipTest(f"a plain fit does not give what the strategy needs: {error}") from error


_POOLS = {
    "a sample of zeros": lambda X: np.concatenate([X[:3], 0 * X[:1], X[3:9]]),
    "nothing but zeros": lambda X: 0 * X[:9],
    "one value throughout": lambda X: 0 * X[:9] + 3,
}


@clause(*_POOLS)
def takes_pools_that_are_nearly_nothing(trial: Trial) -> None:
    """Samples of zeros have no direction, and constant pools no spread: both are chosen from, with finite scores."""
    situation = trial.queryable()
    pool = _POOLS[trial.case](np.asarray(situation.X_pool))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModalNTKWarning)
        selected = situation.but(X_pool=pool).select(trial.fresh(), 4)
    check_form(selected, 4, len(pool))
