"""One plugin at a time: found in the metadata of the installed distributions, loaded, and checked.

Whatever a plugin does wrong comes out of here as a `PluginFailure`, so that the host goes on with the others.
"""

from __future__ import annotations

import re
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from itertools import islice
from typing import Any, NamedTuple

import pluggy

from modal_ntk import checks, hooks
from modal_ntk.environment.hanging import Hangs, Watch
from modal_ntk.errors import PluginError
from modal_ntk.hooks import API_VERSION, NAMESPACE, NEEDS, StrategySpec

VARIABLE = "MODAL_NTK_PLUGINS"
"""Environment variable with the names of plugins to allow (``ntkcpl,entropy``) or to deny (``-badge,-my-plugin``)."""

OWN = "modal-ntk"
"""The distribution whose plugins are the built-in strategies."""

_OWN_MODULES = "modal_ntk."
_UNKNOWN = "an unknown distribution"
SLOW_SECONDS = 2.0
"""A plugin that takes longer to import is reported: every listing waits for it."""

MOST_STRATEGIES = 1000
"""A plugin that announces more is refused, for its list may never end."""


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
    failures, seen, own = [], set[str](), False
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
        if name == OWN and (own or not all(e.value.startswith(_OWN_MODULES) for e in entry_points)):
            if not _repeats(entry_points, found):
                failures.append(_impostor(entry_points, distribution))
            continue
        own = own or name == OWN
        # A distribution seen twice on the path counts once and whole, as it does for imports: the first wins.
        if name not in seen:
            for entry_point in entry_points:
                found.setdefault((name, entry_point.name), (entry_point, distribution))
        if name != same(_UNKNOWN):
            seen.add(name)
    order = {key: (key[0] != OWN, *key) for key in found}
    return [found[key] for key in sorted(found, key=order.__getitem__)], failures


def _repeats(entry_points: list[EntryPoint], found: dict[tuple[str, str], tuple[EntryPoint, Distribution]]) -> bool:
    # An installation that is on the path twice: all that the second one says is known already.
    return all((OWN, e.name) in found and found[OWN, e.name][0].value == e.value for e in entry_points)


def _impostor(entry_points: list[EntryPoint], distribution: Distribution) -> PluginFailure:
    origin = origin_of(entry_points[0], distribution)
    try:
        place = checks.one_line(str(distribution.locate_file("")))
    except Exception:  # noqa: BLE001 - not every distribution lies in a folder
        place = "an unknown place"
    names = ", ".join(checks.one_line(e.name) for e in entry_points)
    reason = f"another distribution has the name of this library, {OWN}: the one in {place}, with the entry points "
    return PluginFailure(*origin[:2], f"{reason}{names}. Remove whichever is not this library", version=origin.version)


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
        With "unknown" for what the metadata do not tell, and without control characters, which a terminal obeys.
    """
    try:
        metadata = distribution.metadata
        described = metadata["Name"] or "", metadata["Version"] or ""
    except Exception:  # noqa: BLE001 - metadata that cannot be read are told as such
        described = "", ""
    name, version = (checks.one_line(str(text)) for text in described)
    return Origin(checks.one_line(entry_point.name), name or _UNKNOWN, version or "unknown")


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
    except BaseException:  # noqa: BLE001 - an error that cannot be printed is still an error of that plugin
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
    if origin in _given_up:
        return [], [_given_up[origin]]
    started = time.perf_counter()
    with _warning_filters_kept(), _watch(origin) as watch:
        try:
            try:
                specs = _announced(entry_point)
            finally:
                watch.finished = True
        except Hangs as error:
            seconds = time.perf_counter() - started
            _given_up[origin] = _hanging(origin, seconds, error)
            return [], [_given_up[origin]]
        except BaseException as error:  # sys.exit() at import must not take the others along either
            if watch.interrupted and isinstance(error, KeyboardInterrupt):
                raise
            return [], [failure(origin, error)]
    seconds = time.perf_counter() - started
    if seconds <= SLOW_SECONDS or same(origin.distribution) == OWN:
        return specs, []
    reason = f"importing it took {seconds:.1f} s, more than {SLOW_SECONDS:g} s. Import torch and other large"
    reason += " modules inside the functions that use them: every listing waits for this import."
    return specs, [PluginFailure(*origin[:2], reason, version=origin.version, kind="slow")]


_given_up: dict[Origin, PluginFailure] = {}
"""Plugins that hung: they are not waited for again in this process."""


def _hanging(origin: Origin, seconds: float, error: BaseException) -> PluginFailure:
    reason = (
        f"it was given up after {seconds:.0f} s, for it still had not been imported and was importing nothing. "
        f"Mend it, or set {VARIABLE}=-{origin.distribution} so that nobody waits for it"
    )
    return replace(failure(origin, error), reason=reason)


def _watch(origin: Origin) -> Watch:
    remedy = f"Press Ctrl-C and set {VARIABLE}=-{origin.distribution} to go on without it."
    return Watch(f"Plugin {origin.name!r} of {origin.distribution}", remedy)


@contextmanager
def _warning_filters_kept() -> Iterator[None]:
    # A plugin may silence its own warnings; it may not turn everybody's into errors, or forget the user's filters.
    with warnings.catch_warnings():
        before = list(warnings.filters)
        try:
            yield
        finally:
            added = [f for f in warnings.filters if f not in before and f[0] != "error"]
    warnings.filters[:0] = added  # type: ignore[index]  # a list, whatever its stub says


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
    specs = list(islice(result, MOST_STRATEGIES + 1))
    if len(specs) > MOST_STRATEGIES:
        raise PluginError(f"Expected at most {MOST_STRATEGIES} StrategySpec records, got more: it may be endless.")
    if not specs:
        raise PluginError("Expected modal_ntk_strategies() to announce at least one StrategySpec, got an empty list.")
    return specs


def _checked(spec: Any) -> StrategySpec:
    if not isinstance(spec, StrategySpec):
        raise PluginError(f"Expected modal_ntk_strategies() to return StrategySpec records, got {spec!r}.")
    # Exactly str, for a subclass may say what it likes about itself; ASCII, for other letters pass for these.
    named = type(spec.name) is str and spec.name.isidentifier() and spec.name.isascii()
    if not named or not callable(spec.factory):
        raise PluginError(f"Expected an identifier of ASCII letters as name and a callable factory, got {spec!r}.")
    for field in ("summary", "paper", "extra"):
        value = getattr(spec, field)
        if type(value) is not str or not value.isprintable():
            raise PluginError(f"Expected {field} of {spec.name} to be one printable line, got {value!r}.")
    for field in ("needs", "requires"):
        value = getattr(spec, field)
        if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
            raise PluginError(f"Expected {field} of {spec.name} to be a collection of strings, got {value!r}.")
    if unknown := sorted(set(spec.needs) - set(NEEDS)):
        raise PluginError(f"Expected needs among {', '.join(sorted(NEEDS))}; {spec.name} declares {unknown}.")
    return spec
