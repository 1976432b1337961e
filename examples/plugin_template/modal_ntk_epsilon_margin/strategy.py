"""The strategy, and the hook that announces it."""

from __future__ import annotations

import numpy as np

from modal_ntk import QueryStrategy, Selection, selection
from modal_ntk.checks.parameters import SHARE
from modal_ntk.hooks import StrategySpec, hookimpl

# The version of the plugin interface this was written for: a host that does not know it says so.
MODAL_NTK_API = 1


class EpsilonMargin(QueryStrategy):
    """Query the samples of smallest margin, and a random share of others.

    Parameters
    ----------
    epsilon : float, default=0.1
        Chance that a place in the batch goes to a sample drawn at random, between 0 and 1.
    random_state : int, numpy generator or None, default=None
        Seed of the draws.

    Notes
    -----
    Scores are minus the gap between the two largest class probabilities.
    """

    # What the learner must offer: the keys are in modal_ntk.hooks.NEEDS. A learner without is refused before
    # `_select` is called, by an error that says what is missing.
    needs = frozenset({"probabilities"})

    # What parameters may be, in scikit-learn's terms: anything else is refused before anything is computed.
    _parameter_constraints = {"epsilon": [SHARE]}

    # Parameters by name, kept unchanged: that is what makes a strategy printable, cloneable and searchable.
    def __init__(self, *, epsilon=0.1, random_state=None):
        self.epsilon = epsilon
        self.random_state = random_state

    def _select(self, query):
        # Everything was checked; `query.view` is the only door to the learner and never changes it, and
        # `query.rng` is this query's own generator, made from `random_state`.
        probabilities = query.view.probabilities(query.X_pool)
        top = probabilities.topk(min(2, probabilities.shape[1]), dim=1).values
        scores = (top[:, -1] - top[:, 0]).numpy()
        n_random = int((query.rng.random(query.n_instances) < self.epsilon).sum())
        indices = selection.top_b(scores, query.n_instances, rng=query.rng)[: query.n_instances - n_random]
        others = np.setdiff1d(np.arange(query.n_pool), indices)
        indices = np.concatenate([indices, query.rng.choice(others, n_random, replace=False)])
        # Exactly n_instances distinct positions in the pool, their scores, and whatever else is worth telling.
        return Selection(indices, scores[indices], {"n_random": n_random})


@hookimpl
def modal_ntk_strategies():
    """Announce the strategy."""
    summary = "smallest margin, with a share of random picks"
    return [StrategySpec("epsilon_margin", EpsilonMargin, summary, EpsilonMargin.needs)]
