"""
A grid search over strategies
=============================

Which strategy, with which parameters, on which net? ``SimulatedActiveLearning`` replays labelling on data whose
labels are known, and is an estimator like any other: scikit-learn's searches reach its strategy, the strategy's
parameters and the net's at once.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier

from modal_ntk import BADGE, CoreSet, Margin, RandomSampling, TypiClust
from modal_ntk.bench import SimulatedActiveLearning, area_score

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_SAMPLES, N_ROUNDS, N_EPOCHS = (500, 2, 15) if SMALL else (1797, 5, 60)

X, y = load_digits(return_X_y=True)
X, y = (X[:N_SAMPLES] / 16).astype(np.float32), y[:N_SAMPLES]


class Classifier(torch.nn.Module):
    """One hidden layer of a width that the search can set."""

    def __init__(self, n_hidden=32):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, n_hidden), torch.nn.ReLU(), torch.nn.Linear(n_hidden, 10))

    def forward(self, x):
        return self.layers(x)


net = NeuralNetClassifier(
    Classifier,
    criterion=torch.nn.CrossEntropyLoss,
    classes=list(range(10)),
    train_split=None,
    lr=0.5,
    max_epochs=N_EPOCHS,
    verbose=0,
)

# %%
# What is searched
# ----------------
# The strategy is a parameter, ``query_strategy``; its own parameters follow after two underscores, and the net's
# after ``estimator__``. ``area_score`` scores a whole run, by the area under its curve of accuracy against labels,
# and needs the estimators of all rounds.

simulation = SimulatedActiveLearning(
    net, RandomSampling(), n_initial=20, batch_size=20, n_rounds=N_ROUNDS, keep_estimators=True, random_state=0
)
grid = [
    {"query_strategy": [RandomSampling(), Margin(), BADGE(), CoreSet()], "estimator__module__n_hidden": [16, 64]},
    {"query_strategy": [TypiClust()], "query_strategy__n_neighbors": [5, 20], "estimator__module__n_hidden": [16, 64]},
]
search = GridSearchCV(simulation, grid, scoring=area_score, cv=3, refit=False).fit(X, y)

# %%
# What was found
# --------------
# Each line is one setting: the mean and the deviation of the area over three folds. Differences below the deviation
# are not to be taken for differences between strategies.


def described(params):
    strategy = params["query_strategy"]
    own = {key.rpartition("__")[2]: value for key, value in params.items() if key.startswith("query_strategy__")}
    text = ", ".join(f"{key}={value}" for key, value in own.items())
    return f"{type(strategy).__name__}({text}), {params['estimator__module__n_hidden']} hidden"


results = search.cv_results_
order = np.argsort(results["mean_test_score"])
labels = [described(results["params"][i]) for i in order]
means, deviations = results["mean_test_score"][order], results["std_test_score"][order]
for label, mean, deviation in zip(labels[::-1], means[::-1], deviations[::-1], strict=True):
    print(f"{mean:.3f} ± {deviation:.3f}  {label}")

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.errorbar(means, np.arange(len(order)), xerr=deviations, fmt="o")
axes.set_yticks(np.arange(len(order)), labels)
axes.set_xlabel("area under the curve of accuracy against labels")
axes.grid(alpha=0.3)
plt.show()

# %%
# ``n_jobs=2`` in ``GridSearchCV`` runs two settings at once, where the net's class lies in a module that other
# processes can import. Searching on labels that a project has already paid for says which strategy would have paid
# *there*; it is no promise for the next data set.
