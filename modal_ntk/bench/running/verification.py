"""Cells of a store run again, and compared."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from modal_ntk import checks
from modal_ntk.bench.experiment.datasets import Dataset
from modal_ntk.bench.experiment.protocol import Protocol
from modal_ntk.bench.loop.rounds import Round, Row, row_of
from modal_ntk.bench.running.plan import Cell, Plan
from modal_ntk.bench.running.workers import Workers
from modal_ntk.bench.storage.store import Store
from modal_ntk.environment import compatibility
from modal_ntk.errors import InvalidInputError, ModalNTKError


@dataclass(frozen=True)
class Verification:
    """What came of running cells again.

    Parameters
    ----------
    cells : list of (str, int)
        Strategy and seed of each cell that was run.
    differences : list of str
        One sentence for each cell that came out otherwise, on the first round in which it did.
    versions : list of str
        Packages whose version is another one than when the store was written.
    """

    cells: list[Cell]
    differences: list[str]
    versions: list[str]

    def __str__(self) -> str:
        """Return it as text for people."""
        wrong = len(self.differences)
        lines = [f"{len(self.cells) - wrong} of {len(self.cells)} cells reproduced"]
        return "\n".join([*lines, *self.differences, *(f"note: {text}" for text in self.versions)])


def verify(
    out: str | os.PathLike[str],
    *,
    cells: int | list[Cell] = 1,
    dataset: Dataset | None = None,
    estimator: Any = None,
    protocol: Protocol | None = None,
    run_estimator: str | None = None,
    tolerance: float = 0.0,
    random_state: Any = 0,
    workers: Workers | None = None,
) -> Verification:
    """Run finished cells of a store again and compare every round: indices, scores, metrics, seeds.

    Parameters
    ----------
    out : str or path
        Folder of the store; read only.
    cells : int or list of (str, int), default=1
        How many, drawn at random; or which.
    dataset, estimator : Dataset and estimator, optional
        What the run was given as objects, which a store does not hold.
    protocol : Protocol, optional
        The caller's own, which must be that of the store; what is imported and called is then what this one names.
    run_estimator : str, optional
        The ``module:name`` that the store may have imported and called with the parameters that stand in the store.
        Not needed for the built-in estimators, nor with `estimator` or `protocol`.
    tolerance : float, default=0.0
        Largest difference between scores or metrics that counts as equal; indices are always compared exactly.
    random_state : int, numpy generator or None, default=0
        Seed of the draw.
    workers : Workers, optional
        Where cells run; by default in this process, with the threads of the store's last run.

    Returns
    -------
    Verification
        Which cells, and what differs.

    Raises
    ------
    InvalidInputError
        If the store has no such cells or no manifest, what the run was given is missing or another, `protocol` differs,
        or nobody but the store says what is to be called; nothing that it names has been imported then.

    Notes
    -----
    A store may come from anywhere. Strategies are looked up among those that are installed.
    """
    store = Store.open(out)
    stored_protocol, how, versions = _last_run(store)
    if protocol is None:
        protocol = stored_protocol
        if protocol.estimator is not None and estimator is None:
            _check_trusted(protocol, run_estimator)
    else:
        _check_same(protocol, stored_protocol)
    objects = {"dataset": dataset, "estimator": estimator}
    given = how.get("given", ())
    if missing := [name for name in objects if name in given and objects[name] is None]:
        remedy = f"Call modal_ntk.bench.verify(..., {'=..., '.join(missing)}=...) with what the run was given."
        raise checks.expected("what the run was given as objects", f"no {' and no '.join(missing)}", remedy)
    chosen = _chosen(store, cells, random_state)
    changed = dataclasses.replace(protocol, strategies=[label for label, _ in chosen])
    plan = Plan.of(changed, dataset=dataset, estimator=estimator)
    store.check_same(changed.shared(plan.data, plan.simulation.estimator, plan.batch_sizes))
    threads = how.get("threads")
    workers = Workers(threads=threads if isinstance(threads, int) else None) if workers is None else workers
    workers.check()
    stored: dict[Cell, list[Row]] = defaultdict(list)
    for row in store.rows():
        stored[row.strategy, row.seed].append(row)
    lengths = _lengths(store)
    differences = []
    for label, seed, curve in plan.curves(chosen, workers):
        if isinstance(curve, str):
            differences.append(f"{checks.one_line(label)}, seed {seed}: could not be run: {curve}")
        elif found := _difference(stored[label, seed], lengths, label, seed, curve, tolerance):
            differences.append(f"{checks.one_line(label)}, seed {seed}: {found}")
    return Verification(chosen, sorted(differences), _changes(versions))


def _last_run(store: Store) -> tuple[Protocol, dict[str, Any], dict[str, Any]]:
    manifests = store.manifests()
    if not manifests:
        remedy = "It was written by an early version; run its comparison again with this one."
        raise checks.expected(f"a manifest in {store.folder}", "none", remedy)
    last = manifests[-1]
    parts = [last.get(key) for key in ("protocol", "how", "versions")]
    if not all(isinstance(part, dict) for part in parts):
        got = f"one with {', '.join(sorted(map(checks.one_line, last)))}"
        raise checks.expected(f"a manifest with protocol, how and versions in {store.folder}", got, "It is damaged.")
    protocol, how, versions = (dict(part or {}) for part in parts)
    try:
        return Protocol.from_dict(protocol), how, versions
    except ModalNTKError as error:
        raise InvalidInputError(f"The protocol in {store.folder}: {checks.one_line(str(error))}") from error


def _check_trusted(protocol: Protocol, run_estimator: str | None) -> None:
    if run_estimator != protocol.estimator:
        path = repr(protocol.estimator)
        got = f"a store that names {path}, to be called with {dict(protocol.estimator_params)!r}"
        if run_estimator is not None:
            got += f", and {run_estimator!r}"
        remedy = "Pass the study's file (modal-ntk verify --protocol FILE.toml; in Python, protocol=), or estimator=. "
        remedy += f"If you trust the store: --run-estimator {path} (run_estimator={path})."
        raise checks.expected("to be told by the caller what is trained", got, remedy)


def _check_same(ours: Protocol, theirs: Protocol) -> None:
    # Strategies and seeds may be added to a store.
    here, there = ours.to_dict(), theirs.to_dict()
    differing = [name for name in here if name not in ("strategies", "seeds") and here[name] != there[name]]
    if differing:
        got = "; ".join(f"{name} {there[name]!r} there and {here[name]!r} here" for name in differing)
        raise checks.expected("protocol to be that of the store", got, "Pass the file that the store was made from.")


def _chosen(store: Store, cells: int | list[Cell], random_state: Any) -> list[Cell]:
    finished = sorted(store.finished())
    if isinstance(cells, list):
        for cell in cells:
            if cell not in finished:
                raise checks.unknown_name("finished cell", cell, [str(cell) for cell in finished])
        return cells
    n = min(checks.check_integer("cells", cells), len(finished))
    if n == 0:
        raise checks.expected(f"finished runs in {store.folder}", "none", "Let `modal-ntk bench` finish at least one.")
    rng = checks.check_random_state(random_state)
    return [finished[i] for i in np.sort(rng.choice(len(finished), n, replace=False))]


def _lengths(store: Store) -> set[int]:
    # How many rounds the runs on a store asked for: one that added rounds may not have come to every cell.
    protocols = [manifest["protocol"] for manifest in store.manifests() if isinstance(manifest.get("protocol"), dict)]
    sizes = [(protocol.get("batch_size"), protocol.get("n_rounds")) for protocol in protocols]
    asked = [len(size) if isinstance(size, list) else n for size, n in sizes]
    return {n + 1 for n in asked if isinstance(n, int)}


def _difference(
    stored: list[Row], lengths: set[int], label: str, seed: int, curve: list[Round], tolerance: float
) -> str:
    if len(stored) != len(curve) and not (len(stored) < len(curve) and len(stored) in lengths):
        return f"{len(stored)} rounds stored, {len(curve)} run"
    for old, entry in zip(stored, curve, strict=False):
        new = row_of(label, seed, old.round, entry)
        where = f"round {old.round}:"
        if (old.n_labels, old.indices) != (new.n_labels, new.indices):
            return f"{where} other samples were labelled"
        if old.fit_seed is not None and old.fit_seed != new.fit_seed:
            return f"{where} seed {old.fit_seed} stored, {new.fit_seed} run"
        for name in ("score", *sorted(old.metrics.keys() | new.metrics.keys())):
            a, b = ({"score": row.score, **row.metrics}.get(name, np.nan) for row in (old, new))
            if not abs(a - b) <= tolerance and not (np.isnan(a) and np.isnan(b)):
                return f"{where} {name} {a!r} stored, {b!r} run"
        if old.fit_seed is not None and not _near(old.scores, new.scores, tolerance):
            return f"{where} the strategy gave other scores"
    return ""


def _near(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, rtol=tolerance, atol=0, equal_nan=True))


def _changes(versions: dict[str, Any]) -> list[str]:
    now = compatibility.installed_versions()
    return [
        f"{name} was {versions[name]}, is {now[name]}" for name in now if versions.get(name, now[name]) != now[name]
    ]
