"""Nets that WAAL trains: an extractor, the classifier around it, and their weights to compare."""

import torch
import zoo
from torch import nn

from modal_ntk.nets import WAALClassifier, seeded

X, y = zoo.blobs()
X_known, y_known, X_pool = X[:12], y[:12], X[12:]


class Extractor(nn.Module):
    def __init__(self, d=6, hidden=8, norm=True):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, hidden), nn.BatchNorm1d(hidden) if norm else nn.Identity(), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


def net(module=Extractor, **options):
    settings = {"classes": [0, 1, 2], "max_epochs": 3, "batch_size": 16, "verbose": 0}
    return WAALClassifier(module, **{**settings, **options})


def fitted(estimator, seed=0, **kwargs):
    with seeded(seed):
        return estimator.fit(X_known, y_known, **kwargs)


def weights(estimator):
    state = {**estimator.module_.state_dict(), **estimator.critic_.state_dict(prefix="critic.")}
    return {name: value.clone() for name, value in state.items()}


def differ(a, b, prefix=""):
    return any(not torch.equal(a[name], b[name]) for name in a if name.startswith(prefix))
