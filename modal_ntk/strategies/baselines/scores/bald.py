"""BALD: disagreement between the predictions that a net makes under different dropout masks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from modal_ntk import nets, selection
from modal_ntk.checks.parameters import COUNT, Constraints, StrOptions
from modal_ntk.errors import ModalNTKWarning
from modal_ntk.strategies.base import Query, QueryStrategy, Selection, announced
from modal_ntk.strategies.baselines.scores.entropy import Entropy
from modal_ntk.strategies.baselines.scores.least_confidence import LeastConfidence
from modal_ntk.strategies.baselines.scores.margin import Margin
from modal_ntk.strategies.baselines.scores.uncertainty import UncertaintyStrategy
from modal_ntk.strategies.wrappers.sharding import over_pool

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.nets import NetView

OF_THE_MEAN: dict[str, type[UncertaintyStrategy]] = {
    "entropy": Entropy,
    "variation_ratio": LeastConfidence,
    "margin": Margin,
}


@dataclass(eq=False, kw_only=True, repr=False)
class BALD(QueryStrategy):
    """Query the samples on which a net disagrees most with itself under different dropout masks.

    Parameters
    ----------
    n_draws : int, default=10
        Number of passes over the pool, each with masks of its own.
    acquisition : {"bald", "entropy", "variation_ratio", "margin", "mean_std"}, default="bald"
        What is large where a sample is wanted, p being the probabilities averaged over the passes:
        "bald", the entropy of p less the average entropy of a pass; "entropy", that of p;
        "variation_ratio", 1 - max p; "margin", p_(2) - p_(1); "mean_std", the standard deviation of a
        probability over the passes, averaged over the classes.
    random_state : int, numpy generator or None, default=None
        Seed of the masks and of the tie-break.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", equation 2, with
    dropout as the posterior: Gal, Islam, Ghahramani, "Deep Bayesian Active Learning with Image Data", section 4
    (where "variation_ratio", "entropy" and "mean_std" are the alternatives). "margin" is from public code.
    Entropies are in nats. Only dropout is switched on, BatchNorm stays as it is in prediction, and every sample
    of a batch has masks of its own. Whatever the number of draws, two numbers a class and sample are held.

    Scores are the acquisition values; "bald" lies between 0 and ln C.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> import numpy as np
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 64, bias=False), torch.nn.Dropout(), torch.nn.Linear(64, 3))
    >>> net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, classes=range(3)).initialize()
    >>> X_pool = np.array([[0.0, 0.0], [9.0, 9.0]], dtype="float32")
    >>> BALD(random_state=0).select(net, X_pool).indices.tolist()
    [1]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "dropout"})
    reads_labels: ClassVar[bool] = False
    _parameter_constraints: ClassVar[Constraints] = {
        "n_draws": [COUNT],
        "acquisition": [StrOptions({"bald", *OF_THE_MEAN, "mean_std"})],
    }

    n_draws: int = 10
    acquisition: Literal["bald", "entropy", "variation_ratio", "margin", "mean_std"] = "bald"

    def _select(self, query: Query) -> Selection:
        seeds = query.child_rng().integers(2**31, size=self.n_draws).tolist()
        parts = over_pool(query, partial(_shard_scores, seeds=seeds, acquisition=self.acquisition))
        if not any(dropped for _, dropped in parts):
            text = "All dropout of the net has rate 0: its passes do not differ, and BALD is 0 for all. Raise the rate."
            warnings.warn(text, ModalNTKWarning, stacklevel=2)
        scores = np.concatenate([part for part, _ in parts])
        indices = selection.top_b(scores, query.n_instances, rng=query.rng)
        return Selection(indices, scores[indices])


def _shard_scores(view: NetView, X: Any, number: int, *, seeds: list[int], acquisition: str) -> tuple[np.ndarray, bool]:
    # Scores of a shard, and whether any dropout of it has a rate above zero.
    moments, rates = _Moments(), set()
    for seed in seeds:
        # Shards draw masks of their own; the first one's seed is the draw's, as if it were the pool.
        own = seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        with nets.dropping(own) as dropped:
            moments.add(view.probabilities(X))
        rates.update(dropped)
    return moments.score(acquisition).numpy(), any(rates)


@dataclass
class _Moments:
    # Averages over the draws, kept up as they come, so that memory does not grow with their number.
    n: int = 0
    mean: Any = 0.0
    spread: Any = 0.0
    entropy: Any = 0.0

    def add(self, p: Tensor) -> None:
        self.n += 1
        step = p - self.mean
        self.mean = self.mean + step / self.n
        # Welford: sums of squares would cancel where the passes hardly differ.
        self.spread = self.spread + step * (p - self.mean)
        self.entropy = self.entropy + (Entropy._uncertainty(p) - self.entropy) / self.n

    def score(self, acquisition: str) -> Tensor:
        if acquisition == "mean_std":
            return (self.spread / self.n).clamp_min(0).sqrt().mean(dim=1)
        if acquisition in OF_THE_MEAN:
            return OF_THE_MEAN[acquisition]._uncertainty(self.mean)
        # Concavity makes the difference non-negative; rounding need not.
        return (Entropy._uncertainty(self.mean) - self.entropy).clamp_min(0)


bald = BALD()
modal_ntk_strategies = announced(
    bald, "largest disagreement between passes with dropout", "Gal, Islam, Ghahramani; DBAL in WAAL"
)
