"""
Texts as dicts, over frozen word vectors
========================================

A module for texts takes token ids and a mask, not one array: a dict of arrays, one for each argument of ``forward``.
Its word vectors were learned before, without labels, and are frozen; active learning pays for the classifier alone.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import BADGE, ActiveLearner, LookAhead, RandomSampling
from modal_ntk.nets import take_rows

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
# Word vectors, learned from the unlabelled pool
# ----------------------------------------------
# Which words share a text says what they mean: the leading singular vectors of how much more often than by chance two
# words meet.

N_WORDS = 1 + N_COMMON + N_TOPICS * N_OWN
counts = np.stack([np.bincount(text, minlength=N_WORDS) for text in pool["tokens"]]).astype(np.float32)
counts[:, 0] = 0
together = counts.T @ counts
expected = np.outer(together.sum(1), together.sum(0)) / together.sum()
surprise = np.log(np.maximum(together, 1e-9) / np.maximum(expected, 1e-9)).clip(min=0)
vectors = TruncatedSVD(16, random_state=0).fit_transform(surprise).astype(np.float32)
vectors /= vectors.std()

# %%
# A net on top of them
# --------------------
# The mean of the words' vectors, then a small classifier. The names of ``forward``'s arguments are the dict's keys.


class OverVectors(nn.Module):
    """Mean of frozen vectors where the mask is one, then Linear, ReLU, Linear."""

    def __init__(self, vectors):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(vectors), freeze=True)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, N_TOPICS))

    def forward(self, tokens, mask):
        summed = (self.embedding(tokens) * mask.unsqueeze(-1)).sum(dim=1)
        return self.layers(summed / mask.sum(dim=1, keepdim=True))


net = NeuralNetClassifier(
    OverVectors,
    module__vectors=vectors,
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
# modAL's own ``teach`` stacks arrays and cannot do this with a dict; ``modal_ntk.ActiveLearner`` can. ``take_rows``
# takes the same rows of every part.


def labelled_by(strategy):
    """Rows labelled and accuracy after each round, always from the same first labels."""
    torch.manual_seed(0)
    labeled = np.random.default_rng(1).choice(N_TEXTS, 20, replace=False)
    learner = ActiveLearner(clone(net), strategy, take_rows(pool, labeled), y_pool[labeled])
    scores = [learner.score(test, y_test)]
    for _ in range(N_ROUNDS):
        rest = np.setdiff1d(np.arange(N_TEXTS), labeled)
        indices, texts = learner.query(take_rows(pool, rest), n_instances=20)
        learner.teach(texts, y_pool[rest[indices]])
        labeled = np.concatenate([labeled, rest[indices]])
        scores.append(learner.score(test, y_test))
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
