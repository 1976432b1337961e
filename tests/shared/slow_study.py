"""A small comparison whose estimator takes its time, for what kills it on the way."""

import numpy as np

STUDY = """
dataset = "blobs.npz"
strategies = ["margin", "random_sampling"]
seeds = {seeds}
n_initial = 6
batch_size = 4
n_rounds = 2
[estimator]
path = "slow_estimator:Slow"
"""


def write_study(folder, factory, seeds, X, y):
    """Write a protocol file beside its data, of which the first 60 rows are the pool, and the estimator's source."""
    np.savez(folder / "blobs.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    (folder / "slow_estimator.py").write_text(factory)
    (folder / "study.toml").write_text(STUDY.format(seeds=seeds))
