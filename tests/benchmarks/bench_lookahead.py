"""Look-ahead's speed and memory on this machine, as ratios within one run.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_lookahead.py``; ``--only NAME`` runs one table and
``--dtype float32`` keeps the state in single precision. Candidates are the evaluation rows too; they are a mixture of
C Gaussians in 512 dimensions, seen through the kernel of a freshly drawn two-layer head. Every case runs in a process
of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from modal_ntk import NTKCPL, VarianceDesign
from modal_ntk.kernels import condition, empirical_ntk, ntk_head, posterior
from modal_ntk.selection import look_ahead
from modal_ntk.selection.ahead.changes import Limit

CASES = [(10, 40), (100, 200), (100, 1000), (500, 2000)]


def problem(n, n_classes, *, n_features=512, seed=0):
    """Kernel (n, n), f0 (n, C) and the component every row was drawn from; n includes the labelled rows."""
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    x = rng.normal(size=(n_classes, n_features))[targets] + 1.5 * rng.normal(size=(n, n_features))
    x = torch.from_numpy(x)
    head = ntk_head(n_features, 64, n_classes, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return empirical_ntk(head, x), head(x), targets


def vectorised(state, targets, candidates, rows, *, chunk):
    """Risk counts as one writes them with tensors: every new prediction of a chunk of candidates at once."""
    wanted = torch.from_numpy(targets[rows])
    counts = []
    for block in torch.from_numpy(candidates).split(chunk):
        residual = (
            torch.nn.functional.one_hot(torch.from_numpy(targets)[block], state.mean.shape[1]) - state.mean[block]
        )
        gain = state.covariance[block] / state.covariance[block, block][:, None]
        after = state.mean[rows] + gain[:, rows, None] * residual[:, None, :]
        counts.append((after.argmax(dim=2) != wanted).sum(dim=1))
    return torch.cat(counts).numpy()


def seconds(function, repeats):
    """Median time of some runs, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def update_seconds(state, picks, one_hot):
    """Median time to train on one more row; each row is new, as a known one is skipped."""
    times = []
    for pick in picks.tolist():
        began = time.perf_counter()
        condition(state, pick, one_hot[pick])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def prepared(n, n_classes, n_labeled, dtype):
    """State after training on the first rows, and what a pick needs."""
    kernel, f0, targets = problem(n + n_labeled, n_classes)
    one_hot = torch.eye(n_classes, dtype=kernel.dtype)[targets]
    state = posterior(kernel, np.arange(n_labeled), one_hot, f0=f0, dtype=dtype, overwrite=True)
    return state, targets, one_hot, f0, np.arange(n_labeled, n + n_labeled)


