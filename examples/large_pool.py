"""
Two hundred thousand rows
=========================

A query of a large pool should say where it is, and not form what does not fit. Some strategies read every row once; the
kernel strategies draw candidates; and any strategy can be asked about a part.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier

import modal_ntk
from modal_ntk import NTKCPL, CandidateSubset, Margin, MaxHerding

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_ROWS = 20_000 if SMALL else 200_000

# %%
# A pool of ten clouds, and a net that knows a hundred labels
# -----------------------------------------------------------

rng = np.random.default_rng(0)
classes = rng.integers(0, 10, N_ROWS)
pool = (rng.normal(size=(N_ROWS, 64)) + 2 * rng.normal(size=(10, 64))[classes]).astype("float32")
X, y = pool[:100], classes[:100]
layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
net = NeuralNetClassifier(
    layers, criterion=torch.nn.CrossEntropyLoss, classes=range(10), train_split=None, lr=0.1, max_epochs=10, verbose=0
)
net.fit(X, y)

# %%
# Seconds by stage
# ----------------
#
# On a terminal and in a notebook a bar names the stage of whatever takes longer than a second. ``progress=True`` shows
# it everywhere and ends with a line; the seconds are in ``info`` in any case. NTKCPL draws 10,000 candidates by itself;
# ``CandidateSubset`` draws for a strategy that does not, here the rows of smallest margin.

strategies = {
    "margin": Margin(random_state=0),
    "ntkcpl": NTKCPL(n_candidates=2_000 if SMALL else 10_000, random_state=0),
    "maxherding of the 2,000\nleast certain": CandidateSubset(MaxHerding(), 2_000, how="uncertain", random_state=0),
}
spent = {}
with modal_ntk.config_context(progress=True):
    for name, strategy in strategies.items():
        selected = strategy.select(net, pool[100:], 50, X_labeled=X, y_labeled=y)
        spent[name] = selected.info["seconds"]
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in spent[name].items())
        print(f"{' '.join(name.split())}: {len(selected.indices)} of {N_ROWS - 100:,}; seconds: {stages}")

# %%
# Where the time went:

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for stage in dict.fromkeys(stage for seconds in spent.values() for stage in seconds if stage != "total"):
    names = [name for name in spent if stage in spent[name]]
    before = [sum(list(spent[name].values())[: list(spent[name]).index(stage)]) for name in names]
    axes.barh(names, [spent[name][stage] for name in names], left=before, label=stage)
axes.set_xlabel("seconds")
axes.legend()
plt.show()
