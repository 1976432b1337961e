"""Every strategy tried on a small query before the first run, so that none stops a comparison when its turn comes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import clone

from modal_ntk import checks, nets
from modal_ntk.bench.experiment.datasets import Dataset

N_POOL = 100
"""Samples of the pool that a strategy is tried on."""


def lacking(
    data: Dataset,
    simulation: Any,
    strategies: Mapping[str, Any],
    batch_sizes: Iterable[int],
    device: str | None = None,
) -> dict[str, str]:
    """Find the strategies that cannot work for the estimator.

    Parameters
    ----------
    data : Dataset
        Of the comparison.
    simulation : SimulatedActiveLearning
        One run, but for its strategy and seed.
    strategies : dict of str to QueryStrategy
        By text.
    batch_sizes : iterable of int
        The schedule.
    device : str, optional
        For the estimator's ``device``; its own by default.

    Returns
    -------
    dict of str to str
        What each of those lacks, by its text. An error that may be due to so small a query is left to the runs, and so
        is everything where the estimator cannot be fitted here.
    """
    rows = np.random.default_rng(0).permutation(len(data.y_train))
    known, pool = rows[: simulation.n_initial], rows[simulation.n_initial :][:N_POOL]
    n_instances = min([*batch_sizes, len(pool) // 2])
    if n_instances < 1:
        return {}
    X, y = data.x_train, data.y_train
    estimator, cold = clone(simulation.estimator), simulation.initial == "query"
    more = {} if simulation.unlabeled_param is None else {simulation.unlabeled_param: X[pool]}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few samples
        try:
            if device is not None:
                estimator.set_params(device=device)
            with nets.seeded(0):
                estimator = estimator if cold else estimator.fit(X[known], y[known], **more)
        except Exception:  # noqa: BLE001 - the runs will tell
            return {}
        for text, strategy in strategies.items():
            learner = nets.ActiveLearner(estimator, clone(strategy, safe=False))
            if not cold:
                learner.X_training, learner.y_training = X[known], y[known]
            try:
                learner.query(X[pool], n_instances=n_instances)
            except ValueError:
                pass  # a sample of the pool may be too small for it
            except Exception as error:  # noqa: BLE001 - whatever it is, this strategy cannot be run
                found[text] = checks.one_line(f"{type(error).__name__}: {error}")
    return found
