"""
WAAL from end to end
====================

WAAL trains the net and asks with the same game: a critic tries to tell unlabelled samples from labelled ones, the
features try to deceive it, and the query takes what is uncertain to the classifier and, to the critic, unlike
everything labelled.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from modal_ntk import WAAL, ActiveLearner
from modal_ntk.nets import WAALClassifier

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_ROUNDS, N_EPOCHS = (3, 20) if SMALL else (8, 60)

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
X_pool, X_test, y_pool, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)

# %%
# The net
# -------
# The module gives features only: ``WAALClassifier`` puts the classifier's head and the critic on top. It is a skorch
# net in all else. ``n_instances`` is what each query will take; it enters the weights of the critic's training.


def extractor():
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU())


torch.manual_seed(0)
net = WAALClassifier(
    extractor,
    classes=range(10),
    n_instances=20,
    lr=0.1,
    max_epochs=N_EPOCHS,
    verbose=0,
    device="cuda" if torch.cuda.is_available() else "cpu",
)

# %%
# The loop
# --------
# The first samples are taken at random, as in the paper: there is no critic yet. From then on ``X_unlabeled`` hands
# the pool to the net at every fit, and what was queried has left it by then.

first = np.random.default_rng(0).choice(len(X_pool), 20, replace=False)
X_first, y_first = X_pool[first], y_pool[first]
X_pool, y_pool = np.delete(X_pool, first, axis=0), np.delete(y_pool, first)
learner = ActiveLearner(net, WAAL(random_state=0), X_first, y_first, X_unlabeled=X_pool)
accuracies = [learner.score(X_test, y_test)]
histories = [learner.estimator.history[:, "transport"]]
for _ in range(N_ROUNDS):
    indices, samples = learner.query(X_pool, n_instances=20)
    answers = y_pool[indices]  # a person would answer here
    X_pool, y_pool = np.delete(X_pool, indices, axis=0), np.delete(y_pool, indices)
    learner.teach(samples, answers, X_unlabeled=X_pool)
    accuracies.append(learner.score(X_test, y_test))
    histories.append(learner.estimator.history[:, "transport"])
    last = learner.estimator.history[-1]
    print(
        f"{len(learner.y_training):4d} labels: accuracy {accuracies[-1]:.3f}, "
        f"transport estimate {last['transport']:.3f}, gradient penalty {last['penalty']:.3f}"
    )

# %%
# What to look at
# ---------------
# The transport estimate is how far apart the critic can hold pool and labels: it says whether the game is played at
# all. Where it stays at nought, the critic has nothing to say and WAAL asks by uncertainty alone.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
budgets = 20 * np.arange(1, N_ROUNDS + 2)
left.plot(budgets, accuracies, marker="o")
left.set(xlabel="labels", ylabel="accuracy on the test set")
for budget, history in zip(budgets, histories, strict=True):
    right.plot(np.arange(1, len(history) + 1), history, label=f"{budget} labels")
right.set(xlabel="epoch", ylabel="transport estimate")
right.legend()
for axes in (left, right):
    axes.grid(alpha=0.3)
plt.show()

# %%
# An epoch passes as often as the pool is large, so WAAL takes many more steps than plain training on the same labels.
# How much of its gain comes from the steps alone was measured on Fashion-MNIST:
# ``examples/reproduce/results/waal/waal_fashion_mnist.md``.
