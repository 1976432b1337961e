"""What a comparison is, in one object: data, labels, schedule, estimator, strategies, seeds and metrics."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from sklearn.metrics import get_scorer_names

from modal_ntk import checks
from modal_ntk.bench.experiment.naming import strategy_text
from modal_ntk.bench.experiment.splits import carve
from modal_ntk.bench.loop.rounds import INITIAL
from modal_ntk.checks.files import reading
from modal_ntk.errors import ModalNTKError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from modal_ntk.bench.experiment.datasets import Dataset


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what the rows of a comparison are; how they are computed is not part of it.

    Parameters
    ----------
    dataset : str, default="digits"
        As for `load_dataset`.
    strategies : sequence of str or mapping
        As for `parse_strategy`, or mappings with ``name`` and the parameters; kept as text.
    seeds : int or sequence of int, default=3
        Seeds, or how many from zero on.
    n_initial : int, default=20
        Labels before the first query; within a seed the same for every strategy that does not choose them.
    batch_size : int or sequence of int, default=20
        Labels added by each query; a sequence gives one size for each round.
    n_rounds : int, default=5
        Number of queries, where `batch_size` is one number.
    initial : {"random", "stratified", "query", "query_or_random"}, default="random"
        As for `SimulatedActiveLearning`.
    reinitialise : bool, default=True
        Whether each round trains anew, or continues by ``partial_fit`` from the weights of the round before.
    estimator : str or None, default=None
        ``module:name`` of what is trained: a function, called with the `Dataset` and `estimator_params`, or a class,
        called with these alone. None takes `default_estimator` with them set. Importing runs the module, so take
        protocols only from where you would take a script.
    estimator_params : mapping, default={}
        Its parameters.
    test_size : float or None, default=None
        Share of all samples that is the test set, drawn anew with the classes' shares; None keeps the data's own.
    validation : int, default=0
        Samples taken from the training part and kept out of the pool, on which each round is scored too.
    imbalance : float or sequence of float, default=1
        How many times more samples the first class keeps in the pool than the last, falling geometrically between;
        or the share that each class keeps.
    pool_size : int or None, default=None
        Samples of the pool, drawn at random after that; None keeps all.
    split_seed : int, default=0
        Seed of these draws, the same for every seed of the comparison.
    metrics : sequence of str, default=()
        Names of scikit-learn scorers to store beside the estimator's own score.
    unlabeled_param : str or None, default=None
        Name of the fit parameter for the rows not labelled yet, for nets that train on them too.

    Examples
    --------
    >>> protocol = Protocol(strategies=["margin", {"name": "ntkcpl", "max_clusters": 50}], seeds=2, batch_size=[5, 10])
    >>> protocol.strategies, protocol.seeds
    (('margin', 'ntkcpl:max_clusters=50'), (0, 1))
    >>> Protocol.from_dict(protocol.to_dict()) == protocol
    True
    """

    dataset: str = "digits"
    strategies: Sequence[Any] = ()
    seeds: int | Sequence[int] = 3
    n_initial: int = 20
    batch_size: int | Sequence[int] = 20
    n_rounds: int = 5
    initial: str = "random"
    reinitialise: bool = True
    estimator: str | None = None
    estimator_params: Mapping[str, Any] = field(default_factory=dict)
    test_size: float | None = None
    validation: int = 0
    imbalance: float | Sequence[float] = 1.0
    pool_size: int | None = None
    split_seed: int = 0
    metrics: Sequence[str] = ()
    unlabeled_param: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.strategies, (str, Mapping)) or not self.strategies:
            got = repr(self.strategies)
            raise checks.expected("a list with at least one strategy", got, "Name one, such as 'ntkcpl'.")
        texts = tuple(dict.fromkeys(strategy_text(entry) for entry in self.strategies))
        self._check_types()
        seeds = self.seeds if _is_list(self.seeds) else range(_at_most("seeds", self.seeds, _MOST_SEEDS))
        checked = tuple(_at_most("every entry of seeds", seed, 2**63 - 1, minimum=0) for seed in seeds)
        self._set(strategies=texts, seeds=tuple(dict.fromkeys(checked)))
        for name in ("batch_size", "imbalance", "metrics"):
            if _is_list(getattr(self, name)):
                self._set(**{name: tuple(getattr(self, name))})
        _at_most("validation", self.validation, _MOST, minimum=0)
        _at_most("split_seed", self.split_seed, 2**32 - 1, minimum=0)
        if self.pool_size is not None:
            _at_most("pool_size", self.pool_size, _MOST)
        _at_most("n_initial", self.n_initial, _MOST)
        _at_most("n_rounds", self.n_rounds, _MOST, minimum=0)
        for size in self.batch_size if isinstance(self.batch_size, tuple) else (self.batch_size,):
            _at_most("every entry of batch_size", size, _MOST)
        for share in self.imbalance if isinstance(self.imbalance, tuple) else (self.imbalance,):
            checks.check_positive("imbalance", share)
        if self.test_size is not None and not 0 < checks.check_positive("test_size", self.test_size) < 1:
            raise checks.expected("test_size to be a share between 0 and 1", self.test_size, "Pass one such as 0.3.")
        if not _is_list(self.metrics):
            raise checks.expected("metrics to be a list of names", repr(self.metrics), "Put the names into a list.")
        for metric in self.metrics:
            if metric not in get_scorer_names():
                raise checks.unknown_name("metric", metric, get_scorer_names(), "They are scikit-learn's scorers.")

    def _check_types(self) -> None:
        if not isinstance(self.dataset, str) or not self.dataset:
            raise checks.expected("dataset to be a name or a path", repr(self.dataset), 'Write one, such as "digits".')
        checks.check_choice("initial", self.initial, INITIAL)
        checks.check_flag("reinitialise", self.reinitialise)
        for name in ("estimator", "unlabeled_param"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise checks.expected(f"{name} to be a text", repr(value), "Leave it out, or name one.")
        if not isinstance(self.estimator_params, Mapping) or not all(isinstance(k, str) for k in self.estimator_params):
            got = repr(self.estimator_params)
            raise checks.expected(
                "estimator_params to be a table of names and values", got, "Write params = { lr = 0.1 }."
            )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # frozen from here on for everybody else

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """Build a protocol from the keys and values of a file.

        Parameters
        ----------
        values : mapping
            By the names of the parameters; ``estimator`` may be a table with ``path`` and ``params``.

        Returns
        -------
        Protocol
            Checked.

        Raises
        ------
        InvalidInputError
            If a value cannot be used.
        UnknownNameError
            If a key is none of the parameters.
        """
        if not isinstance(values, Mapping):
            got = type(values).__name__
            raise checks.expected("a protocol to be a table of keys and values", got, "Write key = value.")
        given = dict(values)
        if isinstance(given.get("estimator"), Mapping):
            table = dict(given.pop("estimator"))
            given |= {"estimator": table.pop("path", None), "estimator_params": table.pop("params", {})}
            if table:
                raise checks.unknown_name("key of [estimator]", next(iter(table)), ["params", "path"])
        known = [f.name for f in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise checks.unknown_name("key of a protocol", name, known)
        return cls(**given)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Protocol:
        """Read a protocol from a TOML file, whose keys are the parameters.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        Protocol
            Checked.

        Raises
        ------
        ModalNTKError
            If the file cannot be read, or holds what is no protocol, or several.
        """
        found = cls.all_from_toml(path)
        if len(found) > 1:
            got = f"{len(found)}: {', '.join(found)}"
            raise checks.expected(f"{path} to name one data set", got, "Read them by Protocol.all_from_toml.")
        return next(iter(found.values()))

    @classmethod
    def all_from_toml(cls, path: str | os.PathLike[str]) -> dict[str, Protocol]:
        """Read every protocol of a TOML file, where ``dataset`` may be a list, or ``[parts.NAME]`` tables differ.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        dict of str to Protocol
            By the name of the part; of a list, by the name of the data set, that of its file without folder and ending.

        Raises
        ------
        ModalNTKError
            If the file cannot be read, or holds what is no protocol, or two data sets have one name.

        Notes
        -----
        A table ``[parts.NAME]`` holds what one part of a study has otherwise than the keys above it: its data set,
        schedule, imbalance, estimator.
        """
        remedy = 'Write one with keys such as dataset = "digits" and strategies = ["margin"].'
        with reading(f"{path} to be a TOML file", remedy):
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        try:
            return {name: cls.from_dict(part) for name, part in _parts(values, cls.dataset).items()}
        except ModalNTKError as error:
            raise type(error)(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON and TOML can hold.

        Returns
        -------
        dict
            By the names of the parameters.
        """
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @property
    def digest(self) -> str:
        """Digest of all of it, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Strategy and seed of everything to run, one seed after the other."""
        assert _is_list(self.seeds)  # made so on construction
        return [(label, seed) for seed in self.seeds for label in self.strategies]

    def carved(self, data: Dataset) -> Dataset:
        """Return a data set with the split, imbalance and pool size of the protocol.

        Parameters
        ----------
        data : Dataset
            As loaded.

        Returns
        -------
        Dataset
            The same object where the protocol changes nothing.
        """
        shares = self.imbalance if isinstance(self.imbalance, tuple) else float(self.imbalance)  # type: ignore[arg-type]
        return carve(
            data,
            test_size=self.test_size,
            n_validation=self.validation,
            imbalance=shares,
            pool_size=self.pool_size,
            seed=self.split_seed,
        )

    def build_estimator(self, data: Dataset) -> Any:
        """Build what is trained.

        Parameters
        ----------
        data : Dataset
            Handed to a factory.

        Returns
        -------
        estimator
            Unfitted.

        Raises
        ------
        InvalidInputError
            If the path leads nowhere or the parameters do not fit.
        """
        params = dict(self.estimator_params)
        if self.estimator is None:
            from modal_ntk.bench.experiment.estimators import default_estimator

            return default_estimator(data).set_params(**params)
        found = _imported(self.estimator)
        try:
            return found(**params) if isinstance(found, type) else found(data, **params)
        except TypeError as error:
            remedy = "Check [estimator]: a function is called with the data set and params, a class with params."
            raise checks.expected(f"{self.estimator} to take {params}", str(error), remedy) from error

    def shared(self, data: Dataset, estimator: Any, batch_sizes: Sequence[int]) -> dict[str, Any]:
        """Return what all cells of a store must have in common: all but strategies and seeds, of which more may come.

        Parameters
        ----------
        data : Dataset
            Carved.
        estimator : estimator
            What is trained.
        batch_sizes : sequence of int
            The schedule.

        Returns
        -------
        dict
            What JSON can hold. Parameters at their defaults are left out where older stores have no word for them.
        """
        new = {"reinitialise", "test_size", "validation", "imbalance", "pool_size", "split_seed", "metrics"}
        new |= {"unlabeled_param"}
        values, defaults = self.to_dict(), {f.name: f.default for f in dataclasses.fields(self)}
        return {
            "dataset": data.name,
            "fingerprint": data.fingerprint,
            "estimator": " ".join(repr(estimator).split()),
            "n_initial": self.n_initial,
            "batch_sizes": list(batch_sizes),
            "initial": self.initial,
            **{name: values[name] for name in sorted(new) if getattr(self, name) != defaults[name]},
        }


_MOST_SEEDS, _MOST = 10_000, 2**40  # what nobody means, and what would be counted for ever


def _at_most(name: str, value: Any, most: int, *, minimum: int = 1) -> int:
    if checks.check_integer(name, value, minimum=minimum) > most:
        raise checks.expected(f"{name} to be at most {most}", value, "Lower it.")
    return int(value)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return not isinstance(value, str) and isinstance(value, Sequence)


def _imported(path: str) -> Any:
    module, colon, name = path.partition(":")
    remedy = "Write module:name; the module must be importable, beside the file or by PYTHONPATH."
    if not colon or not module or not name:
        raise checks.expected("estimator to be module:name", repr(path), remedy)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise checks.expected(f"estimator {path!r} to be importable", str(error), remedy) from error


def _parts(values: Mapping[str, Any], default: str) -> dict[str, dict[str, Any]]:
    # What each protocol of a file is made from: by its table of differences, or by its entry in the list of data sets.
    common = {key: value for key, value in values.items() if key != "parts"}
    if "parts" in values:
        parts = values["parts"]
        plain = isinstance(parts, Mapping) and all(isinstance(part, Mapping) for part in parts.values())
        if not plain or not parts or any(Path(name).name != name for name in parts):
            remedy = "Write [parts.NAME] for each; results are kept in a folder of that name."
            raise checks.expected("parts to be tables with names for folders", parts, remedy)
        return {name: {**common, **part} for name, part in parts.items()}
    given = values.get("dataset", default)
    names = given if _is_list(given) else [given]
    found = {Path(name).stem: {**common, "dataset": name} for name in names if isinstance(name, str)}
    if not found or len(found) < len(names):
        remedy = "Name each data set once; results are kept by its name."
        raise checks.expected("dataset to be a name or a list of different ones", given, remedy)
    return found
