"""Time of BALD and DeepFool on this machine, as ratios within one run.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_scores.py``; ``--only NAME`` runs one table.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import BALD, DeepFool


def net(d, hidden, n_classes=10, batch_size=512):
    module = nn.Sequential(
        nn.Linear(d, hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, classes=range(n_classes), batch_size=batch_size, verbose=0
    ).initialize()


def seconds(function, repeats=3):
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table_bald(n, d=128, hidden=512):
    """BALD's passes against as many passes of skorch's own predict_proba."""
    learner, X = net(d, hidden), np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    print(f"BALD, {n} x {d}, hidden width {hidden}")
    for n_draws in (1, 10):
        plain = seconds(lambda n_draws=n_draws: [learner.predict_proba(X) for _ in range(n_draws)])
        ours = seconds(lambda n_draws=n_draws: BALD(n_draws=n_draws, random_state=0).select(learner, X, 100))
        print(
            f"  {n_draws} draws: BALD {ours:.3f} s, {n_draws} plain passes {plain:.3f} s, "
            f"ratio BALD to plain {ours / plain:.2f}"
        )


def one_by_one(module, x, max_steps=50):
    """DeepFool as public code has it: one sample and one class at a time; the running minimum is kept."""
    lengths = []
    for sample in x:
        moved = torch.zeros_like(sample)
        own = None
        for _ in range(max_steps):
            point = (sample + moved).requires_grad_()
            f = module(point[None])[0]
            own = int(f.argmax()) if own is None else own
            if int(f.argmax()) != own:
                break
            best, step = torch.inf, None
            for rival in range(len(f)):
                if rival == own:
                    continue
                w = torch.autograd.grad(f[rival] - f[own], point, retain_graph=True)[0]
                distance = float((f[rival] - f[own]).detach().abs() / w.norm())
                if distance < best:
                    best, step = distance, distance / w.norm() * w
            moved = moved + step
        lengths.append(float(moved.square().sum()))
    return np.array(lengths)


def table_deepfool(n_most, d=128, hidden=256, n_looped=100):
    """Seconds a sample of the batched walk and of the loop, and how far their lengths are apart."""
    learner, rng = net(d, hidden), np.random.default_rng(0)
    module = learner.module_.eval()
    X = rng.normal(size=(n_looped, d)).astype(np.float32)
    start = time.perf_counter()
    looped = one_by_one(module, torch.from_numpy(X))
    loop = (time.perf_counter() - start) / n_looped
    ours = DeepFool(random_state=0).select(learner, X, n_looped)
    apart = np.abs(-ours.scores / looped[ours.indices] - 1)
    print(f"DeepFool, d = {d}, hidden width {hidden}, 10 classes")
    print(
        f"  loop: {loop * 1e3:.2f} ms a sample ({n_looped} samples); relative difference of squared lengths "
        f"median {np.median(apart):.1e}, max {apart.max():.1e}"
    )
    for n in (n_most // 100, n_most // 10, n_most):
        pool = rng.normal(size=(n, d)).astype(np.float32)
        batched = seconds(lambda pool=pool: DeepFool(random_state=0).select(learner, pool, 10), repeats=1) / n
        print(f"  N={n}: batched {batched * 1e3:.3f} ms a sample, ratio loop to batched {loop / batched:.0f}")


TABLES = {"bald": table_bald, "deepfool": table_deepfool}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--n", type=int, default=10000, help="size of the largest pool")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options.n)


if __name__ == "__main__":
    main()
