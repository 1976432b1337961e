"""
Images and a convolutional net
==============================

Query strategies that read gradients are at home with a convolutional net that is trained from scratch. Two of them,
BADGE and dynamicAL, choose from the same pool after the same labels, and we look at what they chose.

The images are Fashion-MNIST's where the environment variable ``MODAL_NTK_DATA`` names a folder that holds
``fashion_mnist.npz``; elsewhere they are the digits that come with scikit-learn.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import BADGE, ActiveLearner, DynamicAL, RandomSampling
from modal_ntk.bench import load_dataset
from modal_ntk.errors import UnknownNameError

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_POOL, N_ROUNDS, N_EPOCHS = (600, 2, 15) if SMALL else (5000, 6, 40)

# %%
# Images
# ------
# Samples are arrays (n, channels, height, width). `load_dataset` reads any ``.npz`` with ``x_train``, ``y_train``,
# ``x_test`` and ``y_test`` that way.

try:
    data = load_dataset("fashion_mnist")
    names = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
    X_train, y_train, X_test, y_test = data.x_train, data.y_train, data.x_test[:2000], data.y_test[:2000]
    print("Fashion-MNIST")
except UnknownNameError:
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 1, 8, 8) / 16, np.ones((1, 1, 2, 2))).astype(np.float32)
    names = [str(digit) for digit in range(10)]
    X_train, y_train, X_test, y_test = images[:1200], labels[:1200], images[1200:], labels[1200:]
    print("no fashion_mnist.npz in MODAL_NTK_DATA: digits of scikit-learn, 16 by 16 pixels")
X_train, y_train = X_train[:N_POOL], y_train[:N_POOL]
print("pool", X_train.shape, "test", X_test.shape)

# %%
# A net
# -----
# Any module that gives logits will do; nothing in it knows of active learning.


class ConvNet(nn.Module):
    """Two convolutions and a linear head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.body(x))


net = NeuralNetClassifier(
    ConvNet,
    criterion=nn.CrossEntropyLoss,
    classes=range(10),
    train_split=None,
    optimizer=torch.optim.Adam,
    lr=0.003,
    batch_size=32,
    iterator_train__shuffle=True,
    max_epochs=N_EPOCHS,
    verbose=0,
    device="cuda" if torch.cuda.is_available() else "cpu",
)

# %%
# Two strategies, and chance
# --------------------------
# All start from the same forty labels, each with a net of its own. BADGE seeds k-means++ on gradients of the last
# layer, which are never formed; dynamicAL takes the samples that would speed training up most.

first = np.random.default_rng(0).choice(len(X_train), 40, replace=False)
strategies = [RandomSampling(random_state=0), BADGE(random_state=0), DynamicAL(random_state=0)]
curves, chosen = {}, {}
for strategy in strategies:
    torch.manual_seed(0)
    rest = np.setdiff1d(np.arange(len(X_train)), first)
    learner = ActiveLearner(clone(net), strategy, X_train[first], y_train[first])
    scores, picked = [learner.score(X_test, y_test)], []
    for _ in range(N_ROUNDS):
        indices, samples = learner.query(X_train[rest], n_instances=20)
        picked.append(rest[indices])
        learner.teach(samples, y_train[rest[indices]])
        rest = np.delete(rest, indices)
        scores.append(learner.score(X_test, y_test))
    curves[type(strategy).__name__], chosen[type(strategy).__name__] = scores, picked
    print(f"{type(strategy).__name__:15s}", " ".join(f"{score:.3f}" for score in scores))

# %%
# What was asked
# --------------
# The first ten images of each strategy's first query, with the answers. BADGE wants a query to be varied, dynamicAL
# adds up what single samples promise, so that its picks may resemble one another.

figure, grid = plt.subplots(len(chosen), 10, figsize=(10, 1.35 * len(chosen)), layout="constrained")
for line, (name, picked) in zip(grid, chosen.items(), strict=True):
    for axes, row in zip(line, picked[0], strict=False):
        axes.imshow(X_train[row, 0], cmap="gray_r")
        axes.set_title(names[y_train[row]], fontsize="small")
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, fontsize="small")
plt.show()

# %%
# Accuracy against labels, one run each. The time a query takes stands in ``last_selection_.info``.

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, scores in curves.items():
    axes.plot(40 + 20 * np.arange(N_ROUNDS + 1), scores, marker="o", label=name)
axes.set(xlabel="labels", ylabel="accuracy on the test set")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
for strategy in strategies:
    print(type(strategy).__name__, strategy.last_selection_.info.get("seconds"))
