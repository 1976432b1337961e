"""Label digits with NTKCPL through modAL's own ActiveLearner, starting from no labels at all.

Run with `python examples/digits_loop.py`; MODAL_NTK_SMALL=1 makes it short.
"""

import os

import numpy as np
import torch
from modAL.models import ActiveLearner
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier

from modal_ntk import NTKCPL

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))


class Classifier(torch.nn.Module):
    """The classifier of the paper: Linear, BatchNorm, ReLU, Linear."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def forward(self, x):
        return self.layers(x)


def main():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    X_pool, X_test, y_pool, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Classifier,
        criterion=torch.nn.CrossEntropyLoss,
        classes=range(10),
        train_split=None,
        lr=0.1,
        max_epochs=10 if SMALL else 100,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    learner = ActiveLearner(estimator=net, query_strategy=NTKCPL(random_state=0))
    for _ in range(2 if SMALL else 8):
        indices, samples = learner.query(X_pool, n_instances=20)
        learner.teach(samples, y_pool[indices])  # a person would answer here
        X_pool, y_pool = np.delete(X_pool, indices, axis=0), np.delete(y_pool, indices)
        info = learner.query_strategy.last_selection_.info
        print(
            f"{len(learner.y_training):4d} labels: accuracy {learner.score(X_test, y_test):.3f}, "
            f"{info['n_clusters']} pseudo-labels, estimated risk {info['risk'][-1]:.3f}, "
            f"query {info['seconds']['total']:.2f} s"
        )


if __name__ == "__main__":
    main()
