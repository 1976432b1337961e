"""Comparisons that can be interrupted: every strategy against every seed, stored cell by cell."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from typing import Any, Literal

from joblib import Parallel, delayed
from sklearn.base import clone
from tqdm import tqdm

from modal_ntk import checks, host
from modal_ntk.bench.datasets import Dataset, load_dataset
from modal_ntk.bench.estimators import default_estimator
from modal_ntk.bench.simulation import Round, SimulatedActiveLearning
from modal_ntk.bench.store import Store
from modal_ntk.errors import InvalidInputError


def parse_strategy(text: str) -> Any:
    """Build a strategy from its name and parameters as written on a command line.

    Parameters
    ----------
    text : str
        ``name`` or ``name:parameter=value,parameter=value``; values are Python literals, else strings.

    Returns
    -------
    QueryStrategy
        A new instance.

    Raises
    ------
    InvalidInputError
        If a parameter is written badly or unknown to the strategy.
    UnknownNameError
        If there is no such strategy.

    Examples
    --------
    >>> parse_strategy("ntkcpl:max_clusters=50,variant=self")
    NTKCPL(max_clusters=50, variant='self')
    """
    name, _, rest = text.partition(":")
    strategy = host.get_strategy(name)
    known = strategy.get_params()
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            remedy = f"{name} knows {', '.join(sorted(known)) or 'no parameters'}."
            raise checks.expected(f"parameter=value in {text!r}", repr(part), remedy)
        strategy.set_params(**{key: _literal(value)})
    return strategy


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deep
        return value


def run(
    dataset: str | os.PathLike[str] | Dataset,
    strategies: Sequence[str],
    *,
    out: str | os.PathLike[str],
    seeds: int | Sequence[int] = 3,
    n_initial: int = 20,
    batch_size: int | Sequence[int] = 20,
    n_rounds: int = 5,
    initial: Literal["random", "stratified", "query"] = "random",
    reinitialise: bool = True,
    estimator: Any = None,
    jobs: int = 1,
    progress: bool = False,
) -> Store:
    """Compare strategies by replayed labelling; the same call again finishes what is missing.

    Parameters
    ----------
    dataset : str, path or Dataset
        As for `load_dataset`; the pool is its training part, scores are on its test part.
    strategies : sequence of str
        As for `parse_strategy`; the text names the strategy in the results.
    out : str or path
        Folder of the results.
    seeds : int or sequence of int, default=3
        Seeds, or how many from zero on. Within a seed all strategies start from the same labels, except
        with ``initial="query"``.
    n_initial : int, default=20
        Labels before the first query.
    batch_size : int or sequence of int, default=20
        Labels added by each query.
    n_rounds : int, default=5
        Number of queries, where `batch_size` is one number.
    initial : {"random", "stratified", "query"}, default="random"
        How the initial labels are chosen.
    reinitialise : bool, default=True
        Whether each round trains anew, or continues by ``partial_fit`` from the weights of the round before.
    estimator : estimator, optional
        What to train; by default what suits the data.
    jobs : int, default=1
        Cells run at once, through joblib.
    progress : bool, default=False
        Whether to show a progress bar over the cells.

    Returns
    -------
    Store
        The results.

    Raises
    ------
    ModalNTKError
        If anything asked for cannot be had; before any cell is run.
    """
    data = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    parsed = _parsed(strategies)
    wanted = list(range(checks.check_integer("seeds", seeds))) if isinstance(seeds, int) else list(seeds)
    model = default_estimator(data) if estimator is None else estimator
    simulation = SimulatedActiveLearning(
        model,
        None,
        n_initial=n_initial,
        batch_size=batch_size,
        n_rounds=n_rounds,
        initial=initial,
        reinitialise=reinitialise,
        evaluation_set=(data.x_test, data.y_test),
    )
    sizes = simulation.schedule(len(data.x_train))
    store = Store(out)
    protocol = {"dataset": data.name, "fingerprint": data.fingerprint, "estimator": " ".join(repr(model).split())}
    # Named where it is not the default, so that stores from before it was a choice still agree.
    continued = {} if reinitialise else {"reinitialise": False}
    store.agree({**protocol, "n_initial": n_initial, "batch_sizes": sizes, "initial": initial, **continued})
    done = store.finished()
    cells = [(label, seed) for seed in wanted for label in parsed if (label, seed) not in done]
    tasks = (
        delayed(_cell)(clone(simulation).set_params(query_strategy=parsed[label], random_state=seed), data, label, seed)
        for label, seed in cells
    )
    with tqdm(total=len(cells), desc=data.name, unit="run", disable=not progress) as bar:
        # Each cell is stored as it comes in, by this process alone.
        for label, seed, curve in Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks):
            store.add(label, seed, curve)
            bar.update()
    return store


def _parsed(strategies: Sequence[str]) -> dict[str, Any]:
    if isinstance(strategies, str) or not strategies:
        raise checks.expected("a list with at least one strategy", repr(strategies), "Name one, such as 'ntkcpl'.")
    parsed = {text: parse_strategy(text) for text in strategies}
    for text, strategy in parsed.items():
        try:
            strategy.check_params()
        except InvalidInputError as error:
            raise InvalidInputError(f"{text}: {error}") from error
    return parsed


def _cell(simulation: Any, data: Dataset, label: str, seed: int) -> tuple[str, int, list[Round]]:
    return label, seed, simulation.fit(data.x_train, data.y_train).curve_