def case(n, n_classes, n_labeled, dtype, n_compared=48):
    """One row of the table: times in seconds, memory in MiB."""
    torch.set_num_threads(2)
    state, targets, one_hot, f0, free = prepared(n, n_classes, n_labeled, dtype)
    spare = torch.empty_like(state.covariance)
    copy = seconds(lambda: spare.copy_(state.covariance), 9)
    spare = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    limit = Limit(state, targets, free, 1.0)
    scored = seconds(lambda: limit.mismatches(free, targets), 7)
    counts = limit.mismatches(free, targets)
    change = seconds(lambda: limit.output_change(free, squared=False, reference=None), 5)
    shifted = seconds(lambda: limit.output_change(free, squared=False, reference=f0), 3)
    few = free[:: len(free) // n_compared][:n_compared]
    slow, naive = min(
        (timed_once(state, targets, few, free, chunk) for chunk in (1, 4, 16)), key=lambda timed: timed[0]
    )
    np.testing.assert_array_equal(naive, counts[:: len(free) // n_compared][:n_compared])
    updated = update_seconds(state, free[np.argsort(counts)[:5]], one_hot)
    return {
        "pick": scored + updated, "scored": scored, "updated": updated, "copy": copy, "change": change,
        "shifted": shifted,
        "vectorised": slow * n / n_compared, "peak": peak, "matrix": state.covariance.nbytes / 2**20,
    }  # fmt: skip


def timed_once(state, targets, candidates, rows, chunk):
    began = time.perf_counter()
    counts = vectorised(state, targets, candidates, rows, chunk=chunk)
    return time.perf_counter() - began, counts


def apart(*arguments):
    """Run one case in a process of its own and read its figures."""
    command = [sys.executable, __file__, "--case", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(figures):
    """Ratios of one case as one line."""
    copy, pick = figures["copy"], figures["pick"]
    return (
        f"{pick:.3f} s a pick (count {figures['scored']:.3f}, update {figures['updated']:.3f}); "
        f"{figures['vectorised'] / pick:.0f} times faster than vectorised ({figures['vectorised']:.1f} s); "
        f"{pick / copy:.1f} copies of {copy:.3f} s; output change {figures['change'] / copy:.1f} copies, "
        f"from f0 {figures['shifted'] / copy:.1f}; "
        f"peak {figures['peak'] / figures['matrix']:.1f} matrices of {figures['matrix']:.0f} MiB"
    )


def table_cases(dtype, n=10_000):
    """10,000 candidates that are also the evaluation rows; the vectorised form timed on 48 of them, scaled up."""
    print(table_cases.__doc__)
    for n_classes, n_labeled in CASES:
        print(f"  C={n_classes}, {n_labeled} labels: {row(apart(n, n_classes, n_labeled, dtype))}", flush=True)


def table_growth(dtype):
    """Growth with the number of candidates, C=100, 200 labels."""
    print(table_growth.__doc__)
    for n in (2500, 5000, 10_000, 20_000):
        print(f"  {n} candidates: {row(apart(n, 100, 200, dtype))}", flush=True)


def table_picks(dtype, n=800, n_instances=5):
    """Whole batches against the vectorised form: the same picks, 800 candidates, 5 picks."""
    print(table_picks.__doc__)
    for n_classes, n_labeled in [(10, 40), (100, 200), (100, 400)]:
        kernel, f0, targets = problem(n + n_labeled, n_classes)
        labeled = np.arange(n_labeled)
        chosen = look_ahead(kernel, targets, labeled, n_instances, f0=f0, tie_break="first", dtype=dtype)
        one_hot = torch.eye(n_classes, dtype=kernel.dtype)[targets]
        state = posterior(kernel, labeled, one_hot, f0=f0, dtype=getattr(torch, dtype))
        free, everyone, picks = np.arange(n_labeled, len(kernel)), np.arange(len(kernel)), []
        for _ in range(n_instances):
            picks.append(int(free[vectorised(state, targets, free, everyone, chunk=4).argmin()]))
            condition(state, picks[-1], one_hot[picks[-1]])
            free = free[free != picks[-1]]
        same = picks == chosen.indices.tolist()
        print(
            f"  C={n_classes}, {n_labeled} labels: picks {picks}, {'the same' if same else 'NOT the same'}", flush=True
        )


def table_query(dtype):
    """Whole queries, kernel and clustering included, from 10,000 candidates with 100 labels."""
    print(table_query.__doc__)
    rng = np.random.default_rng(0)
    classes = np.concatenate([np.arange(10), rng.integers(10, size=10_090)])
    x = (rng.normal(size=(10, 512))[classes] + 4 * rng.normal(size=(10_100, 512))).astype(np.float32)
    forest = RandomForestClassifier(20, random_state=0).fit(x[:100], classes[:100])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "With use_f0=True")
        for n_instances in (20, 100):
            arms = {
                "published": NTKCPL.as_published(variant="self", random_state=0, dtype=dtype),
                "default": NTKCPL(random_state=0, dtype=dtype),
                "variance_design": VarianceDesign(random_state=0),
            }
            baseline = {}
            for name, strategy in arms.items():
                began, busy = time.perf_counter(), time.process_time()
                info = strategy.select(forest, x[100:], n_instances, X_labeled=x[:100], y_labeled=classes[:100]).info
                wall, cpu, stages = time.perf_counter() - began, time.process_time() - busy, info["seconds"]
                baseline = baseline or {"cpu": cpu, "picks": stages["look_ahead"]}
                picks = stages.get("look_ahead", stages.get("design"))
                listed = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items() if stage != "total")
                print(
                    f"  {n_instances} points, {name}: {wall:.1f} s, {cpu:.1f} s of CPU, {cpu / baseline['cpu']:.2f} of "
                    f"published, its picks {picks / baseline['picks']:.2f} ({listed})",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["cases", "growth", "picks", "query"])
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--case", nargs=4)
    options = parser.parse_args()
    if options.case:
        n, n_classes, n_labeled = map(int, options.case[:3])
        print(json.dumps(case(n, n_classes, n_labeled, getattr(torch, options.case[3]))))
    else:
        for name in [options.only] if options.only else ["cases", "growth", "picks", "query"]:
            globals()[f"table_{name}"](options.dtype)
