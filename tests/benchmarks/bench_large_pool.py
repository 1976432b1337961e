"""One query over a pool that is a file: seconds of the processor and by the clock, and the most memory held.

python tests/benchmarks/bench_large_pool.py STRATEGY [--rows N] [--columns D] [--picks B] [--cache] [--folder DIR]

The file holds N x D float16 numbers (1.2 GiB for 5,000,000 x 128), made block by block where it is not there yet. The
strategy reads it as a memory map; with --cache through a `CachedPool`, whose folder stays for the next strategy. DDAL
and MaxHerding choose from a part drawn at random: the graph of more rows, and all pairs, take more memory or time.
Peak resident memory counts the pages of mapped files that are in memory, which the system may take back at any time.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk import CandidateSubset, get_strategy
from modal_ntk.bench.loop.memory import PeakMemory
from modal_ntk.nets import CachedPool

BLOCK = 50_000
CLASSES, WIDTH, LABELS = 10, 64, 500

STRATEGIES = {
    "maxherding": lambda: CandidateSubset(get_strategy("maxherding", random_state=0), 10_000, random_state=0),
    "ddal": lambda: CandidateSubset(
        get_strategy("ddal", search="approximate", per_round=None, random_state=0), 500_000, random_state=0
    ),
}


def blocks(n_rows, n_columns, seed=1):
    """Samples around one centre a class, in blocks that depend on their number alone."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, n_columns)).astype(np.float32)
    for number, start in enumerate(range(0, n_rows, BLOCK)):
        rng = np.random.default_rng([seed, number])
        labels = rng.integers(CLASSES, size=min(BLOCK, n_rows - start))
        yield start, centres[labels] + 2 * rng.standard_normal((len(labels), n_columns), np.float32), labels


def pool_file(folder, n_rows, n_columns):
    path = folder / f"pool_{n_rows}x{n_columns}.npy"
    if not path.exists():
        part = path.with_suffix(".part")
        pool = np.lib.format.open_memmap(part, "w+", np.float16, (n_rows, n_columns))
        for start, rows, _ in blocks(n_rows, n_columns):
            pool[start : start + len(rows)] = rows
        pool.flush()
        del pool
        part.replace(path)
    return path


def trained_net(n_columns):
    # The labelled are none of the pool.
    *_, (_, X, y) = blocks(LABELS, n_columns, seed=2)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(n_columns, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=5, lr=0.05, batch_size=512, train_split=None, verbose=0
    )
    return net.fit(X[:LABELS].astype(np.float32), y[:LABELS]), X[:LABELS].astype(np.float16), y[:LABELS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategy")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--picks", type=int, default=100)
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    path = pool_file(asked.folder, asked.rows, asked.columns)
    net, X_labeled, y_labeled = trained_net(asked.columns)
    make = STRATEGIES.get(asked.strategy, lambda: get_strategy(asked.strategy, random_state=0))
    # What the first call compiles and imports is no part of the measure.
    make().select(net, X_labeled, 5, X_labeled=X_labeled[:20], y_labeled=y_labeled[:20])
    pool = np.load(path, mmap_mode="r")
    if asked.cache:
        pool = CachedPool(pool, path.with_suffix(".cache"))
    before, peak, started = PeakMemory().peak().host, PeakMemory(), (process_time(), perf_counter())
    chosen = make().select(net, pool, asked.picks, X_labeled=X_labeled, y_labeled=y_labeled)
    seconds, most = (process_time() - started[0], perf_counter() - started[1]), peak.peak().host
    print(
        f"{asked.strategy}: {asked.rows} x {asked.columns}, {asked.picks} picks: {seconds[0]:.1f} s of the "
        f"processor, {seconds[1]:.1f} s by the clock, peak {most / 2**30:.2f} GiB ({before / 2**30:.2f} before), "
        f"first picks {chosen.indices[:3].tolist()}"
    )


if __name__ == "__main__":
    main()
