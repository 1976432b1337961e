"""Pipelines whose first steps know the whole pool from the start."""

from __future__ import annotations

from typing import Any

import sklearn
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from modal_ntk import checks
from modal_ntk.nets.datasets import samples_of


def pool_fitted(pipeline: Pipeline, X_pool: Any) -> Pipeline:
    """Return a Pipeline whose steps before the last are fitted to a pool and stay as they are.

    What such steps learn without labels, such as a vocabulary or a scale, should be learnt from all samples that there
    are: a vocabulary of twelve labelled texts has another size after the next ``teach``, which a net cannot follow.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Unfitted, as it would be given to a learner; it is not changed.
    X_pool : samples (n, ...)
        All samples, labelled or not; no labels are read.

    Returns
    -------
    Pipeline
        The same steps, fitted and frozen by scikit-learn's ``FrozenEstimator``, before a clone of the last. Clones,
        every ``teach`` and every search keep them.

    Raises
    ------
    InvalidInputError
        If it is no Pipeline, or scikit-learn is older than 1.6, which cannot freeze.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> texts = ["red cat", "blue dog", "red bird"]
    >>> model = pool_fitted(make_pipeline(CountVectorizer(), LogisticRegression()), texts)
    >>> model.fit(["red cat", "blue dog"], [0, 1])[:-1].transform(["a bird"]).shape
    (1, 5)
    """
    if not isinstance(pipeline, Pipeline):
        remedy = "Pass sklearn.pipeline.make_pipeline(step, ..., net)."
        raise checks.expected("a Pipeline", type(pipeline).__name__, remedy)
    try:
        from sklearn.frozen import FrozenEstimator
    except ImportError as error:
        remedy = 'Run: pip install "scikit-learn>=1.6"'
        raise checks.expected("scikit-learn 1.6 or later, to freeze steps", sklearn.__version__, remedy) from error
    samples = samples_of(X_pool, "the pool") if checks.is_dataset(X_pool) else X_pool
    *earlier, last = clone(pipeline).steps
    fitted = Pipeline(earlier).fit(samples) if earlier else Pipeline([])
    frozen = [(name, step if isinstance(step, str) else FrozenEstimator(step)) for name, step in fitted.steps]
    return Pipeline([*frozen, last])
