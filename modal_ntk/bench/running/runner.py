"""Comparisons that can be interrupted: every strategy against every seed, stored cell by cell."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from joblib import delayed
from sklearn.base import clone

from modal_ntk import checks
from modal_ntk.bench.experiment.datasets import Dataset, load_dataset
from modal_ntk.bench.experiment.naming import checked_strategies
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.loop.rounds import DRAWN, Round
from modal_ntk.bench.loop.simulation import SimulatedActiveLearning
from modal_ntk.bench.running.probing import lacking
from modal_ntk.bench.running.progress import Progress, mode_of
from modal_ntk.bench.running.workers import Workers, limited_threads, terminating, worker_number
from modal_ntk.bench.storage.manifest import manifest
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import IncompleteRunError, ModalNTKWarning

Cell = tuple[str, int]


def run(
    dataset: str | os.PathLike[str] | Dataset,
    strategies: Sequence[Any],
    *,
    out: str | os.PathLike[str],
    seeds: int | Sequence[int] = 3,
    n_initial: int = 20,
    batch_size: int | Sequence[int] = 20,
    n_rounds: int = 5,
    initial: Literal["random", "stratified", "query", "query_or_random"] = "random",
    reinitialise: bool = True,
    estimator: Any = None,
    metrics: Sequence[str] = (),
    jobs: int = 1,
    backend: str = "loky",
    threads: int | None = None,
    progress: bool | str = False,
) -> Store:
    """Compare strategies by replayed labelling; the same call again finishes what is missing.

    Parameters
    ----------
    dataset : str, path or Dataset
        As for `load_dataset`; the pool is its training part, scores are on its test part.
    strategies : sequence of str or mapping
        As for `Protocol`; the text names the strategy in the results.
    out : str or path
        Folder of the results.
    seeds : int or sequence of int, default=3
        Seeds, or how many from zero on. Within a seed all strategies start from the same labels, unless
        they choose these themselves.
    n_initial : int, default=20
        Labels before the first query.
    batch_size : int or sequence of int, default=20
        Labels added by each query.
    n_rounds : int, default=5
        Number of queries, where `batch_size` is one number.
    initial : {"random", "stratified", "query", "query_or_random"}, default="random"
        As for `SimulatedActiveLearning`.
    reinitialise : bool, default=True
        Whether each round trains anew, or continues by ``partial_fit`` from the weights of the round before.
    estimator : estimator, str or None, default=None
        What to train: an estimator, or a path as for `Protocol`; by default what suits the data.
    metrics : sequence of str, default=()
        Names of scikit-learn scorers to store beside the estimator's own score.
    jobs, backend, threads : int, str, int or None
        As for `run_protocol`.
    progress : bool or {"bar", "plain", "quiet"}, default=False
        How to show what is done and the time left: by a bar, by lines for a log, or not at all; True is a bar on a
        terminal and lines elsewhere.

    Returns
    -------
    Store
        The results.

    Raises
    ------
    ModalNTKError
        If anything asked for cannot be had; before any cell is run.
    """
    protocol = Protocol(
        dataset=dataset.name if isinstance(dataset, Dataset) else os.fspath(dataset),
        strategies=strategies,
        seeds=seeds,
        n_initial=n_initial,
        batch_size=batch_size,
        n_rounds=n_rounds,
        initial=initial,
        reinitialise=reinitialise,
        estimator=estimator if isinstance(estimator, str) else None,
        metrics=metrics,
    )
    return run_protocol(
        protocol,
        out=out,
        dataset=dataset if isinstance(dataset, Dataset) else None,
        estimator=None if isinstance(estimator, str) else estimator,
        workers=Workers(jobs=jobs, backend=backend, threads=threads),
        progress=progress,
    )


def run_protocol(
    protocol: Protocol,
    *,
    out: str | os.PathLike[str],
    dataset: Dataset | None = None,
    estimator: Any = None,
    workers: Workers | None = None,
    progress: bool | str = False,
) -> Store:
    """Run a protocol; the same call again finishes what is missing.

    Parameters
    ----------
    protocol : Protocol
        What to compare, and how.
    out : str or path
        Folder of the results.
    dataset : Dataset, optional
        The data, where they are not to be had by the name in the protocol.
    estimator : estimator, optional
        What to train, where it is not to be had by the protocol's path.
    workers : Workers, optional
        Where cells run; by default in this process, one after the other. The rows do not depend on it.
    progress : bool or {"bar", "plain", "quiet"}, default=False
        How to show what is done and the time left: by a bar, by lines for a log, or not at all; True is a bar on a
        terminal and lines elsewhere.

    Returns
    -------
    Store
        The results.

    Raises
    ------
    ModalNTKError
        If anything asked for cannot be had; before any cell is run.
    IncompleteRunError
        At the end, if some runs could not be run; names them, and why. All others are stored then.

    Warns
    -----
    ModalNTKWarning
        Before the first run, for each of several strategies that cannot work for the estimator.

    Notes
    -----
    More strategies, seeds and rounds may be added to a store. SIGTERM ends the workers, as Ctrl-C does; a worker that
    is killed costs the run it was at, and that only if it is killed again.
    """
    workers = Workers() if workers is None else workers
    plan = Plan.of(protocol, dataset=dataset, estimator=estimator)
    workers.check()
    mode = mode_of(progress, sys.stderr)
    failed = _lacking(plan, protocol, workers)
    store = Store(out)
    store.agree(protocol.shared(plan.data, plan.simulation.estimator, plan.batch_sizes))
    n_rounds = len(plan.batch_sizes) + 1
    done = store.finished(n_rounds)
    cells = [cell for cell in protocol.cells if cell not in done and cell not in failed]
    store.begin(manifest(protocol, {**workers.describe(), "given": plan.given}))

    def under_way() -> dict[Cell, int]:
        return {cell: n for cell, n in store.under_way().items() if cell in asked}

    def missing() -> Iterator[Cell]:
        # Looked at again when its turn comes: another process on the same store may have been there.
        for cell in cells:
            if cell in store.finished(n_rounds):
                shown.done(*cell)
            else:
                yield cell

    asked = set(cells)
    with terminating(), Progress(plan.data.name, len(cells), n_rounds, under_way, mode=mode) as shown:
        # Each cell is stored as it comes in, by this process alone.
        for label, seed, curve in plan.curves(missing(), workers, store.folder):
            if isinstance(curve, str):
                failed[label, seed] = curve
                continue
            store.add(label, seed, curve, paired=protocol.initial in DRAWN)
            shown.done(label, seed)
    if failed:
        raise IncompleteRunError(
            f"{_told(failed)}\nAll other runs are in {store.folder}; the same call tries these again."
        )
    return store


def _lacking(plan: Plan, protocol: Protocol, workers: Workers) -> dict[Cell, str]:
    reasons = {}
    if len(plan.strategies) > 1:  # a single one tells in its first run what it lacks
        device = workers.devices[0] if workers.devices else None
        reasons = lacking(plan.data, plan.simulation, plan.strategies, plan.batch_sizes, device)
    failed = {(label, seed): reasons[label] for label, seed in protocol.cells if label in reasons}
    if failed and len(reasons) == len(plan.strategies):
        raise IncompleteRunError(f"{_told(failed)}\nNothing was run.")
    for label, reason in reasons.items():
        message = f"{checks.one_line(label)} cannot be run, and is left out: {reason}"
        warnings.warn(message, ModalNTKWarning, stacklevel=3)
    return failed


def _told(failed: Mapping[Cell, str]) -> str:
    by_reason: dict[tuple[str, str], list[int]] = {}
    for (label, seed), reason in failed.items():
        by_reason.setdefault((checks.one_line(label), reason), []).append(seed)
    lines = [
        f"  {label}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: {reason}"
        for (label, reason), seeds in by_reason.items()
    ]
    return "\n".join([f"{len(failed)} runs could not be run:", *lines])


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
        self, cells: Iterable[Cell], workers: Workers, folder: Path | None = None
    ) -> Iterator[tuple[str, int, list[Round] | str]]:
        """Run cells.

        Parameters
        ----------
        cells : iterable of (str, int)
            Strategy and seed; read as workers come free.
        workers : Workers
            Where they run.
        folder : Path, optional
            Of a store that keeps each round as it ends, and where cells go on from; read and written by workers on
            this machine alone, as SQLite's locks do not reach others.

        Yields
        ------
        tuple of (str, int, list of Round)
            In the order in which they are done; of a cell that could not be run, why, in place of its rounds.
        """
        data = self.data
        # Large arrays are arguments of their own, so that joblib shares them among cells instead of sending them anew.
        held_out = (data.x_test, data.y_test, data.x_validation, data.y_validation)
        place = folder if workers.backend == "loky" else None
        bare = clone(self.simulation).set_params(evaluation_set=None, validation_set=None)

        def task(cell: Cell) -> Any:
            label, seed = cell
            simulation = clone(bare).set_params(query_strategy=self.strategies[label], random_state=seed)
            return delayed(_cell)(simulation, data.x_train, data.y_train, *held_out, label, seed, workers, place)

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
        alone: list[list[Cell]] = []
        while True:
            group = alone.pop() if alone else None
            with workers.parallel() as parallel:
                try:
                    for found in parallel(tasks(rest if group is None else group)):
                        running.discard(found[:2])
                        yield found
                    if group is None and not failed:
                        # A pool that ends may have asked for one more on another thread, which nobody has run.
                        if not running:
                            return
                        alone = [[cell] for cell in sorted(running)]
                except Exception as error:  # noqa: BLE001 - backends have classes of their own for it
                    if group is None:
                        alone = [[cell] for cell in sorted(running)]
                        running.difference_update(cell for [cell] in alone)
                    else:
                        reason = (
                            f"its worker was killed twice ({type(error).__name__}). Give it more memory, or lower jobs"
                        )
                        lost = [(*cell, reason) for cell in group]
                        running.difference_update(group)
                        yield from lost
            if failed:
                raise failed[0]


def _cell(
    simulation: Any,
    X: Any,
    y: Any,
    x_test: Any,
    y_test: Any,
    x_validation: Any,
    y_validation: Any,
    label: str,
    seed: int,
    workers: Workers,
    folder: Path | None,
) -> tuple[str, int, list[Round] | str]:
    try:
        return (
            label,
            seed,
            _curve(simulation, X, y, (x_test, y_test), (x_validation, y_validation), label, seed, workers, folder),
        )
    except Exception as error:  # noqa: BLE001 - one run that fails must not take the others along
        return label, seed, checks.one_line(f"{type(error).__name__}: {error}")


def _curve(
    simulation: Any,
    X: Any,
    y: Any,
    evaluation_set: tuple[Any, Any],
    validation_set: tuple[Any, Any],
    label: str,
    seed: int,
    workers: Workers,
    folder: Path | None,
) -> list[Round]:
    held_out = None if validation_set[0] is None else validation_set
    simulation.set_params(evaluation_set=evaluation_set, validation_set=held_out)
    if workers.devices:
        simulation.set_params(estimator__device=workers.devices[worker_number() % len(workers.devices)])
    rounds: dict[str, Any] = {}
    if folder is not None:
        store = Store(folder)
        past = store.noted(label, seed) or store.stored(label, seed)
        rounds = {"past": past, "on_round": partial(store.note, label, seed)}
    with limited_threads(workers.threads):
        return simulation.replay(X, y, **rounds).curve_
