"""Comparisons that can be interrupted: every strategy against every seed, stored cell by cell."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from modal_ntk import checks
from modal_ntk.bench.experiment.datasets import Dataset
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.loop.rounds import DRAWN
from modal_ntk.bench.running.plan import Cell, Plan
from modal_ntk.bench.running.progress import Progress, mode_of
from modal_ntk.bench.running.termination import terminating
from modal_ntk.bench.running.workers import Workers
from modal_ntk.bench.storage.claims import Claims
from modal_ntk.bench.storage.manifest import manifest
from modal_ntk.bench.storage.postgres import PostgresStore
from modal_ntk.bench.storage.store import Store
from modal_ntk.errors import IncompleteRunError, ModalNTKWarning


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
    store: str | None = None,
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
    store : str or None, default=None
        URL of a PostgreSQL database, ``postgresql://user@host/database``, where processes on several machines meet
        that are given the same `out` (extra ``postgres``). At the end `out` is brought up to what is there. None keeps
        the rows in `out` alone.

    Returns
    -------
    Store
        The results, in `out`.

    Raises
    ------
    ModalNTKError
        If anything asked for cannot be had; before any cell is run.
    StorageError
        If the rows cannot be stored; what was stored before is kept.
    IncompleteRunError
        At the end, if some runs could not be run; names them, and why. All others are stored then.

    Warns
    -----
    ModalNTKWarning
        Before the first run, for each of several strategies that cannot work for the estimator.

    Notes
    -----
    More strategies, seeds and rounds may be added to a store. Several processes may run the same protocol into one
    folder: each cell is run by one of them, and all end when every cell is there. SIGTERM ends the workers, as Ctrl-C
    does; a worker that is killed costs the run it was at, and that only if it is killed again.
    """
    workers = Workers() if workers is None else workers
    plan = Plan.of(protocol, dataset=dataset, estimator=estimator)
    workers.check()
    mode = mode_of(progress, sys.stderr)
    failed = _lacking(plan, protocol, workers)
    local = Store(out)
    met = None if store is None else PostgresStore(store, out)
    for each in (local, met) if met else (local,):
        each.agree(protocol.shared(plan.data, plan.simulation.estimator, plan.batch_sizes))
    _run_missing(plan, protocol, workers, met or local, failed, mode)
    if met:
        met.copy_to(local)
    if failed:
        raise IncompleteRunError(f"{_told(failed)}\nAll other runs are in {out}; the same call tries these again.")
    return local


def _run_missing(
    plan: Plan, protocol: Protocol, workers: Workers, store: Store, failed: dict[Cell, str], mode: str
) -> None:
    n_rounds = len(plan.batch_sizes) + 1
    done = store.finished(n_rounds)
    cells = [cell for cell in protocol.cells if cell not in done and cell not in failed]
    store.begin(manifest(protocol, {**workers.describe(), "given": plan.given}))

    def under_way() -> dict[Cell, int]:
        return {cell: n for cell, n in store.under_way().items() if cell in asked}

    asked = set(cells)
    showing = Progress(plan.data.name, len(cells), n_rounds, under_way, mode=mode)
    with terminating(), Claims(store, n_rounds) as claims, showing as shown:
        passes = claims.passes(cells, lambda cell: shown.done(*cell))
        curves = (plan.curves(free, workers, store) for free in passes)
        # Each cell is stored as it comes in, by this process alone.
        for label, seed, curve in chain.from_iterable(curves):
            if isinstance(curve, str):
                failed[label, seed] = curve
                claims.free((label, seed))
                continue
            store.add(label, seed, curve, paired=protocol.initial in DRAWN)
            shown.done(label, seed)


def _lacking(plan: Plan, protocol: Protocol, workers: Workers) -> dict[Cell, str]:
    reasons = {}
    if len(plan.strategies) > 1:  # a single one tells in its first run what it lacks
        reasons = plan.lacking(workers)
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
