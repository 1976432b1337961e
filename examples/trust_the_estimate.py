"""
How far to trust NTKCPL's estimate
==================================

NTKCPL chooses by an estimate of the risk over the pool, in which the network is replaced by its kernel and true
labels by clusters. On a pool whose labels are all known, ``diagnose`` puts the estimate beside the truth, and says
where the difference comes from.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from modal_ntk import NTKCPL
from modal_ntk.bench import SimulatedActiveLearning, default_estimator, load_dataset
from modal_ntk.nets import seeded
from modal_ntk.strategies.ntkcpl_diagnostics import diagnose

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_POOL, N_ROUNDS, N_EPOCHS = (500, 3, 40) if SMALL else (1257, 6, 100)

# %%
# A run to look into
# ------------------
# Labels are bought by NTKCPL, twenty at a time.

data = load_dataset("digits")
X, y = data.x_train[:N_POOL], data.y_train[:N_POOL]
net = default_estimator(data).set_params(lr=0.3, max_epochs=N_EPOCHS)
strategy = NTKCPL(random_state=0)
simulation = SimulatedActiveLearning(
    net, strategy, n_initial=20, batch_size=20, n_rounds=N_ROUNDS - 1, initial="query", random_state=0
)
labeled = simulation.fit(X, y).labeled_indices_

# %%
# Belief and truth
# ----------------
# After every round, what NTKCPL believes before its next query is compared with the labels.

found = []
for budget in range(20, 20 * N_ROUNDS + 1, 20):
    known = labeled[:budget]
    with seeded(0):
        fitted = clone(net).fit(X[known], y[known])
    now = diagnose(strategy, fitted, X, y, known, 20)
    found.append(now)
    print(
        f"{budget:4d} labels, {now.n_clusters:3d} clusters: coverage {now.estimated_coverage:.3f} estimated, "
        f"{now.true_coverage:.3f} of the network; kernel and network agree on {now.agreement:.3f}"
    )

# %%
# To the left: the share of the pool predicted rightly, as estimated, as the kernel would with true labels, and as the
# network does. To the right: how often the risk against clusters and the risk against labels disagree on a sample. A
# sample is called wrong that is right where its class has several clusters (over-clustering), and called right that
# is wrong where its cluster holds several classes (impurity).

budgets = [entry.n_labeled for entry in found]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for label, risks in {
    "network, true labels": [entry.network_risk for entry in found],
    "kernel, true labels": [entry.kernel_risk for entry in found],
    "kernel, pseudo-labels: the estimate": [entry.estimated_risk for entry in found],
}.items():
    left.plot(budgets, 1 - np.array(risks), marker="o", label=label)
left.set(xlabel="labels", ylabel="share predicted rightly")
errors = [entry.pseudo_label_error for entry in found]
over, impure = (np.array([getattr(error, name) for error in errors]) for name in ("over_clustered", "impure"))
rest = np.array([error.total for error in errors]) - over - impure
right.stackplot(budgets, over, impure, rest, labels=["over-clustering", "impurity", "other"], alpha=0.8)
right.set(xlabel="labels", ylabel="share judged differently")
for axes in (left, right):
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
plt.show()

# %%
# The same on 10,000 self-supervised features of Fashion-MNIST, by the study ``ntkcpl_diagnostics`` of
# ``examples/reproduce``, is in ``examples/reproduce/results/ntkcpl/ntkcpl_diagnostics.md``.
