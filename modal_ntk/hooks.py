"""What a plugin imports: the marker, the record of one strategy, the specification of the one hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pluggy

NAMESPACE = "modal_ntk"
"""Name of the entry-point group and of the pluggy project."""

API_VERSION = 1
"""Version of this contract. A plugin states the one it was written for as ``MODAL_NTK_API = 1``, at the top of the
module (or object) that its entry point names; without a statement it is taken to be 1."""

hookspec = pluggy.HookspecMarker(NAMESPACE)
hookimpl = pluggy.HookimplMarker(NAMESPACE)

NEEDS = {
    "probabilities": "class probabilities: a fitted classifier with predict_proba",
    "predictions": "predicted classes: a fitted classifier",
    "embedding": "the penultimate activations of a fitted torch net",
    "dropout": "a fitted torch net with dropout",
    "features": "a feature matrix: a flat pool, a callable, or a layer of a torch net",
    "gradients": "gradients of a torch net with respect to its parameters",
    "critic": "a trained critic: that of a modal_ntk.nets.WAALClassifier taught with X_unlabeled=X_pool",
    "labels": "at least one labelled sample",
    "net": "a torch net wrapped by skorch",
}
"""What a strategy may declare in ``needs``, and what each word means."""


@dataclass(frozen=True)
class StrategySpec:
    """One strategy as a plugin announces it.

    Parameters
    ----------
    name : str
        Name users ask for, a Python identifier: ``get_strategy(name)``.
    factory : callable
        Class (or function) that builds the strategy from keyword parameters.
    summary : str
        One line for the listing.
    needs : frozenset of str
        Keys of `NEEDS`: what the learner must offer.
    paper : str
        Where the method comes from.
    requires : tuple of str
        Modules, by the name they are imported under, that this strategy alone needs. The plugin must import
        without them: the strategy is listed all the same, and asking for it says what to install.
    extra : str
        The extra of the plugin's distribution that installs them; empty where there is none.

    Examples
    --------
    >>> StrategySpec("mine", dict, "Queries what I like.", frozenset({"features"})).name
    'mine'
    """

    name: str
    factory: Callable[..., Any]
    summary: str
    needs: frozenset[str] = frozenset()
    paper: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""


@hookspec
def modal_ntk_strategies() -> Iterable[StrategySpec]:  # type: ignore[empty-body]
    """Announce the strategies of a plugin.

    Returns
    -------
    iterable of StrategySpec
        One record for each strategy that the plugin brings.
    """
