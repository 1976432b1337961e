"""
A ten-line loop with modAL
==========================

Label digits with NTKCPL through modAL's own ``ActiveLearner``, starting from no labels at all, and see what chance
would have done with as many labels.
"""

import os
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from modAL.models import ActiveLearner
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier

from modal_ntk import NTKCPL, RandomSampling

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_ROUNDS, N_EPOCHS, N_RANDOM = (4, 20, 2) if SMALL else (8, 100, 5)

# modAL calls scikit-learn by a name that changed in 1.6; ``modal_ntk.ActiveLearner`` uses the new one.
warnings.filterwarnings("ignore", "'force_all_finite' was renamed", FutureWarning)

# %%
# Data and net
# ------------
# The pool holds the samples that may be labelled. A test set is kept aside; outside of examples there is often none.

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)


class Classifier(torch.nn.Module):
    """The classifier of the NTKCPL paper: Linear, BatchNorm, ReLU, Linear."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def forward(self, x):
        return self.layers(x)


# %%
# Three things matter to skorch here. ``classes``: a class without labels is still a class. ``train_split=None``:
# twenty labels leave nothing to validate on. And the module is given as a *class*, so that every ``teach`` starts
# from new weights; a module given as an instance would continue from its old ones.

net = NeuralNetClassifier(
    Classifier,
    criterion=torch.nn.CrossEntropyLoss,
    classes=range(10),
    train_split=None,
    lr=0.1,
    max_epochs=N_EPOCHS,
    verbose=0,
    device="cuda" if torch.cuda.is_available() else "cpu",
)

# %%
# The loop
# --------
# The first query comes before the first label: NTKCPL needs none. What a query has found out is kept in
# ``last_selection_``: here the number of pseudo-labels and the risk that NTKCPL expects over the pool.

torch.manual_seed(0)
X_pool, y_pool = X_train, y_train
learner = ActiveLearner(estimator=clone(net), query_strategy=NTKCPL(random_state=0))
accuracies = []
for _ in range(N_ROUNDS):
    indices, samples = learner.query(X_pool, n_instances=20)
    learner.teach(samples, y_pool[indices])  # a person would answer here
    X_pool, y_pool = np.delete(X_pool, indices, axis=0), np.delete(y_pool, indices)
    accuracies.append(learner.score(X_test, y_test))
    info = learner.query_strategy.last_selection_.info
    print(
        f"{len(learner.y_training):4d} labels: accuracy {accuracies[-1]:.3f}, "
        f"{info['n_clusters']} pseudo-labels, estimated risk {info['risk'][-1]:.3f}"
    )

# %%
# What chance would have done
# ---------------------------
# The same loop with random sampling, several times over, since one random run says little.

by_chance = np.empty((N_RANDOM, N_ROUNDS))
for seed in range(N_RANDOM):
    X_pool, y_pool = X_train, y_train
    torch.manual_seed(seed)
    learner = ActiveLearner(estimator=clone(net), query_strategy=RandomSampling(random_state=seed))
    for step in range(N_ROUNDS):
        indices, samples = learner.query(X_pool, n_instances=20)
        learner.teach(samples, y_pool[indices])
        X_pool, y_pool = np.delete(X_pool, indices, axis=0), np.delete(y_pool, indices)
        by_chance[seed, step] = learner.score(X_test, y_test)

budgets = 20 * np.arange(1, N_ROUNDS + 1)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(budgets, by_chance.T, color="0.75")
axes.plot(budgets, by_chance.mean(axis=0), color="0.3", label="random sampling: runs and their mean")
axes.plot(budgets, accuracies, marker="o", color="C0", label="NTKCPL, one run")
axes.set(xlabel="labels", ylabel="accuracy on the test set")
axes.legend()
axes.grid(alpha=0.3)
plt.show()

# %%
# One run of a strategy against a few of chance is a picture, not a comparison. How to compare in earnest, from the
# same initial labels and over several seeds, is shown in ``compare_strategies.py``.
