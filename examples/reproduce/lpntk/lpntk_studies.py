"""Stages of lpntk_mnist: forgetting, learning difficulty and its control, label conflicts."""

import copy
import importlib.util

import lpntk_pictures
import numpy as np
import torch
from lpntk_common import DEVICE, Table, images, pruned, reference, trained
from sklearn.model_selection import cross_val_predict
from torch.nn import functional as F

from modal_ntk import nets
from modal_ntk.bench.experiment.estimators import LeNet
from modal_ntk.kernels import kernel_rows
from modal_ntk.pruning import EL2N, find_label_conflicts, predict_forgetting
from modal_ntk.pruning.forgetting import ForgettingEvents

ERRORS = ("uniform", "uniform_counts", "true")
SIZES = (1, 4, 16, 64, 256, 1024, 4096)
ADDED = (1, 4, 16, 64)


def forgetting(options):
    """Forgetting foretold over the first 50 steps of 128 samples at a rate of 0.001; the paper: 42.7, 59.0, 49.5."""
    X, y, _, _ = images(options)
    keys, values = ["loss", "error", "seed"], ["events", "precision", "recall", "f1"]
    table = Table(options.out / "forgetting.csv", keys, values, options.minutes)
    for seed in range(options.seeds):
        # The paper does not say how the loss adds up over the batch: its formulas have a sum, its code the mean.
        for loss in ("sum", "mean"):
            if any(table.missing(loss, error, seed) for error in ERRORS):
                for error, events in _foretold(X, y, seed, loss, options.steps).items():
                    if table.missing(loss, error, seed):
                        counted = int(events.happened.sum())
                        table.add(loss, error, seed, counted, events.precision, events.recall, events.f1)
    for loss, of_loss in table.by("loss").items():
        for error in ERRORS:
            rows = [row for row in of_loss if row["error"] == error]
            events = int(sum(row["events"] for row in rows))
            shares = ", ".join(
                f"{name} {np.mean([r[name] for r in rows]):.1%} +- {np.std([r[name] for r in rows]):.1%}"
                for name in ("precision", "recall", "f1")
            )
            print(f"{loss} loss, error {error:14s}: {events} events in {len(rows)} seeds, {shares}")


def _foretold(X, y, seed, loss, n_steps):
    rng = np.random.default_rng(seed)
    with nets.seeded(seed):
        net = LeNet(X.shape[1], 10).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    total = {error: ForgettingEvents(np.zeros(0, bool), np.zeros(0, bool)) for error in ERRORS}
    last = None
    for _ in range(n_steps + 1):
        rows = rng.choice(len(y), 128, replace=False)
        x, labels = torch.from_numpy(X[rows]).to(DEVICE), torch.from_numpy(y[rows]).to(DEVICE)
        before = copy.deepcopy(net)
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels, reduction=loss).backward()
        optimizer.step()
        for error in ERRORS if last is not None else ():
            total[error] += predict_forgetting(before, net, *last, x, labels, lr=1e-3, error=error, reduction=loss)
        last = (x, labels)
    return total


def difficulty(options):
    """Correlation of learning difficulty between subsets of different sizes, from one initialisation.

    Sizes are numbers of samples of each class, as the paper's section 3.2 has them. Epochs are ten times --epochs: the
    paper does not say how many, and after few of them small subsets have hardly been trained on.
    """
    X, y, _, _ = images(options)
    n = min(SIZES[-1], int(np.bincount(y).min()))
    rng = np.random.default_rng(0)
    by_class = np.stack([rng.permutation(np.flatnonzero(y == label))[:n] for label in np.unique(y)], 1)
    sizes = [size for size in SIZES if size < n] + [n]
    whole = min(n // size * size for size in sizes)
    summed = []
    for size in sizes[::-1]:
        path = options.out / f"difficulty {size} of {n}.npy"
        if not path.exists():
            parts = [by_class[start : start + size].ravel() for start in range(0, n - size + 1, size)]
            losses = [_integrated(X[rows], y[rows], 10 * options.epochs, **options.difficulty) for rows in parts]
            np.save(path, np.concatenate(losses))
        summed.append(np.load(path)[: whole * by_class.shape[1]])
    table = np.corrcoef(summed)
    np.savetxt(options.out / "difficulty.csv", table, fmt="%.4f", delimiter=",", header=",".join(map(str, sizes[::-1])))
    print("sizes", sizes[::-1], table.round(4), sep="\n")


def _integrated(X, y, epochs, *, watched=None, seed=0, lr=0.1, batch=128):
    # Algorithm 1: losses as samples are met, added up over the epochs.
    with nets.seeded(0):
        net = LeNet(X.shape[1], 10).to(DEVICE)
    x, labels = torch.from_numpy(X).to(DEVICE), torch.from_numpy(y).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    total = torch.zeros(len(y), device=DEVICE)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(y))).to(DEVICE)
        for rows in order.split(batch):
            optimizer.zero_grad()
            losses = F.cross_entropy(net(x[rows]), labels[rows], reduction="none")
            total[rows] += losses.detach()
            losses.mean().backward()
            optimizer.step()
    return (total if watched is None else total[watched]).cpu().numpy()


