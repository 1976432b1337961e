"""Wall time of a comparison by one job and by several, and of one query over a large pool by workers; same results.

python tests/benchmarks/bench_distribution.py [JOBS] [SAMPLES]
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import joblib
import numpy as np

from modal_ntk import DynamicAL
from modal_ntk.bench import Protocol, Workers, default_estimator, load_dataset, run_protocol


def comparison(folder, jobs):
    protocol = Protocol(strategies=["margin", "entropy"], seeds=4, n_rounds=2)
    rows = {}
    for n in (1, jobs):
        started = perf_counter()
        rows[n] = run_protocol(protocol, out=folder / str(n), workers=Workers(jobs=n)).rows()
        print(f"comparison of 8 cells, {n} jobs: {perf_counter() - started:.1f} s")
    same = [row.result for row in rows[1]] == [row.result for row in rows[jobs]]
    print(f"same rows: {same}")


def query(folder, jobs, n_samples):
    data = load_dataset("digits")
    net = default_estimator(data).set_params(max_epochs=5).fit(data.x_train[:100], data.y_train[:100])
    pool = np.lib.format.open_memmap(folder / "pool.npy", "w+", np.float32, (n_samples, 64))
    pool[:] = np.random.default_rng(0).random(pool.shape)
    pool.flush()
    pool = np.load(folder / "pool.npy", mmap_mode="r")
    labeled = {"X_labeled": data.x_train[:100], "y_labeled": data.y_train[:100]}
    strategy, picks = DynamicAL(random_state=0), {}
    for n in (1, jobs):
        with joblib.parallel_config("loky", n_jobs=n):
            for attempt in ("first", "second"):  # the first starts the workers
                started = perf_counter()
                picks[n] = strategy.select(net, pool, 100, **labeled).indices
                print(
                    f"DynamicAL over {n_samples} mapped samples, {n} jobs, {attempt}: {perf_counter() - started:.1f} s"
                )
    print(f"same picks: {np.array_equal(picks[1], picks[jobs])}")


if __name__ == "__main__":
    n_jobs, size = (int(value) for value in [*sys.argv[1:], *(4, 20_000)[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as place:
        comparison(Path(place), n_jobs)
        query(Path(place), n_jobs, size)
