"""The plugin host: loads entry points one by one, keeps their provenance, and survives those that fail."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from modal_ntk import checks, hooks
from modal_ntk.errors import ModalNTKWarning, PluginError
from modal_ntk.hooks import NAMESPACE, NEEDS, StrategySpec


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


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be used, and why.

    Parameters
    ----------
    name : str
        Name of its entry point.
    distribution : str
        Name of the distribution that brought it.
    reason : str
        The error in one line.
    traceback : str
        The whole of it.
    """

    name: str
    distribution: str
    reason: str
    traceback: str


@dataclass
class Host:
    """All strategies found on one look at the installed distributions.

    Parameters
    ----------
    strategies : dict of str to RegisteredStrategy
        What can be asked for.
    failures : list of PluginFailure
        What could not be loaded.
    """

    strategies: dict[str, RegisteredStrategy] = field(default_factory=dict)
    failures: list[PluginFailure] = field(default_factory=list)

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
        PluginError
            If the plugin of that name failed to load.
        UnknownNameError
            If there is none; the near ones are named.
        """
        if name in self.strategies:
            return self.strategies[name].spec.factory(**params)
        for failure in self.failures:
            if failure.name == name:
                origin = f"Plugin {name!r} of {failure.distribution} could not be loaded"
                raise PluginError(f"{origin}: {failure.reason}\n{failure.traceback}")
        raise checks.unknown_name("strategy", name, list(self.strategies), "See `modal-ntk strategies`.")


def build_host(entry_points: Iterable[tuple[EntryPoint, Distribution]] | None = None) -> Host:
    """Look at the installed distributions and load every plugin that can be loaded.

    Parameters
    ----------
    entry_points : iterable of (EntryPoint, Distribution), optional
        What to load instead of the installed group ``modal_ntk``.

    Returns
    -------
    Host
        A new one each time.

    Raises
    ------
    PluginError
        If two plugins claim one name, naming both.

    Warns
    -----
    ModalNTKWarning
        Once for each plugin that fails.

    Examples
    --------
    >>> "ntkcpl" in build_host().strategies
    True
    """
    host = Host()
    for entry_point, distribution in _installed() if entry_points is None else entry_points:
        try:
            specs = _announced(entry_point)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises must not take the others along
            reason = f"{type(error).__name__}: {error}"
            name = distribution.metadata["Name"]
            host.failures.append(PluginFailure(entry_point.name, name, reason, traceback.format_exc()))
            warnings.warn(f"Plugin {entry_point.name!r} of {name} is left out: {reason}", ModalNTKWarning, stacklevel=2)
            continue
        for spec in specs:
            _register(host, spec, entry_point, distribution)
    return host


def _installed() -> list[tuple[EntryPoint, Distribution]]:
    found: dict[tuple[str, str], tuple[EntryPoint, Distribution]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == NAMESPACE:
                # A distribution seen twice on the path counts once, as it does for imports: the first wins.
                found.setdefault((distribution.metadata["Name"], entry_point.name), (entry_point, distribution))
    return sorted(found.values(), key=lambda pair: pair[0].name)


def _announced(entry_point: EntryPoint) -> list[StrategySpec]:
    # A manager for each plugin: pluggy isolates nothing, so a raising hook would end the call for all.
    manager = pluggy.PluginManager(NAMESPACE)
    manager.add_hookspecs(hooks)
    plugin = entry_point.load()
    if manager.register(plugin, name=entry_point.name) is None or not manager.get_hookcallers(plugin):
        raise PluginError(
            f"{entry_point.value} has no hook. Expected a function modal_ntk_strategies marked @hookimpl."
        )
    manager.check_pending()  # raises for a hook name that the specification does not know
    return [_checked(spec) for result in manager.hook.modal_ntk_strategies() for spec in result]


def _checked(spec: Any) -> StrategySpec:
    if not isinstance(spec, StrategySpec):
        raise PluginError(f"Expected modal_ntk_strategies() to return StrategySpec records, got {spec!r}.")
    if not spec.name.isidentifier() or not callable(spec.factory):
        raise PluginError(f"Expected an identifier as name and a callable factory, got {spec!r}.")
    if unknown := sorted(set(spec.needs) - set(NEEDS)):
        raise PluginError(f"Expected needs among {', '.join(sorted(NEEDS))}; {spec.name} declares {unknown}.")
    return spec


def _register(host: Host, spec: StrategySpec, entry_point: EntryPoint, distribution: Distribution) -> None:
    new = RegisteredStrategy(spec, entry_point.name, distribution.metadata["Name"], distribution.version)
    old = host.strategies.setdefault(spec.name, new)
    if old is not new:
        raise PluginError(
            f"Two plugins claim the strategy {spec.name!r}: {old.distribution} (entry point {old.entry_point}) "
            f"and {new.distribution} (entry point {new.entry_point}). Uninstall one of them."
        )


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
    >>> [strategy.name for strategy in list_strategies()][:2]
    ['entropy', 'least_confidence']
    """
    return sorted(build_host().strategies.values(), key=lambda strategy: strategy.name)
