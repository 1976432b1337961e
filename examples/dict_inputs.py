"""
Texts, and other inputs of several parts
========================================

A module for texts takes token ids and a mask, not one array. skorch passes a dict of arrays, one for each argument of
``forward``; so does this library. modAL's ``teach`` stacks arrays and cannot do this with a dict, so the loop here is
our own: a strategy's ``select`` takes a fitted net and a pool, and that is all.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import BADGE, LookAhead, RandomSampling
from modal_ntk.nets import seeded, take_rows

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_TEXTS, N_ROUNDS, N_EPOCHS = (500, 3, 60) if SMALL else (2000, 8, 80)

# %%
# Made-up texts
# -------------
# Four topics with thirty words of their own, and two hundred words that all of them use. A text is 8 to 24 words long
# and padded to 24 with token 0, which the mask hides.

rng = np.random.default_rng(0)
N_TOPICS, LENGTH, N_OWN, N_COMMON = 4, 24, 30, 200
topics = rng.choice(N_TOPICS, N_TEXTS + 1000, p=[0.55, 0.25, 0.12, 0.08])
own = 1 + N_COMMON + topics[:, None] * N_OWN + rng.integers(N_OWN, size=(len(topics), LENGTH))
common = rng.integers(1, 1 + N_COMMON, size=(len(topics), LENGTH))
mask = np.arange(LENGTH) < rng.integers(8, LENGTH + 1, size=len(topics))[:, None]
tokens = np.where(mask, np.where(rng.random((len(topics), LENGTH)) < 0.3, own, common), 0)
X = {"tokens": tokens.astype(np.int64), "mask": mask.astype(np.float32)}
pool, y_pool = take_rows(X, np.arange(N_TEXTS)), topics[:N_TEXTS]
test, y_test = take_rows(X, np.arange(N_TEXTS, len(topics))), topics[N_TEXTS:]
print({name: part.shape for name, part in pool.items()}, "texts of each topic:", np.bincount(y_pool))

# %%
# An embedding bag
# ----------------
# The mean of the words' embeddings, then a small classifier. The names of ``forward``'s arguments are the dict's
# keys.


class EmbeddingBag(nn.Module):
    """Mean of embeddings where the mask is one, then Linear, ReLU, Linear."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1 + N_COMMON + N_TOPICS * N_OWN, 16, padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, N_TOPICS))

    def forward(self, tokens, mask):
        summed = (self.embedding(tokens) * mask.unsqueeze(-1)).sum(dim=1)
        return self.layers(summed / mask.sum(dim=1, keepdim=True))


def make_net():
    return NeuralNetClassifier(
        EmbeddingBag,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        batch_size=32,
        iterator_train__shuffle=True,
        max_epochs=N_EPOCHS,
        classes=range(N_TOPICS),
        train_split=None,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


# %%
# The loop
# --------
# ``take_rows`` takes the same rows of every part. What is labelled so far is passed by keyword, for strategies that
# look at it.


def labelled_by(strategy):
    """Rows labelled and accuracy after each round; ``seeded`` makes a fit repeatable and leaves torch's generator."""
    labeled = np.random.default_rng(1).choice(N_TEXTS, 20, replace=False)
    scores = []
    for step in range(N_ROUNDS + 1):
        with seeded(step):
            net = make_net().fit(take_rows(pool, labeled), y_pool[labeled])
        scores.append(net.score(test, y_test))
        if step == N_ROUNDS:
            break
        rest = np.setdiff1d(np.arange(N_TEXTS), labeled)
        known = {"X_labeled": take_rows(pool, labeled), "y_labeled": y_pool[labeled]}
        found = strategy.select(net, take_rows(pool, rest), 20, **known)
        labeled = np.concatenate([labeled, rest[found.indices]])
    return labeled, scores


strategies = {
    "random sampling": RandomSampling(random_state=0),
    "BADGE": BADGE(random_state=0),
    "look-ahead": LookAhead(random_state=0),
}
found = {name: labelled_by(strategy) for name, strategy in strategies.items()}
for name, (labeled, scores) in found.items():
    print(
        f"{name:16s}",
        " ".join(f"{score:.3f}" for score in scores),
        "asked of each topic:",
        np.bincount(y_pool[labeled]),
    )

# %%
# Topics are unequal on purpose. To the right, the share of each topic among what was labelled, beside its share in
# the pool: random sampling follows the pool, the others follow the net.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, (_, scores) in found.items():
    left.plot(20 * np.arange(1, N_ROUNDS + 2), scores, marker="o", label=name)
left.set(xlabel="labels", ylabel="accuracy on the test set")
left.legend()
left.grid(alpha=0.3)
shares = {"the pool": np.bincount(y_pool) / N_TEXTS}
shares |= {name: np.bincount(y_pool[rows], minlength=N_TOPICS) / len(rows) for name, (rows, _) in found.items()}
for place, (name, share) in enumerate(shares.items()):
    right.bar(np.arange(N_TOPICS) + 0.2 * place - 0.3, share, width=0.2, label=name)
right.set(xticks=range(N_TOPICS), xlabel="topic", ylabel="share")
right.legend()
plt.show()
