"""What ``modal-ntk doctor`` finds: versions, devices, plugins, and all that is wrong with them."""

from __future__ import annotations

import platform
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from modal_ntk import host, plugins
from modal_ntk.environment import compatibility, repairs
from modal_ntk.environment.late import torch
from modal_ntk.errors import MissingExtraError, ModalNTKWarning
from modal_ntk.host import Host, RegisteredStrategy


@dataclass(frozen=True)
class PluginState:
    """A plugin, or a strategy it brought, as doctor sees it.

    Parameters
    ----------
    name : str
        Name of the strategy, or of the entry point where there is none.
    distribution, version : str
        What brought it.
    state : str
        "ok", "missing extra", "disabled", "failed", "duplicate" or "slow".
    detail : str
        Why, where it is not "ok".
    """

    name: str
    distribution: str
    version: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Everything doctor found.

    Parameters
    ----------
    versions : dict of str to str or None
        Of Python and of what this library builds on; None for what is not installed.
    combination : str
        "known to work", "known not to work" or "not tried": modAL, scikit-learn and skorch together.
    devices : list of str
        What torch can compute on; empty if torch cannot be imported.
    plugins : list of PluginState
        One for each strategy, and one for each plugin that is wrong or disabled.
    repairs : dict of str to str
        What became of each repair of modAL: "active", "not needed", "switched off ..." or "does not fit ...".
    problems : list of str
        All that is wrong, with what to do. A missing extra or a disabled plugin is nobody's fault and not here.
    """

    versions: dict[str, str | None]
    combination: str
    devices: list[str]
    plugins: list[PluginState]
    repairs: dict[str, str]
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold.

        Returns
        -------
        dict
            By the names of the attributes, and ``ok``: whether nothing is wrong.
        """
        return {**asdict(self), "ok": not self.problems}

    def __str__(self) -> str:
        """Return it as text for people."""
        width = max(map(len, self.versions))
        lines = [f"{name:<{width}}  {found or 'not installed'}" for name, found in self.versions.items()]
        lines += ["", f"modAL, scikit-learn and skorch together: {self.combination}"]
        lines += [f"repair of modAL, {name}: {state}" for name, state in self.repairs.items()]
        lines += [f"devices: {', '.join(self.devices) or 'none'}", "", "plugins:"]
        for plugin in self.plugins:
            detail = f": {plugin.detail}" if plugin.detail else ""
            lines.append(f"  {plugin.name}  ({plugin.distribution} {plugin.version})  {plugin.state}{detail}")
        lines += ["", "nothing is wrong" if not self.problems else "problems:"]
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems)])


def diagnose() -> Diagnosis:
    """Look at versions, devices and plugins; torch is imported for its devices.

    Returns
    -------
    Diagnosis
        What was found; nothing is raised for what is wrong.

    Examples
    --------
    >>> diagnose().versions["modal-ntk"] is not None
    True
    """
    versions = compatibility.installed_versions()
    known = [str(clash) for clash in compatibility.clashes(versions) if not compatibility.is_mended(clash)]
    combination = "known not to work" if known else "known to work"
    if not known and not compatibility.was_tried(versions):
        combination = "not tried"
    found, warned = _host()
    devices, broken = _devices()
    problems = [*known, *compatibility.unmet_requirements(), *broken, *warned]
    about = {"Python": platform.python_version(), **versions}
    return Diagnosis(about, combination, devices, _plugins(found), repairs.states(), problems)


def _host() -> tuple[Host, list[str]]:
    # Every problem of a plugin is warned about: here the warnings are the finding.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = host.build_host()
    for warning in caught:
        if not issubclass(warning.category, ModalNTKWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return found, [str(w.message) for w in caught if issubclass(w.category, ModalNTKWarning)]


def _plugins(found: Host) -> list[PluginState]:
    working = [_state(strategy) for strategy in sorted(found.strategies.values(), key=lambda s: s.name)]
    wrong = [PluginState(f.name, f.distribution, f.version, f.kind, f.reason) for f in found.failures]
    detail = f"by the environment variable {plugins.VARIABLE}"
    return [*working, *wrong, *(PluginState(*origin, "disabled", detail) for origin in found.disabled)]


def _state(strategy: RegisteredStrategy) -> PluginState:
    origin = strategy.name, strategy.distribution, strategy.version
    try:
        strategy.check_installed()
    except MissingExtraError as error:
        return PluginState(*origin, "missing extra", str(error))
    return PluginState(*origin, "ok")


def _devices() -> tuple[list[str], list[str]]:
    try:
        count = torch.cuda.device_count()  # loads it
    except Exception as error:  # noqa: BLE001 - a torch that does not load is what doctor is asked about
        return [], [f"torch cannot be imported: {type(error).__name__}: {error}. Install it anew."]
    devices = ["cpu"]
    for i in range(count):
        properties = torch.cuda.get_device_properties(i)
        devices.append(f"cuda:{i} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices, []
