"""A comparison of two strategies on ninety points: run in a second, wherever its store is and whoever runs it."""

import numpy as np
import zoo
from sklearn.linear_model import LogisticRegression

from modal_ntk.bench import Dataset, Protocol, run_protocol

X, y = zoo.blobs(n=90)
DATA = Dataset("blobs", X[:60], y[:60], X[60:], y[60:], np.arange(3))


def protocol(**changes):
    return Protocol(**{"strategies": ["margin", "random_sampling"], "seeds": 2, "n_initial": 6, "batch_size": 4,
                       "n_rounds": 2, **changes})  # fmt: skip


def small_run(out, workers=None, estimator=None, **changes):
    estimator = LogisticRegression() if estimator is None else estimator
    return run_protocol(protocol(**changes), out=out, dataset=DATA, estimator=estimator, workers=workers)
