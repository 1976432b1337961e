"""
NTKCPL on a frozen backbone
===========================

Much of today's practice has a backbone that was trained before, without the labels at hand, and a small classifier on
top. NTKCPL was made for this: features are computed once, pseudo-labels are clusters of them, and only the classifier
on top is trained.

With ``fashion_mnist_simclr.npz`` in the folder that ``MODAL_NTK_DATA`` names, features are those of a self-supervised
net on Fashion-MNIST. Elsewhere we make a backbone ourselves: an autoencoder that learns, without labels, to repair
damaged digits, and is then frozen.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import NTKCPL, ActiveLearner, RandomSampling
from modal_ntk.bench import load_dataset
from modal_ntk.errors import UnknownNameError

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_ROUNDS, N_EPOCHS, N_POOL = (3, 50, 1000) if SMALL else (5, 100, 5000)

# %%
# Features
# --------
# The backbone is called once, outside of any loop, and its output is what the learner sees as samples.


def digit_features():
    """Sixteen features of the digits, by an autoencoder that repairs images and never sees a label."""
    X, y = load_digits(return_X_y=True)
    X = torch.from_numpy((X / 16).astype(np.float32))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
    decoder = nn.Sequential(nn.ReLU(), nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.003)
    for _ in range(300):
        damaged = X * (torch.rand_like(X) < 0.8)
        loss = nn.functional.mse_loss(decoder(encoder(damaged)), X)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return encoder(X).numpy(), y


try:
    data = load_dataset("fashion_mnist_simclr")
    X_train, y_train, X_test, y_test = data.x_train, data.y_train, data.x_test[:2000], data.y_test[:2000]
    print("self-supervised features of Fashion-MNIST")
except UnknownNameError:
    features, labels = digit_features()
    X_train, y_train, X_test, y_test = features[:1200], labels[:1200], features[1200:], labels[1200:]
    print("no fashion_mnist_simclr.npz in MODAL_NTK_DATA: features of digits by an autoencoder")
X_train, y_train = X_train[:N_POOL], y_train[:N_POOL]
n_features, n_classes = X_train.shape[1], len(np.unique(y_train))
print("pool", X_train.shape, "classes", n_classes)

# %%
# The classifier on top
# ---------------------
# Linear, BatchNorm, ReLU, Linear, as in the paper. It is what the kernel is of.


class Head(nn.Module):
    """The part that is trained."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, n_classes))

    def forward(self, x):
        return self.layers(x)


net = NeuralNetClassifier(
    Head,
    criterion=nn.CrossEntropyLoss,
    classes=range(n_classes),
    train_split=None,
    lr=0.1,
    max_epochs=N_EPOCHS,
    verbose=0,
    device="cuda" if torch.cuda.is_available() else "cpu",
)

# %%
# From no label on
# ----------------
# By default NTKCPL makes clusters of the samples as they are, here the backbone's features; ``variant="al"`` does so
# until there are labels, and takes the trained classifier's features from then on.

curves, first_picks = {}, {}
for strategy in (RandomSampling(random_state=0), NTKCPL(variant="self", n_candidates=1000, random_state=0)):
    torch.manual_seed(0)
    rest = np.arange(len(X_train))
    learner = ActiveLearner(clone(net), strategy)
    name, scores = type(strategy).__name__, []
    for step in range(N_ROUNDS):
        indices, samples = learner.query(X_train[rest], n_instances=20)
        if step == 0:
            first_picks[name] = rest[indices]
        learner.teach(samples, y_train[rest[indices]])
        rest = np.delete(rest, indices)
        scores.append(learner.score(X_test, y_test))
    curves[name] = scores
    print(f"{name:15s}", " ".join(f"{score:.3f}" for score in scores))

# %%
# What the first query chose
# --------------------------
# Before any label is known, NTKCPL asks for the samples from which most of the pool's pseudo-labels can be predicted.
# The plane is that of the features' two principal components, colours are the true classes, stars the picks.

plane = PCA(2).fit_transform(X_train)
figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True, sharey=True)
for axes, (name, rows) in zip(panels, first_picks.items(), strict=True):
    axes.scatter(*plane.T, c=y_train, cmap="tab10", vmax=9, s=5, alpha=0.4)
    axes.scatter(*plane[rows].T, c="black", marker="*", s=110)
    n_found = len(np.unique(y_train[rows]))
    axes.set_title(f"{name}: {n_found} of {n_classes} classes in the first {len(rows)}")
    axes.set(xticks=[], yticks=[])
plt.show()

# %%
# Test accuracy of the run, and what NTKCPL believed: its own estimate of the share of the pool that will be predicted
# wrongly, against pseudo-labels.

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, scores in curves.items():
    axes.plot(20 * np.arange(1, N_ROUNDS + 1), scores, marker="o", label=name)
axes.set(xlabel="labels", ylabel="accuracy on the test set")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
info = learner.query_strategy.last_selection_.info
print(f"last query: {info['n_clusters']} pseudo-labels, estimated risk {info['risk'][-1]:.3f}")
