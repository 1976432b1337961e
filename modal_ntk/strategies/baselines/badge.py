"""BADGE: k-means++ seeding on the gradients of the last layer, of which only the factors are kept."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from modal_ntk import progress, selection
from modal_ntk.checks.parameters import COUNT, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.selection.distances import measurable_factors
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.distance import DistanceStrategy
from modal_ntk.strategies.common import rows

if TYPE_CHECKING:
    from torch import Tensor

    from modal_ntk.selection.kmeans_pp import First

_BLOCK = 2**24  # entries of gradients formed at a time where they are averaged


@dataclass(eq=False, kw_only=True, repr=False)
class BADGE(DistanceStrategy):
    """Query samples whose last-layer gradients, at the predicted label, are long and unlike each other.

    The gradient of a sample is (e - p) (x) h: the one-hot of its predicted class less its probabilities, times its
    embedding. Samples are drawn as k-means++ draws its first centres.

    Parameters
    ----------
    first : {"largest", "uniform"}, default="largest"
        The first one: the sample of the longest gradient, as in the authors' code, or any by chance.
    n_partitions : int, default=1
        Number of random parts of the pool; each gives its share of the batch, for less time and memory.
    n_averaged : int or None, default=None
        Length to which gradients are brought by averaging neighbouring entries (512 in published work on
        ImageNet); None, or one above classes x embedding, leaves them as they are, and unformed.
    features : str or callable, default="embedding"
        What stands for h: "embedding", the input of the net's last linear layer; the name of a layer; "input",
        the samples themselves; a function from prepared samples to a matrix (n, d); "auto", the embedding of a
        fitted torch net, the samples for any other classifier.
    random_state : int, numpy generator or None, default=None
        Seed.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds" (2020), algorithm 1. The
    parts, and the uniform first choice in each, are those of active learning with self-supervised selection
    (ASVP). Scores are squared distances to the nearest earlier choice (of the same part) at the time of the
    choice, that of a first one its squared length. A choice costs one pass over embeddings and probabilities;
    nothing of size classes x embedding is made, unless `n_averaged` asks for it, and then a block at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    >>> pool = np.array([[-9.0], [0.5], [9.0]])
    >>> BADGE(features="input", random_state=0).select(model, pool, 1).indices.tolist()
    [1]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "embedding"})
    reads_labels: ClassVar[bool] = False
    multilabel: ClassVar[bool] = True
    _parameter_constraints: ClassVar[Constraints] = {
        **DistanceStrategy._parameter_constraints,
        "first": [StrOptions({"largest", "uniform"})],
        "n_partitions": [COUNT],
        "n_averaged": [COUNT, None],
    }

    first: First = "largest"
    n_partitions: int = 1
    n_averaged: int | None = None
    features: Any = "embedding"

    def _needed(self, n_labeled: int) -> Set[str]:  # noqa: ARG002 - labels change no need
        return {"probabilities"} | rows.needs_of(self.features)

    def _select(self, query: Query) -> Selection:
        h = rows.read(query.view, query.X_pool, self.features)
        with progress.stage("probabilities", query.n_pool, "row"):
            if query.has_several_labels:
                p = query.view.label_probabilities(query.X_pool)
                a = (p - (p > 0.5).to(p)).to(h.dtype)
            else:
                a = _residuals(query.view.probabilities(query.X_pool)).to(h.dtype)
        chosen = []
        for part, share in self._parts(query):
            gradients = self._gradients(a[part], h[part], query.view.device)
            picks = selection.kmeans_plus_plus(gradients, share, first=self.first, random_state=query.child_rng())
            chosen.append((np.arange(query.n_pool)[part][picks.indices], picks.scores))
        indices, scores = (np.concatenate(values) for values in zip(*chosen, strict=True))
        return Selection(indices, scores, {"features": rows.name_of(query.view, self.features)})

    def _parts(self, query: Query) -> list[tuple[Any, int]]:
        # Both splits give their longer parts first, so that no share exceeds its part.
        n_parts = min(self.n_partitions, query.n_instances)
        if n_parts == 1:
            return [(slice(None), query.n_instances)]
        parts = np.array_split(query.rng.permutation(query.n_pool), n_parts)
        shares = np.array_split(np.arange(query.n_instances), n_parts)
        return [(part, len(share)) for part, share in zip(parts, shares, strict=True)]

    def _gradients(self, a: Tensor, h: Tensor, device: torch.device) -> Any:
        a, h = measurable_factors(a, h)
        if self.n_averaged is not None and self.n_averaged < a.shape[1] * h.shape[1]:
            return selection.DenseRows(_averaged(a, h, self.n_averaged, device), device)
        return selection.OuterRows(a, h, device)


def _residuals(p: Tensor) -> Tensor:
    residuals = -p
    predicted = p.argmax(dim=1, keepdim=True)
    return residuals.scatter_add_(1, predicted, p.new_ones(len(p), 1))


def _averaged(a: Tensor, h: Tensor, length: int, device: torch.device) -> Tensor:
    size = max(1, _BLOCK // (a.shape[1] * h.shape[1]))
    blocks = zip(a.split(size), h.split(size), strict=True)
    products = ((x.to(device)[:, :, None] * y.to(device)[:, None, :]).flatten(1) for x, y in blocks)
    return torch.cat([torch.nn.functional.adaptive_avg_pool1d(g[:, None], length)[:, 0] for g in products])


badge = BADGE()
modal_ntk_strategies = announced(
    badge, "k-means++ seeding on the gradients of the last layer", "BADGE (Ash et al. 2020)"
)
