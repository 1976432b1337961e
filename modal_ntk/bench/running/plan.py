"""A protocol made ready: its data, estimator and strategies, each tried once, and its cells handed to workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import delayed
from sklearn.base import clone

from modal_ntk import checks, config, nets
from modal_ntk.bench.experiment.datasets import Dataset, load_dataset
from modal_ntk.bench.experiment.naming import checked_strategies
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.loop.rounds import Round
from modal_ntk.bench.loop.simulation import SimulatedActiveLearning
from modal_ntk.bench.running.workers import Workers, limited_threads, worker_number
from modal_ntk.bench.storage.store import Store

Cell = tuple[str, int]

_N_TRIED = 100  # samples of the pool that a strategy is tried on before the first run


@dataclass(frozen=True)
class Plan:
    """A protocol with its data, estimator and strategies at hand, all checked.

    Parameters
    ----------
    data : Dataset
        Split as the protocol says.
    simulation : SimulatedActiveLearning
        One cell, but for its strategy and seed.
    strategies : dict of str to QueryStrategy
        By text.
    batch_sizes : list of int
        The schedule.
    given : list of str
        What came as an object, so that a protocol alone does not bring it back: "dataset", "estimator".
    """

    data: Dataset
    simulation: SimulatedActiveLearning
    strategies: dict[str, Any]
    batch_sizes: list[int]
    given: list[str]

    @classmethod
    def of(cls, protocol: Protocol, *, dataset: Dataset | None = None, estimator: Any = None) -> Plan:
        """Load, build and check everything.

        Parameters
        ----------
        protocol : Protocol
            What is asked for.
        dataset, estimator : Dataset and estimator, optional
            In place of what the protocol names.

        Returns
        -------
        Plan
            Ready to run.

        Raises
        ------
        ModalNTKError
            If anything cannot be had.
        """
        data = protocol.carved(load_dataset(protocol.dataset) if dataset is None else dataset)
        strategies = checked_strategies(tuple(protocol.strategies))
        simulation = SimulatedActiveLearning(
            protocol.build_estimator(data) if estimator is None else estimator,
            None,
            n_initial=protocol.n_initial,
            batch_size=protocol.batch_size,
            n_rounds=protocol.n_rounds,
            initial=protocol.initial,  # type: ignore[arg-type]  # checked by `schedule`
            reinitialise=protocol.reinitialise,
            evaluation_set=(data.x_test, data.y_test),
            validation_set=None if data.x_validation is None else (data.x_validation, data.y_validation),
            metrics=protocol.metrics,
            unlabeled_param=protocol.unlabeled_param,
        )
        objects = {"dataset": dataset, "estimator": estimator}
        given = [name for name, value in objects.items() if value is not None]
        return cls(data, simulation, strategies, simulation.schedule(len(data.x_train)), given)

    def curves(
        self, cells: Iterable[Cell], workers: Workers, store: Store | None = None
    ) -> Iterator[tuple[str, int, list[Round] | str]]:
        """Run cells.

        Parameters
        ----------
        cells : iterable of (str, int)
            Strategy and seed; read as workers come free.
        workers : Workers
            Where they run.
        store : Store, optional
            Keeps each round as it ends, and is where cells go on from; read and written by workers themselves, where
            they reach it: a file by those of this machine alone.

        Yields
        ------
        tuple of (str, int, list of Round)
            In the order in which they are done; of a cell that could not be run, why, in place of its rounds.
        """
        data = self.data
        # Large arrays are arguments of their own, so that joblib shares them among cells instead of sending them anew.
        arrays = (data.x_train, data.y_train, data.x_test, data.y_test, data.x_validation, data.y_validation)
        reached = store if store is not None and (store.is_reached_from_afar or workers.backend == "loky") else None
        bare = clone(self.simulation).set_params(evaluation_set=None, validation_set=None)

        def task(cell: Cell) -> Any:
            label, seed = cell
            simulation = clone(bare).set_params(query_strategy=self.strategies[label], random_state=seed)
            return delayed(_cell)(simulation, cell, workers, reached, *arrays)

        running: set[Cell] = set()
        failed: list[Exception] = []

        def tasks(some: Iterable[Cell]) -> Iterator[Any]:
            # What goes wrong here, in this process, is no worker's end: what is under way ends first, and it is raised.
            try:
                for cell in some:
                    running.add(cell)
                    yield task(cell)
            except Exception as error:  # noqa: BLE001 - raised below
                failed.append(error)

        # What a cell raises comes back as its result, so an exception here is a worker's end. Any of the cells under
        # way may be to blame: each is tried again by itself, so that only the one that ends its worker again is lost.
        rest = iter(cells)
        to_try: list[Cell] = []
        while True:
            alone = to_try.pop() if to_try else None
            with workers.parallel() as parallel:
                try:
                    for found in parallel(tasks(rest if alone is None else [alone])):
                        running.discard(found[:2])
                        yield found
                    # A pool that ends may have asked for one more on another thread, which nobody has run.
                    if alone is None and not running and not failed:
                        return
                except Exception as error:  # noqa: BLE001 - backends have classes of their own for it
                    if alone is not None:
                        running.discard(alone)
                        reason = f"its worker was killed twice ({type(error).__name__})"
                        yield *alone, f"{reason}. Give it more memory, or lower jobs"
            if failed:
                raise failed[0]
            if alone is None:
                to_try = sorted(running)

    def lacking(self, workers: Workers) -> dict[str, str]:
        """Try every strategy on a small query, and find those that cannot work for the estimator.

        Parameters
        ----------
        workers : Workers
            Whose first device, if any, is used.

        Returns
        -------
        dict of str to str
            What each of those lacks, by its text. An error that may be due to so small a query is left to the runs, and
            so is everything where the estimator cannot be fitted here.
        """
        simulation, X, y = self.simulation, self.data.x_train, self.data.y_train
        rows = np.random.default_rng(0).permutation(len(y))
        known, pool = rows[: simulation.n_initial], rows[simulation.n_initial :][:_N_TRIED]
        n_instances = min([*self.batch_sizes, len(pool) // 2])
        if n_instances < 1:
            return {}
        estimator, cold = clone(simulation.estimator), simulation.initial == "query"
        more = {} if simulation.unlabeled_param is None else {simulation.unlabeled_param: X[pool]}
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of so few samples
            try:
                if workers.devices:
                    estimator.set_params(device=workers.devices[0])
                with nets.seeded(0):
                    estimator = estimator if cold else estimator.fit(X[known], y[known], **more)
            except Exception:  # noqa: BLE001 - the runs will tell
                return {}
            for text, strategy in self.strategies.items():
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


def _cell(
    simulation: Any, cell: Cell, workers: Workers, store: Store | None, X: Any, y: Any, *held_out: Any
) -> tuple[str, int, list[Round] | str]:
    try:
        validation_set = None if held_out[2] is None else held_out[2:]
        simulation.set_params(evaluation_set=held_out[:2], validation_set=validation_set)
        if workers.devices:
            simulation.set_params(estimator__device=workers.devices[worker_number() % len(workers.devices)])
        rounds: dict[str, Any] = {}
        if store is not None:
            done = store.stored(*cell)
            rounds = {"past": done + store.noted(*cell, len(done)), "on_round": partial(store.note, *cell)}
        # The comparison has a bar of its own.
        with limited_threads(workers.threads), config.config_context(progress=False):
            return *cell, simulation.replay(X, y, **rounds).curve_
    except Exception as error:  # noqa: BLE001 - one run that fails must not take the others along
        return *cell, checks.one_line(f"{type(error).__name__}: {error}")
