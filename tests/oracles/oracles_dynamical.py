"""Training dynamics written out in float64, one plain backward pass a sample; nothing shared with the library."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch.nn import functional as F


def loss_of(logits, label, loss):
    if loss == "cross_entropy":
        return -logits.log_softmax(0)[label]
    target = F.one_hot(torch.tensor(label), len(logits)).to(logits)
    return 0.5 * ((logits - target) ** 2).sum()


def gradients(module, x, labels=None, *, loss="cross_entropy", names=None):
    """Each sample's loss gradient (n, P), and the labels it was taken at: given, or the largest logit's."""
    module = copy.deepcopy(module).double().eval()
    parameters = [p for name, p in module.named_parameters() if p.requires_grad and (names is None or name in names)]
    rows, used = [], []
    for i, sample in enumerate(x):
        sample = sample if not sample.is_floating_point() else sample.double()
        logits = module(sample[None])[0]
        label = int(np.argmax(logits.detach().numpy())) if labels is None else int(labels[i])
        found = torch.autograd.grad(loss_of(logits, label, loss), parameters, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        rows.append(np.concatenate([np.zeros(p.numel()) if g is None else g.numpy().ravel() for p, g in pairs]))
        used.append(label)
    return np.array(rows), np.array(used)


def dynamics(*sets):
    """Squared length of the sum of all rows of all sets."""
    return float((np.concatenate(sets).sum(0) ** 2).sum())


def scores(pool, labeled, influence=2.0):
    return np.array([g @ g + influence * (g @ labeled.sum(0)) for g in pool])


def greedy(pool, labeled, n):
    """Add, one at a time, the row that makes the dynamics of all largest; ties to the lowest."""
    picks, values = [], []
    for _ in range(n):
        now = dynamics(labeled, pool[picks])
        gains = {c: dynamics(labeled, pool[[*picks, c]]) - now for c in range(len(pool)) if c not in picks}
        best = max(gains, key=lambda c: (gains[c], -c))
        picks.append(best)
        values.append(gains[best])
    return picks, values


def de_influence(pool, labeled, n, size):
    """The authors' rule: `size` at a time, less the product with the mean of every earlier sub-batch."""
    plain, picks, values, penalty = scores(pool, labeled), [], [], np.zeros(pool.shape[1])
    while len(picks) < n:
        now = [plain[i] - pool[i] @ penalty if i not in picks else -np.inf for i in range(len(pool))]
        chosen = sorted(range(len(pool)), key=lambda i: (-now[i], i))[: min(size, n - len(picks))]
        picks += chosen
        values += [now[i] for i in chosen]
        penalty = penalty + pool[chosen].mean(0)
    return picks, values


def optimum(pool, labeled, n):
    """The subset of n rows with the largest dynamics, by trying all."""
    return max(itertools.combinations(range(len(pool)), n), key=lambda q: dynamics(labeled, pool[list(q)]))
