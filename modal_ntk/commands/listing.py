"""What is installed, as text and as data: the rows of ``modal-ntk strategies``."""

from __future__ import annotations

import inspect
import textwrap
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from modal_ntk import plugins
from modal_ntk.hooks import NEEDS
from modal_ntk.host import Host, RegisteredStrategy

# Under docs/methods, of the baselines: those that do not stand on the page of that name.
_ELSEWHERE = {"maxherding": "coverage", "tcm": "coverage", "uherding": "coverage"}


def as_text(found: Host) -> str:
    """Return the listing for people: two lines a strategy, then what failed and what is switched off.

    Parameters
    ----------
    found : Host
        What entry points announced.

    Returns
    -------
    str
        Lines.
    """
    lines = []
    for strategy in sorted(found.strategies.values(), key=lambda s: s.name):
        lines.append(_headline(strategy))
        needs = ", ".join(sorted(strategy.needs)) or "nothing"
        lines.append(f"    needs: {needs}; from: {strategy.paper or 'not stated'}")
    lines += map(str, found.failures)
    for origin in found.disabled:
        lines.append(f"{origin.name}  ({origin.distribution} {origin.version}) is disabled by {plugins.VARIABLE}")
    return "\n".join(lines)


def as_data(found: Host) -> dict[str, list[dict[str, Any]]]:
    """Return the same for programs.

    Parameters
    ----------
    found : Host
        What entry points announced.

    Returns
    -------
    dict of str to list of dict
        ``strategies``, ``failures`` and ``disabled``, of plain values.
    """
    return {
        "strategies": [
            {
                "name": s.name,
                "summary": s.summary,
                "needs": sorted(s.needs),
                "paper": s.paper,
                "distribution": s.distribution,
                "version": s.version,
                "requires": list(s.spec.requires),
                "extra": s.spec.extra,
            }
            for s in found.strategies.values()
        ],
        "failures": [
            {"name": f.name, "distribution": f.distribution, "kind": f.kind, "reason": f.reason} for f in found.failures
        ],
        "disabled": [origin._asdict() for origin in found.disabled],
    }


def described(strategy: RegisteredStrategy) -> str:
    """Return one strategy's entry: what it does, needs and comes from, its page, and its parameters as documented.

    Parameters
    ----------
    strategy : RegisteredStrategy
        Which.

    Returns
    -------
    str
        Lines.
    """
    factory = strategy.spec.factory
    lines = [_headline(strategy)]
    lines.append(f"from: {strategy.paper or 'not stated'}")
    if page := _page(strategy):
        lines.append(f"page: {page}")
    lines.append("needs: nothing" if not strategy.needs else "needs:")
    lines += [f"    {need}: {NEEDS.get(need, 'not a word of this version')}" for need in sorted(strategy.needs)]
    lines.append(f"class: {factory.__module__}.{getattr(factory, '__qualname__', factory)}")
    lines += ["parameters:", textwrap.indent(_parameters(factory), "    ")]
    return "\n".join(lines)


def _headline(strategy: RegisteredStrategy) -> str:
    return f"{strategy.name}  ({strategy.distribution} {strategy.version})\n    {strategy.summary}"


def _page(strategy: RegisteredStrategy) -> str:
    # Ours by its place in the source, another distribution's by the first address that it declares.
    if strategy.distribution == plugins.OWN:
        own = "baselines" if ".baselines." in strategy.spec.factory.__module__ else strategy.name
        return f"docs/methods/{_ELSEWHERE.get(strategy.name, own)}.md"
    try:
        declared = metadata(strategy.distribution)
    except PackageNotFoundError:
        return ""
    addresses = [entry.rpartition(", ")[2] for entry in declared.get_all("Project-URL") or []]
    return str([*addresses, *(declared.get_all("Home-page") or []), ""][0])


def _parameters(factory: Any) -> str:
    # The section of the docstring; where there is none, the signature says at least what there is.
    _, found, rest = (inspect.getdoc(factory) or "").partition("Parameters\n----------\n")
    if not found:
        return str(inspect.signature(factory))
    lines = rest.split("\n")
    ends = [i for i, line in enumerate(lines[1:]) if line and not line.strip("-")]
    return "\n".join(lines[: ends[0]] if ends else lines).rstrip()
