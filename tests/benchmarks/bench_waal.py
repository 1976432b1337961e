"""Speed of WAAL on this machine: its query against entropy's, its training step against a plain classifier's.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_waal.py``; ``--only query`` or ``step`` runs one table,
``--size`` is the number of pool samples. Each pair is timed in turns, so that other work on the machine disturbs both
alike; times are the least of the repeats.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import WAAL, Entropy
from modal_ntk.nets import TwoLayerHead, WAALClassifier


def lenet() -> nn.Sequential:
    """Two convolutions from images (n, 1, 28, 28) to 320 features."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()
    )


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n, 1, 28, 28) and ten classes by turns."""
    rng = np.random.default_rng(seed)
    return rng.random((n, 1, 28, 28), dtype=np.float32), np.arange(n) % 10


def fastest(functions: dict[str, object], repeats: int) -> dict[str, float]:
    """Least seconds of each function, called in turns after one call unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in times.items()}


def query(size: int, repeats: int) -> None:
    """Time a query of 500 by WAAL and by entropy on one net."""
    X, y = images(640)
    net = WAALClassifier(lenet, classes=range(10), max_epochs=1, batch_size=256, verbose=0)
    net.fit(X[:320], y[:320], X_unlabeled=X[320:])
    pool = images(size, 1)[0]
    strategies = {"waal": WAAL(random_state=0), "entropy": Entropy(random_state=0)}
    calls = {name: lambda s=s: s.select(net, pool, min(500, size)) for name, s in strategies.items()}
    seconds = fastest(calls, repeats)
    ratio = seconds["waal"] / seconds["entropy"]
    print(f"query, pool of {size}: waal {seconds['waal']:.3f} s, entropy {seconds['entropy']:.3f} s, ratio {ratio:.3f}")


def step(repeats: int, batch_size: int = 64, n_steps: int = 60) -> None:
    """Time a training step by the epoch, against a plain skorch net on as many batches of the same size."""
    n = batch_size * n_steps
    X, y = images(n)
    options = {"batch_size": batch_size, "classes": list(range(10)), "verbose": 0, "max_epochs": 1, "lr": 0.01}
    adversarial = WAALClassifier(lenet, **options)
    plain = NeuralNetClassifier(
        nn.Sequential(lenet(), TwoLayerHead(320, 10)),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        iterator_train__shuffle=True,
        optimizer__momentum=0.5,
        **options,
    )
    adversarial.fit(X[:640], y[:640], X_unlabeled=X)
    plain.fit(X, y)
    calls = {
        "waal": lambda: adversarial.partial_fit(X[:640], y[:640], X_unlabeled=X),
        "plain": lambda: plain.partial_fit(X, y),
    }
    seconds = {name: value / n_steps * 1e3 for name, value in fastest(calls, repeats).items()}
    ratio = seconds["waal"] / seconds["plain"]
    print(f"step of {batch_size}: waal {seconds['waal']:.2f} ms, plain {seconds['plain']:.2f} ms, ratio {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["query", "step"])
    parser.add_argument("--size", type=int, default=10000, help="samples in the pool")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.only != "step":
        query(options.size, options.repeats)
    if options.only != "query":
        step(options.repeats)


if __name__ == "__main__":
    main()
