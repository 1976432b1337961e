"""Label digits with WAAL: the net trains against a critic on the unlabelled pool, the query asks that critic.

Run with `python examples/waal_end_to_end.py`; MODAL_NTK_SMALL=1 makes it short.
"""

import os

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from modal_ntk import WAAL, ActiveLearner
from modal_ntk.nets import WAALClassifier

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))


def extractor():
    """Features only: the classifier's head and the critic are put on top by WAALClassifier."""
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU())


def main():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X_pool, X_test, y_pool, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    torch.manual_seed(0)
    net = WAALClassifier(
        extractor,
        classes=range(10),
        n_instances=20,  # what each query will take: it enters the weights of the critic's training
        lr=0.1,
        max_epochs=5 if SMALL else 60,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    # The first samples are taken at random, as in the paper: there is no critic yet.
    first = np.random.default_rng(0).choice(len(X_pool), 20, replace=False)
    X_first, y_first = X_pool[first], y_pool[first]
    X_pool, y_pool = np.delete(X_pool, first, axis=0), np.delete(y_pool, first)
    learner = ActiveLearner(net, WAAL(random_state=0), X_first, y_first, X_unlabeled=X_pool)
    for _ in range(2 if SMALL else 8):
        indices, samples = learner.query(X_pool, n_instances=20)
        answers = y_pool[indices]  # a person would answer here
        X_pool, y_pool = np.delete(X_pool, indices, axis=0), np.delete(y_pool, indices)
        learner.teach(samples, answers, X_unlabeled=X_pool)
        last = learner.estimator.history[-1]
        print(
            f"{len(learner.y_training):4d} labels: accuracy {learner.score(X_test, y_test):.3f}, "
            f"transport estimate {last['transport']:.3f}, gradient penalty {last['penalty']:.3f}"
        )


if __name__ == "__main__":
    main()