def control(options):
    """Difficulty of the centres of the head clusters beside interchangeable, medium and non-interchangeable samples."""
    X, y, _, _ = images(options)
    keys = ["kind", "n_added", "seed"]
    table = Table(options.out / "control.csv", keys, ["difficulty"], options.minutes)
    ordered = _by_relation(X, y, options)
    for seed in range(options.seeds):
        for n_added in ADDED:
            for kind in ("interchangeable", "medium", "non-interchangeable"):
                if table.missing(kind, n_added, seed):
                    targets = [rows["target"] for rows in ordered.values()]
                    added = [i for rows in ordered.values() for i in rows[kind][:n_added]]
                    rows = np.array(targets + added)
                    of_targets = np.arange(len(targets))
                    losses = _integrated(X[rows], y[rows], 5 * options.epochs, watched=of_targets, seed=seed, lr=0.05)
                    table.add(kind, n_added, seed, float(losses.mean()))
    found = {
        kind: {n: [row["difficulty"] for row in rows if row["n_added"] == n] for n in ADDED}
        for kind, rows in table.by("kind").items()
    }
    for kind, by_number in found.items():
        means = {n: round(float(np.mean(values)), 3) for n, values in by_number.items() if values}
        print(f"{kind:20s} mean difficulty of the targets by number added: {means}")
    lpntk_pictures.difficulties(found, options.out / "control.png")


def _by_relation(X, y, options):
    # By class: the centre of the head cluster, and other samples by how far learning them is learning it.
    net = reference(X, y, options)
    pruner = pruned(net, X, y, redundancy="none", mode="head_only")
    found = {}
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        rows = kernel_rows(net.module_, torch.from_numpy(X[members]), labels=y[members])
        head = pruner.head_[members]
        number = pruner.clusters_[members][head][0]
        target = pruner.centres_[label][number]
        to_target = rows.row(int(np.flatnonzero(members == target)[0]))
        order = members[np.argsort(-to_target, kind="stable")]
        in_head = np.isin(order, members[head])
        inside, outside = order[in_head & (order != target)], order[~in_head]
        found[label] = {
            "target": target,
            "interchangeable": inside,
            "medium": inside[::-1],
            "non-interchangeable": outside[::-1] if len(outside) else inside[::-1],
        }
    return found


def conflicts(options):
    """Share of flipped labels among as many suspects, 5 % of the labels being flipped."""
    X, y, _, _ = images(options)
    keys, values = ["seed", "way"], ["precision"]
    table = Table(options.out / "conflicts.csv", keys, values, options.minutes)
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        rows = rng.choice(len(y), len(y) // 20, replace=False)
        noisy = y.copy()
        noisy[rows] = (y[rows] + rng.integers(1, 10, len(rows))) % 10
        if not table.missing(seed, "conflicts"):
            continue
        net = trained(options.lenet(options.epochs), X, noisy, seed)
        for way, suspicion in _suspicions(net, X, noisy, options).items():
            if table.missing(seed, way):
                table.add(seed, way, float(np.isin(np.argsort(-suspicion, kind="stable")[: len(rows)], rows).mean()))
    for way, found in table.by("way").items():
        print(f"{way:32s} {np.mean([row['precision'] for row in found]):.3f} ({len(found)} seeds)")


def _suspicions(net, X, y, options):
    same_net = net.predict_proba(X).astype(np.float64)
    few = {"n_models": options.models, "n_epochs": options.early}
    ways = {
        "EL2N of the same net": np.linalg.norm(same_net - np.eye(10)[y], axis=1),
        "EL2N": EL2N(options.lenet(options.epochs), random_state=0, **few).fit(X, y).scores_,
    }
    if importlib.util.find_spec("cleanlab"):
        from cleanlab.rank import get_label_quality_scores

        with nets.seeded(0):
            held_out = cross_val_predict(options.lenet(options.epochs), X, y, cv=3, method="predict_proba")
        ways["cleanlab, the same net"] = -get_label_quality_scores(y, same_net)
        ways["cleanlab, three-fold"] = -get_label_quality_scores(y, held_out.astype(np.float64))
    # Last, since a seed with this row counts as done.
    ways["conflicts"] = find_label_conflicts(net, X, y, random_state=0).scores
    return ways
