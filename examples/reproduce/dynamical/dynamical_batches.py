"""How dynamicAL's batches differ: the largest scores, the exact greedy batch, and the best batch there is.

    python examples/reproduce dynamical_batches [--problems 300] [--out FILE]

What is compared is the objective itself: the training dynamics G of the labelled set and the batch under its
pseudo-labels. Greedy sees the products inside the batch and top-b does not, but neither
is sure to be ahead, so losses are counted as well. On tiny pools all batches are tried.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import DynamicAL, kernels
from modal_ntk.bench import load_dataset


class MLP(nn.Sequential):
    """Two hidden layers."""

    def __init__(self, n_features, n_hidden, n_classes):
        super().__init__(
            nn.Linear(n_features, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_classes),
        )


def net_of(n_features, n_hidden, n_classes, epochs=0):
    """A skorch net in float64, to be trained for so many epochs."""
    return NeuralNetClassifier(
        MLP,
        module__n_features=n_features,
        module__n_hidden=n_hidden,
        module__n_classes=n_classes,
        classes=list(range(n_classes)),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=epochs,
        batch_size=256,
        train_split=None,
        verbose=0,
    )


def random_problem(seed, n_pool, n_labeled=10, n_features=8):
    """A net as initialised, a pool and labels, all at random."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = net_of(n_features, 16, 4).initialize()
    net.module_.double()
    labeled = {"X_labeled": rng.normal(size=(n_labeled, n_features)), "y_labeled": rng.integers(4, size=n_labeled)}
    return net, rng.normal(size=(n_pool, n_features)), labeled


def digits_problem(seed, n_pool, n_labeled=20):
    """A net trained on a few digits, and a pool of others."""
    torch.manual_seed(seed)
    data = load_dataset("digits")
    rows = np.random.default_rng(seed).permutation(len(data.x_train))[: n_labeled + n_pool]
    known, rest = rows[:n_labeled], rows[n_labeled:]
    net = net_of(64, 32, 10, epochs=30).fit(data.x_train[known], data.y_train[known])
    net.module_.double()
    labeled = {"X_labeled": data.x_train[known].astype(float), "y_labeled": data.y_train[known]}
    return net, data.x_train[rest].astype(float), labeled


def outcome(net, pool, labeled, n_instances, batch):
    """The batch of a rule, and the dynamics with it."""
    selected = DynamicAL(batch=batch, random_state=0).select(net, pool, n_instances, **labeled)
    return set(selected.indices.tolist()), selected.info["dynamics_after"]


def compare(problem, n_problems, n_pool, n_instances):
    """Top-b against greedy: how often another batch, who is ahead, and by how much."""
    differ, ahead = 0, []
    for seed in range(n_problems):
        net, pool, labeled = problem(seed, n_pool)
        (top, at_top), (greedy, at_greedy) = (outcome(net, pool, labeled, n_instances, b) for b in ("top", "greedy"))
        differ += top != greedy
        ahead.append((at_greedy - at_top) / at_top if top != greedy else 0.0)
    ahead = np.array(ahead)
    wins, losses = int((ahead > 1e-9).sum()), int((ahead < -1e-9).sum())
    return (
        f"{problem.__name__}, {n_instances} of {n_pool}, {n_problems} problems: another batch in {differ}; "
        f"greedy ahead in {wins}, behind in {losses}; its G over top-b's: mean {ahead.mean():+.2%}, "
        f"median {np.median(ahead):+.2%}, from {ahead.min():+.2%} to {ahead.max():+.2%}"
    )


def against_optimum(n_problems, n_pool=12, n_instances=4):
    """Both rules as parts of the G of the best batch, found by trying all."""
    parts = {"top": [], "greedy": []}
    for seed in range(n_problems):
        net, pool, labeled = random_problem(seed, n_pool, n_labeled=6)
        x = torch.from_numpy(np.concatenate([labeled["X_labeled"], pool]))
        with torch.no_grad():
            pseudo = net.module_(x).argmax(1)
        pseudo[:6] = torch.from_numpy(labeled["y_labeled"])
        gram = kernels.empirical_ntk(net.module_, x, kind="loss", labels=pseudo).numpy()
        known = list(range(6))
        best = max(
            gram[np.ix_(rows, rows)].sum()
            for batch in itertools.combinations(range(6, 6 + n_pool), n_instances)
            for rows in [[*known, *batch]]
        )
        for rule, found in parts.items():
            found.append(outcome(net, pool, labeled, n_instances, rule)[1] / best)
    lines = [f"the best of all batches, {n_instances} of {n_pool}, {n_problems} random problems:"]
    for rule, found in parts.items():
        part = np.array(found)
        lines.append(
            f"  {rule}: the best batch in {int((part > 1 - 1e-9).sum())}; "
            f"part of its G: mean {part.mean():.2%}, least {part.min():.2%}"
        )
    return "\n".join(lines)


def main(argv):
    """Print the counts."""
    small = bool(os.environ.get("MODAL_NTK_SMALL"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=5 if small else 300)
    parser.add_argument("--out", help="file for what is printed")
    arguments = parser.parse_args(argv)
    n = arguments.problems
    lines = [
        compare(random_problem, n, 60, 5),
        compare(random_problem, n, 200, 20),
        compare(digits_problem, max(1, n // 6), 400, 20),
        against_optimum(n),
    ]
    print("\n".join(lines))
    if arguments.out:
        Path(arguments.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
