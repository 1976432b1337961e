"""How many times faster queries and kernels are on this machine's GPU than on its CPU, with both by name.

Run by hand where there is a GPU: ``python tests/benchmarks/bench_gpu.py [ROWS]``. The last lines say what pinned memory
saves where a pool goes to the GPU in blocks.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from sklearn.base import clone
from torch import nn

import modal_ntk
from modal_ntk.kernels import empirical_ntk
from modal_ntk.selection import look_ahead
from modal_ntk.testing.situations import skorch_net

STRATEGIES = ("margin", "badge", "coreset", "typiclust", "maxherding", "uherding", "dynamical", "lookahead", "ntkcpl")
N_LABELED, N_PICKS, N_FEATURES = 50, 20, 128


class Net(nn.Module):
    """A perceptron of a size that a GPU has something to do with."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Linear(N_FEATURES, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(x)


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the least of three times of some work, after one to warm up."""
    taken = []
    for _ in range(4):
        _wait(device)
        started = perf_counter()
        work()
        _wait(device)
        taken.append(perf_counter() - started)
    return min(taken[1:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def compare(name: str, work: Callable[[str], Callable[[], object]], device: str) -> None:
    """Print how long some work takes on both, and how many times faster the other device is."""
    here, there = seconds(work("cpu"), "cpu"), seconds(work(device), device)
    print(f"{name:<28} {here:9.3f} s {there:9.3f} s   {here / there:7.1f} x", flush=True)


def main(n: int = 10_000, device: str = "cuda") -> None:
    """Print the table for so many rows."""
    card = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{card} against {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; "
          f"torch {torch.__version__}, {n} rows of {N_FEATURES}")  # fmt: skip
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n + N_LABELED, N_FEATURES)).astype("float32"), np.arange(n + N_LABELED) % 10
    here = skorch_net(Net, device="cpu", n_classes=10, batch_size=512).fit(X[:N_LABELED], y[:N_LABELED])
    there = clone(here).set_params(device=device).initialize()
    there.module_.load_state_dict(here.module_.state_dict())
    nets = {"cpu": here, device: there}
    known = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}

    def query(name: str) -> Callable[[str], Callable[[], object]]:
        strategy = modal_ntk.get_strategy(name, random_state=0)
        return lambda where: lambda: strategy.select(nets[where], X[N_LABELED:], N_PICKS, **known)

    for name in STRATEGIES:
        compare(f"query of {name}", query(name), device)
    part = torch.from_numpy(X[: min(n, 2000)])
    compare("kernel", lambda where: lambda: empirical_ntk(nets[where].module_, part.to(where)), device)
    kernel = empirical_ntk(here.module_, part)
    classes = np.arange(len(part)) % 10
    compare("look-ahead", lambda where: lambda: look_ahead(
        kernel.to(where), classes, np.arange(N_LABELED), N_PICKS, random_state=0), device)  # fmt: skip
    if device == "cuda":
        pool, pinned = torch.from_numpy(X), torch.from_numpy(X).pin_memory()
        plain = seconds(lambda: [block.to(device) for block in pool.split(1024)], device)
        quick = seconds(lambda: [block.to(device, non_blocking=True) for block in pinned.split(1024)], device)
        print(f"the pool in blocks to the GPU: {plain:.4f} s, from pinned memory {quick:.4f} s, {plain / quick:.1f} x")
        print(f"pinning it: {seconds(lambda: pool.pin_memory(), device):.4f} s")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("bench_gpu.py needs a GPU")
    main(*map(int, sys.argv[1:2]))
