"""Find flipped labels by what samples teach each other, and look at the worst pair.

Run with `python examples/find_label_errors.py`; MODAL_NTK_SMALL=1 makes it short.
"""

import os

import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from modal_ntk.pruning import EL2N, find_label_conflicts

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
SHADES = np.array(list(" .:-=+*#%@"))


def flipped(y, share, rng):
    """Return labels of which a share are another class, and which these are."""
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    noisy = y.copy()
    noisy[rows] = (y[rows] + rng.integers(1, 10, len(rows))) % 10
    return noisy, rows


def side_by_side(*images):
    """Draw digits of 8 by 8 pixels as text."""
    lines = [SHADES[np.round(image * 9).astype(int)] for image in images]
    return "\n".join("   ".join("".join(line) for line in row) for row in zip(*lines, strict=True))


def main():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    if SMALL:
        X, y = X[:600], y[:600]
    noisy, rows = flipped(y, 0.05, np.random.default_rng(0))
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)),
        criterion=torch.nn.CrossEntropyLoss,
        classes=list(range(10)),
        train_split=None,
        lr=0.5,
        max_epochs=10 if SMALL else 30,
        verbose=0,
    ).fit(X, noisy)

    found = find_label_conflicts(net, X, noisy)
    by_loss = EL2N(net, n_models=1, n_epochs=10, random_state=0).fit(X, noisy).scores_
    n = len(rows)
    print(f"{n} of {len(y)} labels were flipped; of as many suspects, flipped are")
    print(f"  by conflict: {np.isin(found.indices[:n], rows).mean():.0%}")
    print(f"  by EL2N:     {np.isin(np.argsort(-by_loss)[:n], rows).mean():.0%}")
    worst = found.indices[0]
    other = found.opponents[worst]
    print(f"\nThe first suspect, labelled {noisy[worst]}, and what it contradicts, labelled {noisy[other]}:\n")
    print(side_by_side(X[worst].reshape(8, 8), X[other].reshape(8, 8)))


if __name__ == "__main__":
    main()
