"""Clauses on the ways of modAL, whichever version is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from unittest import SkipTest
from unittest.mock import Mock

import modAL.models
import numpy as np

from modal_ntk import checks, nets
from modal_ntk.environment import compatibility
from modal_ntk.testing.situations import Situation
from modal_ntk.testing.trial import Trial, clause, require


def _active_learner(kind: str, situation: Situation, strategy: Any) -> tuple[Any, dict[str, Any]]:
    """Return a taught learner of a class, and what its query must be told besides the pool."""
    estimator = nets.learners.estimator_of(situation.learner)
    known = {"X_labeled": situation.X_labeled, "y_labeled": situation.y_labeled}
    if kind == "modal_ntk.ActiveLearner":
        make: Callable[..., Any] = nets.ActiveLearner
    elif not compatibility.modal_learner_runs():
        raise SkipTest(str(compatibility.MODAL_LEARNER))
    elif kind == "modAL ActiveLearner":
        make = modAL.models.ActiveLearner
    elif hasattr(modAL.models, "DeepActiveLearner"):
        learner = modAL.models.DeepActiveLearner(estimator, strategy)
        learner.teach(situation.X_labeled, situation.y_labeled)
        return learner, known
    else:
        raise SkipTest("modAL 0.4.1 has no DeepActiveLearner")
    with warnings.catch_warnings():
        # modAL passes scikit-learn an argument under its former name.
        warnings.simplefilter("ignore", FutureWarning)
        return make(estimator, strategy, situation.X_labeled, situation.y_labeled), {}


_CLASSES = ("modal_ntk.ActiveLearner", "modAL ActiveLearner", "modAL DeepActiveLearner")


@clause(*_CLASSES)
def answers_modal_in_its_own_way(trial: Trial) -> None:
    """learner.query gives (indices, their rows) on the installed modAL, for batches of one, two and three."""
    situation = trial.queryable()
    learner, extra = _active_learner(trial.case, situation, trial.fresh())
    for n_instances in (1, 2, 3):
        indices, rows = learner.query(situation.X_pool, n_instances=n_instances, **extra)
        shape = np.shape(indices)
        require(shape == (n_instances,), f"{n_instances} indices from query", f"shape {shape}")
        same = np.array_equal(np.asarray(rows), np.asarray(situation.X_pool)[indices])
        require(same, "the rows at the indices from query", "others")


@clause("success", "error", "interrupt")
def works_once_per_query(trial: Trial) -> None:
    """One query does the work once, and an error comes back at once and unchanged, a Ctrl-C too."""
    situation = trial.queryable()
    copy = trial.fresh()
    error = {"success": None, "error": RuntimeError("out of memory"), "interrupt": KeyboardInterrupt()}[trial.case]
    learner, _ = _active_learner("modal_ntk.ActiveLearner", situation, copy)
    copy.select = Mock(wraps=copy.select, side_effect=error)
    raised: BaseException | None = None
    try:
        learner.query(situation.X_pool, n_instances=3)
    except (RuntimeError, KeyboardInterrupt) as got:
        raised = got
    require(raised is error, f"{error!r}", f"{raised!r}")
    calls = copy.select.call_count
    require(calls == 1, "one call of select for one query", f"{calls} calls")


@clause(*_CLASSES[:2])
def goes_on_through_rounds_of_teaching(trial: Trial) -> None:
    """Query and teach go on by turns: the labelled set grows and every pick is in what is left of the pool."""
    situation = trial.queryable()
    learner, _ = _active_learner(trial.case, situation, trial.fresh())
    pool = situation.X_pool
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for n_round in range(1, 4):
            indices, rows = learner.query(pool, n_instances=3)
            require(len(set(indices.tolist())) == 3, "three distinct picks", indices)
            learner.teach(rows, situation.y_labeled[:3])
            pool = np.delete(pool, indices, axis=0)
            n_labeled = len(learner.X_training)
            wanted = checks.n_rows(situation.X_labeled) + 3 * n_round
            require(n_labeled == wanted, f"{wanted} labelled samples", n_labeled)
