"""One plugin at a time: found in the metadata of the installed distributions, loaded, and checked.

Whatever a plugin does wrong comes out of here as a `PluginFailure`, so that the host goes on with the others.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, NamedTuple

import pluggy

from modal_ntk import checks, hooks
from modal_ntk.errors import PluginError
from modal_ntk.hooks import API_VERSION, NAMESPACE, NEEDS, StrategySpec

OWN = "modal-ntk"
"""The distribution whose plugins are the built-in strategies."""

_UNKNOWN = "an unknown distribution"
SLOW_SECONDS = 2.0
"""A plugin that takes longer to import is reported: every listing waits for it."""


class Origin(NamedTuple):
    """Where a plugin comes from.

    Parameters
    ----------
    name : str
        Name of its entry point.
    distribution : str
        Name of the installed distribution.
    version : str
        Version of the distribution.
    """

    name: str
    distribution: str
    version: str


@dataclass(frozen=True)
class PluginFailure:
    """A plugin with something wrong, and what.

    Parameters
    ----------
    name : str
        Name of its entry point.
    distribution : str
        Name of the distribution that brought it.
    reason : str
        The error in one line.
    traceback : str
        The whole of it; empty where nothing was raised.
    version : str
        Version of the distribution.
    kind : str
        "failed": left out; "duplicate": one of its strategies is left out, as the name is taken; "slow": all of
        it works, but importing it takes long.
    """

    name: str
    distribution: str
    reason: str
    traceback: str = ""
    version: str = ""
    kind: str = "failed"

    def __str__(self) -> str:
        """Return the whole report in one line."""
        outcome = {"failed": "is left out", "duplicate": "is left out in part", "slow": "is slow"}[self.kind]
        return f"Plugin {self.name!r} of {self.distribution} {outcome}: {self.reason}"


def installed() -> tuple[list[tuple[EntryPoint, Distribution]], list[PluginFailure]]:
    """Find the plugins of all installed distributions, without importing any.

    Returns
    -------
    list of (EntryPoint, Distribution)
        The built-in ones first, then by name of distribution and entry point: who comes first keeps a name
        that two claim.
    list of PluginFailure
        Distributions whose entry points cannot be read.
    """
    found: dict[tuple[str, str], tuple[EntryPoint, Distribution]] = {}
    failures, seen = [], set[str]()
    for distribution in distributions():
        try:
            entry_points = [e for e in distribution.entry_points if e.group == NAMESPACE]
        except Exception as error:  # noqa: BLE001 - a damaged file of another distribution must not end the search
            if f"[{NAMESPACE}]" in _entry_point_text(distribution):
                origin = origin_of(EntryPoint("entry_points.txt", "", NAMESPACE), distribution)
                failures.append(failure(origin, error))
            continue
        if not entry_points:
            continue
        name = same(origin_of(entry_points[0], distribution).distribution)
        # A distribution seen twice on the path counts once and whole, as it does for imports: the first wins.
        if name not in seen:
            for entry_point in entry_points:
                found.setdefault((name, entry_point.name), (entry_point, distribution))
        if name != same(_UNKNOWN):
            seen.add(name)
    order = {key: (key[0] != OWN, *key) for key in found}
    return [found[key] for key in sorted(found, key=order.__getitem__)], failures


def _entry_point_text(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except Exception:  # noqa: BLE001 - what cannot be decoded names no group of ours
        return ""


def same(distribution: str) -> str:
    """Return the one spelling of a distribution's name that all its spellings share.

    Parameters
    ----------
    distribution : str
        Its name, in any case, with hyphens, underscores or dots.

    Returns
    -------
    str
        In lower case, with hyphens.

    Examples
    --------
    >>> same("My_Plugin")
    'my-plugin'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


def origin_of(entry_point: EntryPoint, distribution: Distribution) -> Origin:
    """Return where a plugin comes from, however damaged the metadata are.

    Parameters
    ----------
    entry_point : EntryPoint
        Its entry point.
    distribution : Distribution
        What brought it.

    Returns
    -------
    Origin
        With "unknown" for what the metadata do not tell.
    """
    try:
        metadata = distribution.metadata
        described = metadata["Name"] or "", metadata["Version"] or ""
    except Exception:  # noqa: BLE001 - metadata that cannot be read are told as such
        described = "", ""
    return Origin(entry_point.name, described[0] or _UNKNOWN, described[1] or "unknown")


