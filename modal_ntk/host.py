"""The plugin host: every strategy through one door, with its provenance, whatever becomes of the other plugins."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint
from typing import Any

from modal_ntk import checks, plugins
from modal_ntk.errors import ModalNTKWarning, PluginError
from modal_ntk.hooks import StrategySpec
from modal_ntk.plugins import VARIABLE, Origin, PluginFailure


@dataclass(frozen=True)
class RegisteredStrategy:
    """A strategy that can be asked for, and where it comes from.

    Parameters
    ----------
    spec : StrategySpec
        What the plugin announced.
    entry_point : str
        Name of the entry point that brought it.
    distribution : str
        Name of the installed distribution.
    version : str
        Its version.
    """

    spec: StrategySpec
    entry_point: str
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """Name users ask for."""
        return self.spec.name

    @property
    def summary(self) -> str:
        """One line for the listing."""
        return self.spec.summary

    @property
    def needs(self) -> frozenset[str]:
        """What the learner must offer."""
        return self.spec.needs

    @property
    def paper(self) -> str:
        """Where the method comes from."""
        return self.spec.paper

    def check_installed(self) -> None:
        """Check that what this strategy alone needs is there.

        Raises
        ------
        MissingExtraError
            If not, with the command that installs it.
        """
        what = f"Strategy {self.name!r}"
        checks.check_installed(what, self.spec.requires, extra=self.spec.extra, distribution=self.distribution)


@dataclass
class Host:
    """All strategies found on one look at the installed distributions.

    Parameters
    ----------
    strategies : dict of str to RegisteredStrategy
        What can be asked for; also those whose extra is missing, which say so when asked for.
    failures : list of PluginFailure
        What is wrong with the others.
    disabled : list of Origin
        Plugins that MODAL_NTK_PLUGINS leaves out; they are not imported.
    """

    strategies: dict[str, RegisteredStrategy] = field(default_factory=dict)
    failures: list[PluginFailure] = field(default_factory=list)
    disabled: list[Origin] = field(default_factory=list)

    def get(self, name: str, **params: Any) -> Any:
        """Build a strategy by name.

        Parameters
        ----------
        name : str
            A name from the listing.
        **params
            Parameters of the strategy.

        Returns
        -------
        QueryStrategy
            A new instance.

        Raises
        ------
        MissingExtraError
            If a module that the strategy alone needs is missing, with the command that installs it.
        PluginError
            If the plugin of that name failed to load or is disabled.
        UnknownNameError
            If there is none; the near ones are named.
        """
        if name in self.strategies:
            self.strategies[name].check_installed()
            return self.strategies[name].spec.factory(**params)
        for failure in self.failures:
            if failure.name == name and failure.kind == "failed":
                outcome = f"Plugin {name!r} of {failure.distribution} could not be loaded"
                raise PluginError(f"{outcome}: {failure.reason}\n{failure.traceback}")
            if failure.name == name and failure.kind == "duplicate":
                raise PluginError(f"{failure}.")
        for origin in self.disabled:
            if origin.name == name:
                remedy = f"Change {VARIABLE}, which is {os.environ.get(VARIABLE)!r}."
                raise PluginError(f"Plugin {name!r} of {origin.distribution} is disabled. {remedy}")
        raise checks.unknown_name("strategy", name, list(self.strategies), "See `modal-ntk strategies`.")

    def _register(self, spec: StrategySpec, origin: Origin) -> None:
        new = RegisteredStrategy(spec, *origin)
        old = self.strategies.setdefault(spec.name, new)
        if old is not new:
            reason = (
                f"the strategy {spec.name!r} is that of {old.distribution} (entry point {old.entry_point}) and is "
                f"not replaced by that of {origin.distribution} (entry point {origin.name}). Rename one of them, or "
                f"set {VARIABLE}=-{origin.distribution}"
            )
            self.failures.append(PluginFailure(*origin[:2], reason, version=origin.version, kind="duplicate"))


def build_host(entry_points: Iterable[tuple[EntryPoint, Distribution]] | None = None, *, strict: bool = False) -> Host:
    """Look at the installed distributions and load every plugin that can be loaded.

    Parameters
    ----------
    entry_points : iterable of (EntryPoint, Distribution), optional
        What to load instead of the installed group ``modal_ntk``, in this order.
    strict : bool, default=False
        Whether anything wrong with a plugin, or with MODAL_NTK_PLUGINS, is an error.

    Returns
    -------
    Host
        A new one each time.

    Raises
    ------
    PluginError
        With ``strict=True``, naming everything that is wrong.

    Warns
    -----
    ModalNTKWarning
        Once for each plugin that fails, hangs, is slow, or claims a name that is taken.

    Notes
    -----
    Of two plugins that claim one name the built-in one stays, else the one whose distribution comes first by
    name; the other is reported and what else it brings is there. The environment variable MODAL_NTK_PLUGINS
    holds names of entry points or of distributions, separated by commas: a name allows, a name after a minus
    denies. With one allowing name everything not named is left out.

    Examples
    --------
    >>> "ntkcpl" in build_host().strategies
    True
    """
    host = Host()
    if entry_points is None:
        found, host.failures = plugins.installed()
    else:
        found = list(entry_points)
    origins = [plugins.origin_of(*pair) for pair in found]
    allowed = _allowed(origins, os.environ.get(VARIABLE, ""), strict)
    for (entry_point, _), origin in zip(found, origins, strict=True):
        if origin not in allowed:
            host.disabled.append(origin)
            continue
        specs, failures = plugins.load(entry_point, origin)
        host.failures.extend(failures)
        for spec in specs:
            host._register(spec, origin)
    if strict and host.failures:
        raise PluginError("\n".join(str(failure) for failure in host.failures))
    for failure in host.failures:
        warnings.warn(str(failure), ModalNTKWarning, stacklevel=2)
    return host


def _allowed(origins: list[Origin], text: str, strict: bool) -> set[Origin]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    denying = {name[1:].strip() for name in names if name.startswith("-")}
    allowing = {name for name in names if not name.startswith("-")}
    known = {o.name for o in origins} | {plugins.same(o.distribution) for o in origins}
    for name in sorted(denying | allowing):
        if name not in known and plugins.same(name) not in known:
            problem = checks.unknown_name("plugin", name, known, f"It stands in {VARIABLE}={text!r}.")
            if strict:
                raise PluginError(str(problem))
            warnings.warn(str(problem), ModalNTKWarning, stacklevel=3)

    def named(origin: Origin, among: set[str]) -> bool:
        return origin.name in among or plugins.same(origin.distribution) in {plugins.same(name) for name in among}

    return {o for o in origins if (not allowing or named(o, allowing)) and not named(o, denying)}


def get_strategy(name: str, **params: Any) -> Any:
    """Build a strategy by name, built in or brought by a plugin.

    Parameters
    ----------
    name : str
        A name from `list_strategies`.
    **params
        Parameters of the strategy.

    Returns
    -------
    QueryStrategy
        A new instance.

    Examples
    --------
    >>> get_strategy("margin", random_state=0)
    Margin(random_state=0)
    """
    return build_host().get(name, **params)


def list_strategies() -> list[RegisteredStrategy]:
    """List every strategy there is, by name; torch is not imported for it.

    Returns
    -------
    list of RegisteredStrategy
        In alphabetical order.

    Examples
    --------
    >>> {"entropy", "margin"} <= {strategy.name for strategy in list_strategies()}
    True
    """
    return sorted(build_host().strategies.values(), key=lambda strategy: strategy.name)
