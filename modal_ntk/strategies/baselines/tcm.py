"""TCM: typical samples while labels are few, then those that the model is least sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modal_ntk.checks.parameters import COUNT, Constraints
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.baselines.scores.margin import Margin
from modal_ntk.strategies.baselines.typiclust import TypiClust
from modal_ntk.strategies.wrappers.switch import Switch

if TYPE_CHECKING:
    from modal_ntk.nets import NetView


@dataclass(eq=False, kw_only=True, repr=False)
class TCM(DistanceStrategy):
    """Query by TypiClust until there are some labels for every class, then by margin.

    Parameters
    ----------
    n_per_class : int, default=10
        Number of labels, for each class of the fitted model, from which on the margin chooses.
    features : str or callable, default="auto"
        Where TypiClust takes distances, see there.
    random_state : int, numpy generator or None, default=None
        Seed of TypiClust's k-means and of ties between margins.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Doucet, Estermann, Aczel, Wattenhofer, "Bridging Diversity and Uncertainty in Active Learning with Self-Supervised
    Pre-Training" (2024). The authors switch early on self-supervised features, at a step that depends on the budget;
    a number of labels a class is ours. While there is no fitted model with probabilities, TypiClust chooses.
    `modal_ntk.Switch` switches between any strategies at any numbers. ``info`` is that of the one that chose, with its
    class's name as ``strategy`` and ``until``, the number of labels of the switch (None while no model gives the
    number of classes).

    Examples
    --------
    >>> import numpy as np
    >>> selected = TCM(random_state=0).select(None, np.arange(12.0).reshape(6, 2), 2)
    >>> selected.info["strategy"], selected.info["until"]
    ('TypiClust', None)
    """

    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "n_per_class": [COUNT],
    }

    n_per_class: int = 10
    features: Any = "auto"

    def _switch(self, view: NetView) -> Switch:
        typical = TypiClust(features=self.features)
        if not view.offers("probabilities"):
            return Switch([(typical, None)])
        return Switch([(typical, self.n_per_class * len(view.classes)), (Margin(), None)])

    def _unmet(self, view: NetView, n_labeled: int) -> list[str]:
        return self._switch(view)._unmet(view, n_labeled)

    def _select(self, query: Query) -> Selection:
        switch = self._switch(query.view)
        selected = switch._select(query)
        selected.info["until"] = switch.stages[0][1]
        return selected


tcm = TCM()
modal_ntk_strategies = announced(
    tcm, "TypiClust until there are some labels for every class, then margin", "TCM (Doucet et al. 2024)"
)