def failure(origin: Origin, error: BaseException) -> PluginFailure:
    """Record an error that a plugin raised.

    Parameters
    ----------
    origin : Origin
        The plugin.
    error : BaseException
        What it raised.

    Returns
    -------
    PluginFailure
        With the reason in one printable line.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot be printed is still an error of that plugin
        text = "its message cannot be printed"
    reason = checks.one_line(f"{type(error).__name__}: {text}")
    whole = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return PluginFailure(origin.name, origin.distribution, reason, whole, origin.version)


def load(entry_point: EntryPoint, origin: Origin) -> tuple[list[StrategySpec], list[PluginFailure]]:
    """Import one plugin and ask for its strategies.

    Parameters
    ----------
    entry_point : EntryPoint
        What to import.
    origin : Origin
        Where it comes from.

    Returns
    -------
    list of StrategySpec
        What it announces; empty if it failed.
    list of PluginFailure
        What is wrong with it.
    """
    started = time.perf_counter()
    try:
        specs = _announced(entry_point)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() at import must not take the others along either
        return [], [failure(origin, error)]
    seconds = time.perf_counter() - started
    if seconds <= SLOW_SECONDS or same(origin.distribution) == OWN:
        return specs, []
    reason = f"importing it took {seconds:.1f} s, more than {SLOW_SECONDS:g} s. Import torch and other large"
    reason += " modules inside the functions that use them: every listing waits for this import."
    return specs, [PluginFailure(*origin[:2], reason, version=origin.version, kind="slow")]


def _announced(entry_point: EntryPoint) -> list[StrategySpec]:
    # A manager for each plugin: pluggy isolates nothing, so a raising hook would end the call for all.
    manager = pluggy.PluginManager(NAMESPACE)
    manager.add_hookspecs(hooks)
    plugin = entry_point.load()
    _check_api(getattr(plugin, "MODAL_NTK_API", 1))
    if manager.register(plugin, name=entry_point.name) is None or not manager.get_hookcallers(plugin):
        raise PluginError(
            f"{entry_point.value} has no hook. Expected a function modal_ntk_strategies marked @hookimpl."
        )
    manager.check_pending()  # raises for a hook name that the specification does not know
    results = manager.hook.modal_ntk_strategies()
    if len(results) != 1:  # pluggy drops None
        raise PluginError("Expected modal_ntk_strategies() to return a list of StrategySpec records, got None.")
    return [_checked(spec) for spec in _as_list(results[0])]


def _check_api(declared: Any) -> None:
    if isinstance(declared, int) and declared == API_VERSION:
        return
    remedy = "Upgrade modal-ntk." if isinstance(declared, int) and declared > API_VERSION else "Upgrade the plugin."
    raise PluginError(
        f"It was written for version {declared!r} of the plugin interface; this modal-ntk knows {API_VERSION}. {remedy}"
    )


def _as_list(result: Any) -> list[Any]:
    if isinstance(result, (str, bytes, StrategySpec)) or not isinstance(result, Iterable):
        raise PluginError(f"Expected modal_ntk_strategies() to return a list of StrategySpec records, got {result!r}.")
    specs = list(result)
    if not specs:
        raise PluginError("Expected modal_ntk_strategies() to announce at least one StrategySpec, got an empty list.")
    return specs


def _checked(spec: Any) -> StrategySpec:
    if not isinstance(spec, StrategySpec):
        raise PluginError(f"Expected modal_ntk_strategies() to return StrategySpec records, got {spec!r}.")
    if not isinstance(spec.name, str) or not spec.name.isidentifier() or not callable(spec.factory):
        raise PluginError(f"Expected an identifier as name and a callable factory, got {spec!r}.")
    for field in ("summary", "paper", "extra"):
        value = getattr(spec, field)
        if not isinstance(value, str) or not value.isprintable():
            raise PluginError(f"Expected {field} of {spec.name} to be one printable line, got {value!r}.")
    for field in ("needs", "requires"):
        value = getattr(spec, field)
        if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
            raise PluginError(f"Expected {field} of {spec.name} to be a collection of strings, got {value!r}.")
    if unknown := sorted(set(spec.needs) - set(NEEDS)):
        raise PluginError(f"Expected needs among {', '.join(sorted(NEEDS))}; {spec.name} declares {unknown}.")
    return spec
