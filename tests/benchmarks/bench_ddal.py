"""Speed and memory of DDAL on this machine: its parts as multiples of the sparse products it cannot do without.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_ddal.py``; ``--only parts``, ``growth`` or ``accuracy`` runs
one table, ``--sizes 10000 100000`` shortens the second. Every size runs in a process of its own, for peaks of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

from modal_ntk import DDAL, structure

N_FEATURES, N_CLASSES, N_LABELED, N_NEIGHBORS, BATCH = 64, 10, 200, 10, 100


def mixture(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ten overlapping Gaussian classes of 16 intrinsic dimensions in 64, float32."""
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=n)
    latent = rng.normal(size=(N_CLASSES, 16))[y] * 2 + rng.normal(size=(n, 16))
    return (latent @ rng.normal(size=(16, N_FEATURES)) / 4).astype(np.float32), y


def seconds_of_products(matrix, values, n_steps: int) -> float:
    """Seconds of as many sparse products as a diffusion makes."""
    started = time.perf_counter()
    for _ in range(n_steps):
        values = matrix @ values
    return time.perf_counter() - started


def measured(n: int) -> dict[str, float]:
    """Seconds of one first query and of later ones on a kept graph, beside the floor."""
    X, y = mixture(n)
    given = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}
    strategy = DDAL(n_neighbors=N_NEIGHBORS, per_round=None, random_state=0)
    pool = X[N_LABELED:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = strategy.select(None, pool, BATCH, **given)
    transition = strategy._memory._last[3]
    chi, n_steps = np.zeros((n, N_CLASSES), np.float32), first.info["n_steps"]
    floors, runs = [], []
    for _ in range(9):  # in turns, so that other work on the machine disturbs both alike
        floors.append(seconds_of_products(transition, chi, n_steps))
        runs.append(strategy.select(None, pool, BATCH, **given).info["seconds"])
    floor, best = min(floors), min(runs, key=lambda seconds: seconds["total"])
    assert strategy.select(None, pool, BATCH, **given).info["graph_reused"]
    one_by_one = {}
    if n <= 100_000:
        strategy.set_params(per_round=1).select(None, pool, 2, **given)  # compiled before it is timed
        started = time.process_time()
        info = strategy.select(None, pool, BATCH, **given).info
        assert info["n_rounds"] == BATCH
        one_by_one["one by one"] = time.process_time() - started  # one thread: CPU seconds, whatever else runs
    return {
        "n": n,
        "n_steps": n_steps,
        "unreached": first.info["n_unreached"],
        "first": first.info["seconds"]["total"],
        "floor": floor,
        **{f"later {stage}": seconds for stage, seconds in best.items()},
        **one_by_one,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def in_a_process(n: int) -> dict[str, float]:
    """Run `measured` in a fresh interpreter."""
    out = subprocess.run([sys.executable, __file__, "--measure", str(n)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def table_parts(n: int = 100_000) -> None:
    """Where the time of a query goes, neighbour search apart."""
    row = in_a_process(n)
    print(
        f"{table_parts.__doc__} {n} x {N_FEATURES}, K={N_NEIGHBORS}, {N_CLASSES} classes, T={row['n_steps']}, float32"
    )
    floor = row["floor"]
    print(f"  floor, T sparse products of SciPy: {floor * 1e3:.0f} ms")
    rest = row["later total"]
    for stage in ("graph", "hops", "diffusion", "picks"):
        seconds = row[f"later {stage}"]
        rest -= seconds
        print(f"  {stage}: {seconds * 1e3:.0f} ms, {seconds / floor:.2f} floors")
    print(f"  checks of arguments: {rest * 1e3:.0f} ms, {rest / floor:.2f} floors")
    total = row["later total"]
    print(f"  total of a query on a kept graph: {total * 1e3:.0f} ms, {total / floor:.2f} floors")
    print(f"  first query, with exact neighbour search: {row['first']:.1f} s")
    one_by_one = row["one by one"]
    each = one_by_one / floor / BATCH
    print(f"  {BATCH} picks with a diffusion after each: {one_by_one:.1f} CPU s, {each:.2f} floors a pick")
    assert one_by_one < 10, "the bound of a query on a kept graph"


def table_growth(sizes: list[int]) -> None:
    """Growth with the number of rows; from above 100,000 on neighbours are approximate."""
    print(table_growth.__doc__)
    for n in sizes:
        row = in_a_process(n)
        print(
            f"  N={n}: T={row['n_steps']}, first query {row['first']:.1f} s, later ones {row['later total']:.3f} s "
            f"({row['later total'] / n * 1e6:.2f} us a row, {row['later total'] / row['floor']:.2f} floors), "
            f"peak {row['peak_gib']:.2f} GiB, unreached {row['unreached']}"
        )


def table_accuracy(n: int = 20_000) -> None:
    """How many true neighbours the approximate search finds."""
    X, _ = mixture(n)
    exact, _ = structure.nearest_neighbors(X, N_NEIGHBORS, method="exact")
    found, _ = structure.nearest_neighbors(X, N_NEIGHBORS, method="approximate", random_state=0)
    share = np.mean([len(set(a) & set(b)) / N_NEIGHBORS for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    print(f"{table_accuracy.__doc__} N={n}: {share:.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["parts", "growth", "accuracy"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure)))
        return
    print(f"{os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    if arguments.only in (None, "parts"):
        table_parts()
    if arguments.only in (None, "growth"):
        table_growth(arguments.sizes)
    if arguments.only in (None, "accuracy"):
        table_accuracy()


if __name__ == "__main__":
    main()
