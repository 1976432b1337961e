"""The strategy, and the hook that announces it."""

from __future__ import annotations

from numbers import Real
from time import perf_counter

import numpy as np

from modal_ntk import QueryStrategy, Selection, checks
from modal_ntk.checks.parameters import COUNT, POSITIVE, Interval, StrOptions
from modal_ntk.hooks import StrategySpec, hookimpl

MODAL_NTK_API = 1


class BAIT(QueryStrategy):
    """Query the batch after which the last layer is best determined where the pool lies.

    Parameters
    ----------
    regularisation : float, default=1.0
        What is added to the diagonal of the information had.
    oversampling : float, default=2.0
        How many times as many samples are chosen before the least useful ones are dropped; at least 1, which drops
        none.
    n_components : int or None, default=None
        Principal components of the features that are kept; None keeps all. Matrices have the square of classes times
        components for entries.
    features : str or callable, default="embedding"
        What the last layer is given: "embedding", the input of the net's last linear layer; "input", the samples
        themselves, as for a logistic regression; or a function from prepared samples to a matrix (n, d).
    memory_budget : int, default=2**30
        Bytes that one matrix may take.
    random_state : int, numpy generator or None, default=None
        Not read: nothing is random.

    Notes
    -----
    Ash, Goel, Krishnamurthy, Kakade, "Gone Fishing: Neural Active Learning with Fisher Embeddings" (2021), by forward
    and backward greedy steps on tr((lambda I + I(labelled and chosen))^-1 I(pool)). Scores are by how much each
    choice lowered that trace when it was made. ``info`` holds the trace before and after as ``objective``, the
    number of ``components`` and the seconds.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = np.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> model = LogisticRegression().fit(X, [0, 1])
    >>> pool = np.array([[0.1, 0.0], [0.0, 5.0], [0.0, 0.1]])
    >>> BAIT(features="input").select(model, pool, X_labeled=X, y_labeled=[0, 1]).indices.tolist()
    [1]
    """

    needs = frozenset({"probabilities", "embedding"})
    _parameter_constraints = {
        "regularisation": [POSITIVE],
        "oversampling": [Interval(Real, 1, None, closed="left")],
        "n_components": [COUNT, None],
        "features": [StrOptions({"embedding", "input"}), callable],
        "memory_budget": [COUNT],
    }

    def __init__(
        self,
        *,
        regularisation=1.0,
        oversampling=2.0,
        n_components=None,
        features="embedding",
        memory_budget=2**30,
        random_state=None,
    ):
        self.regularisation = regularisation
        self.oversampling = oversampling
        self.n_components = n_components
        self.features = features
        self.memory_budget = memory_budget
        self.random_state = random_state

    def _unmet(self, view, n_labeled):  # noqa: ARG002 - labels change no need
        needed = {"probabilities"} if self.features != "embedding" else self.needs
        return [need for need in sorted(needed) if not view.offers(need)]

    def _select(self, query):
        from modal_ntk_bait.fisher import LastLayer, bait

        started = perf_counter()
        pool = self._rows(query, query.X_pool)
        labeled = pool[:0] if query.X_labeled is None else self._rows(query, query.X_labeled)
        pool, labeled = self._reduced(pool, labeled)
        probabilities = _summing_to_one(query.view.probabilities(query.X_pool))
        n_weights = pool.shape[1] * probabilities.shape[1]
        if 8 * n_weights**2 > self.memory_budget:
            what = f"matrices of at most {self.memory_budget} bytes"
            got = f"{probabilities.shape[1]} classes and {pool.shape[1]} features, {8 * n_weights**2} bytes"
            raise checks.expected(what, got, "Pass n_components=, or raise memory_budget.")
        known = probabilities[:0] if not len(labeled) else _summing_to_one(query.view.probabilities(query.X_labeled))
        indices, scores, objective = bait(
            LastLayer(pool, probabilities),
            LastLayer(labeled, known),
            query.n_instances,
            regularisation=self.regularisation,
            oversampling=self.oversampling,
        )
        info = {"objective": objective, "components": pool.shape[1], "seconds": {"bait": perf_counter() - started}}
        return Selection(np.array(indices, np.int64), np.array(scores), info)

    def _rows(self, query, X):
        view = query.view
        return (view.embeddings(X) if self.features == "embedding" else view.features(X, self.features)).double()

    def _reduced(self, pool, labeled):
        if self.n_components is None or self.n_components >= pool.shape[1]:
            return pool, labeled
        import torch

        # Of the second moments, not of the covariance: the layer sees features as they are, their mean included.
        axes = torch.linalg.eigh(pool.T @ pool).eigenvectors.flip(1)[:, : self.n_components]
        return pool @ axes, labeled @ axes


def _summing_to_one(probabilities):
    # Single precision sums to one up to rounding, which a small regularisation would blow up.
    p = probabilities.double()
    return p / p.sum(dim=1, keepdim=True)


@hookimpl
def modal_ntk_strategies():
    """Announce the strategy."""
    summary = "the batch that best determines the last layer where the pool lies (Fisher information)"
    return [StrategySpec("bait", BAIT, summary, BAIT.needs, "BAIT (Ash et al. 2021)")]
