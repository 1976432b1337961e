"""UHerding: cover the pool softly, what is uncertain first."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from modal_ntk import checks, nets, progress
from modal_ntk.checks.parameters import POSITIVE, Constraints, StrOptions
from modal_ntk.environment.late import torch
from modal_ntk.strategies.base import Query, Selection, announced
from modal_ntk.strategies.baselines.calibration import held_out_temperature, tempered
from modal_ntk.strategies.baselines.maxherding import MaxHerding
from modal_ntk.strategies.baselines.scores.entropy import Entropy
from modal_ntk.strategies.baselines.scores.least_confidence import LeastConfidence
from modal_ntk.strategies.baselines.scores.margin import Margin
from modal_ntk.strategies.common.rows import Rows, read_rows

_UNCERTAINTIES = {"margin": Margin, "entropy": Entropy, "least_confidence": LeastConfidence}
_OF_CERTAIN = {"margin": -1.0, "entropy": 0.0, "least_confidence": 0.0}  # their least value, for a probability of one

FIRST_WIDTH = 1.0
"""Width where there are no two labelled samples to take it from, as MaxHerding's."""


@dataclass(eq=False, kw_only=True, repr=False)
class UHerding(MaxHerding):
    """Query the samples that add most to the similarity of every uncertain sample to its most similar labelled one.

    Parameters
    ----------
    uncertainty : {"margin", "entropy", "least_confidence"}, default="margin"
        What a sample is worth: one less the gap between the two most probable classes, the entropy of the
        probabilities, or one less the largest probability.
    temperature : float or "held_out", default="held_out"
        What the logits are divided by first. "held_out" fits a copy of the estimator to 70 % of the labelled samples
        and takes what calibrates it best on the others; a number saves that fit, 1 takes the probabilities as they are.
    kernel : float, callable or {"auto", "nearest", "median"}, default="auto"
        The similarity, as for `MaxHerding`. "nearest" is a Gaussian as wide as the two nearest labelled samples are
        apart, as in the paper; "median" as the median distance between labelled samples. "auto" is the former on fixed
        features and the latter in a layer of the trained net.
    normalise : bool, default=True
        Whether features are scaled to length one first. They are not centred: a column that is large and nearly the
        same for all samples drowns the others, so take it out, or standardise such features before.
    features : str or callable, default="fixed"
        Where similarities are taken: "fixed", the samples where they are rows of real numbers, as the features of a
        frozen backbone are, and else as "auto"; or as for `MaxHerding`.
    random_state : int, numpy generator or None, default=None
        Seed of the held-out part and of the copy's fit, and of choices made after nothing more can be gained.
    verbose : int, default=0
        Whether progress is shown wherever it goes, with the seconds of each stage at the end; at 0 the setting
        ``progress`` decides, see `modal_ntk.set_config`.

    Notes
    -----
    Bae, Oliveira, Sutherland, "Uncertainty Herding: One Active Learning Method for All Label Budgets" (2025),
    algorithm 1. Few labels calibrate to a high temperature, which makes all samples as uncertain, and lie far apart,
    which makes the similarity wide: that is MaxHerding. With many the similarity is narrow, and what is left is
    uncertainty sampling. Without labels the choices are MaxHerding's, with a Gaussian of width 1 where the width would
    be taken from labels. A net whose module is given as an instance is copied with its weights, which have seen all
    labels; give the class. The embedding of a net draws the labelled samples of a class together, so the distance of
    the nearest ones is too narrow a width there for few labels: hence fixed features, and the median where there are
    none. Scores are what each choice added to the weighted sum. ``info`` holds what MaxHerding's does, the
    ``temperature`` (infinite where all samples count the same) and the ``width`` of a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> model = LogisticRegression().fit(X, [0, 0, 1, 1])
    >>> strategy = UHerding(normalise=False, temperature=1.0)
    >>> pool = np.array([[-3.0], [0.1], [3.0]])
    >>> strategy.select(model, pool, X_labeled=X, y_labeled=[0, 0, 1, 1]).indices.tolist()
    [1]
    """

    multilabel: ClassVar[bool] = False
    _parameter_constraints: ClassVar[Constraints] = {
        **MaxHerding._parameter_constraints,
        "uncertainty": [StrOptions(set(_UNCERTAINTIES))],
        "temperature": [POSITIVE, StrOptions({"held_out"})],
        "kernel": [POSITIVE, StrOptions({"auto", "nearest", "median"}), callable],
    }

    uncertainty: Literal["margin", "entropy", "least_confidence"] = "margin"
    temperature: float | Literal["held_out"] = "held_out"
    kernel: Any = "auto"
    features: Any = "fixed"

    def _needed(self, n_labeled: int) -> Set[str]:
        of_features = self.needs if self._is_fixed() else super()._needed(n_labeled)
        return of_features | ({"probabilities"} if n_labeled else set())

    def _is_fixed(self) -> bool:
        return isinstance(self.features, str) and self.features == "fixed"

    def _select(self, query: Query) -> Selection:
        fixed = "input" if _are_real_rows(query.X_pool) else "auto"
        rows = read_rows(query, fixed if self._is_fixed() else self.features, normalise=self.normalise)
        kernel = self._width(rows) if isinstance(self.kernel, str) else self.kernel
        with progress.stage("calibration"):
            temperature = self._temperature(query)
        with progress.stage("uncertainty", query.n_pool, "row"):
            weights = None if math.isinf(temperature) else self._weights(query, temperature)
        picks = self._herd(query, rows, kernel, weights)
        picks.info["temperature"] = temperature
        if not callable(kernel):
            picks.info["width"] = float(kernel)
        return picks

    def _width(self, rows: Rows) -> float:
        # Of distances between labelled samples; copies of one another tell nothing.
        gaps = torch.pdist(rows.labeled.double())
        gaps = gaps[gaps > 1e-6]
        if not len(gaps):
            return FIRST_WIDTH
        which, fixed = str(self.kernel), rows.source in ("input", "callable")
        nearest = which == "nearest" or (which == "auto" and fixed)
        return float(gaps.min() if nearest else gaps.median())

    def _temperature(self, query: Query) -> float:
        if query.n_labeled == 0:
            return math.inf
        if self.temperature == "held_out":
            return held_out_temperature(query, query.child_rng())
        return float(self.temperature)

    def _weights(self, query: Query, temperature: float) -> np.ndarray:
        probabilities = tempered(query.view.probabilities(query.X_pool), temperature)
        scores = _UNCERTAINTIES[self.uncertainty]._uncertainty(probabilities)
        return (scores - _OF_CERTAIN[self.uncertainty]).clamp_min(0).numpy()


def _are_real_rows(X: Any) -> bool:
    # Whole numbers may be those of words or categories, of which distances say nothing.
    if checks.is_dataset(X):
        first = nets.as_pairs(X)[0][0]
        return len(getattr(first, "shape", ())) == 1 and "float" in str(first.dtype)
    if isinstance(X, list):
        X = np.asarray(X[:1])
    if hasattr(X, "dtypes"):
        return all(dtype.kind == "f" for dtype in X.dtypes)
    return len(getattr(X, "shape", ())) == 2 and "float" in str(X.dtype)


uherding = UHerding()
modal_ntk_strategies = announced(
    uherding,
    "generalised coverage weighted by calibrated uncertainty: one method for few labels and for many",
    "UHerding (Bae et al. 2025)",
)
