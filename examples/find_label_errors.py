"""
Find label errors and prune a data set
======================================

What does one training sample teach another? The neural tangent kernel says, and two uses follow: samples that
contradict one another are likely to be mislabelled, and samples that teach what others teach too can go.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from modal_ntk.pruning import EL2N, LpNTKPruner, find_label_conflicts

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_TRAIN, N_EPOCHS = (600, 40) if SMALL else (1300, 40)

# %%
# Digits with five per cent of their labels flipped
# -------------------------------------------------

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, y_train, X_test, y_test = X[:N_TRAIN], y[:N_TRAIN], X[1300:], y[1300:]
rng = np.random.default_rng(0)
flipped = rng.choice(N_TRAIN, round(0.05 * N_TRAIN), replace=False)
noisy = y_train.copy()
noisy[flipped] = (y_train[flipped] + rng.integers(1, 10, len(flipped))) % 10


class Classifier(torch.nn.Module):
    """One hidden layer."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)


torch.manual_seed(0)
net = NeuralNetClassifier(
    Classifier,
    criterion=torch.nn.CrossEntropyLoss,
    classes=list(range(10)),
    train_split=None,
    lr=0.5,
    batch_size=64,
    max_epochs=N_EPOCHS,
    verbose=0,
)

# %%
# Suspects
# --------
# ``find_label_conflicts`` ranks all rows by how much they resemble, to the trained net, samples of other labels more
# than those of their own. EL2N ranks by how wrong young nets are about a sample; it needs several of them.

fitted = clone(net).fit(X_train, noisy)
conflicts = find_label_conflicts(fitted, X_train, noisy)
by_loss = np.argsort(-EL2N(net, n_models=2, n_epochs=10, random_state=0).fit(X_train, noisy).scores_)
n = len(flipped)
print(f"{n} of {N_TRAIN} labels were flipped; of the first {n} suspects, flipped are")
print(f"  by conflict  {np.isin(conflicts.indices[:n], flipped).mean():.0%}")
print(f"  by EL2N      {np.isin(by_loss[:n], flipped).mean():.0%}")

# %%
# Every suspect comes with its opponent: the sample of another label that it resembles most. Seen side by side, a
# person decides in a second which of the two is wrong.

figure, grid = plt.subplots(2, 8, figsize=(10, 3.2), layout="constrained")
for (top, bottom), row in zip(grid.T, conflicts.indices, strict=False):
    for axes, shown in ((top, row), (bottom, conflicts.opponents[row])):
        axes.imshow(X_train[shown].reshape(8, 8), cmap="gray_r")
        axes.set_title(f"labelled {noisy[shown]}", fontsize="small")
        axes.set(xticks=[], yticks=[])
    for spine in top.spines.values():
        spine.set(color="C3" if row in flipped else "C2", linewidth=2)
grid[0, 0].set_ylabel("suspect")
grid[1, 0].set_ylabel("opponent")
figure.suptitle("red: was flipped; green: was not")
plt.show()

# %%
# How many of the flipped labels are found by whoever looks through so many suspects:

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, order in {"conflict": conflicts.indices, "EL2N": by_loss}.items():
    axes.plot(np.arange(1, N_TRAIN + 1), np.cumsum(np.isin(order, flipped)) / n, label=name)
axes.plot([0, N_TRAIN], [0, 1], color="0.7", label="at random")
axes.set(xlabel="suspects looked through", ylabel="flipped labels found")
axes.legend()
axes.grid(alpha=0.3)
plt.show()

# %%
# What can go
# -----------
# On the true labels now. Within each class ``LpNTKPruner`` clusters samples by what they teach and drops a share of the
# largest cluster, where most is said twice. The paper also drops samples that resemble another more than themselves. On
# these raw pixels, where one sample's gradient can be far longer than another's, that rule alone would take far more
# than the fifth that the paper speaks of, so that ``max_redundant`` stops it at a tenth. ``fit_resample`` is that of
# imbalanced-learn.


def mean_accuracy(subsets):
    scores = []
    for seed, rows in enumerate(subsets):
        torch.manual_seed(seed)
        scores.append(clone(net).fit(X_train[rows], y_train[rows]).score(X_test, y_test))
    return np.mean(scores)


N_SEEDS = 3
print(f"all {N_TRAIN} samples: accuracy {mean_accuracy([np.arange(N_TRAIN)] * N_SEEDS):.3f}")
for redundancy in ("none", "all"):
    pruner = LpNTKPruner(net, redundancy=redundancy, head_drop=0.5, random_state=0)
    X_kept, y_kept = pruner.fit_resample(X_train, y_train)
    drawn = [np.random.default_rng(seed).choice(N_TRAIN, len(X_kept), replace=False) for seed in range(N_SEEDS)]
    print(
        f'redundancy="{redundancy}": {pruner.shares_["redundant"]:.0%} redundant, {len(X_kept)} kept: accuracy '
        f"{mean_accuracy([pruner.sample_indices_] * N_SEEDS):.3f}, as many drawn at random: {mean_accuracy(drawn):.3f}"
    )
