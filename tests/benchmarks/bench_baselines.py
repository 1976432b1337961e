"""Distance-based baselines beside scikit-activeml's on the same features: seconds, ratios, quality, growth.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_baselines.py``; ``--only NAME`` runs one table out of
``compare``, ``growth``, ``herding`` and ``large``. Needs the extra ``compare``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from modal_ntk import BADGE, CoreSet, KMedian, MaxHerding, ProbCover, TypiClust, selection

BATCH, N_CLASSES, N_LABELED = 100, 10, 10


def clouds(n, d=128, seed=0):
    """Rows of ten overlapping groups, float32, near a space of eight dimensions, as embeddings are."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % N_CLASSES
    latent = rng.normal(scale=1.5, size=(N_CLASSES, 8))[y] + rng.normal(size=(n, 8))
    noise = 0.05 * rng.standard_normal((n, d), dtype=np.float32)
    return (latent @ rng.normal(size=(8, d)) / 8**0.5).astype(np.float32) + noise, y


def timed(function):
    """The value, seconds on the clock and seconds of the processor: on a busy machine only the latter compare."""
    start, start_cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - start, time.process_time() - start_cpu


def radius_of(X, chosen):
    """Largest distance of any row to its nearest chosen one."""
    return float(torch.cdist(torch.from_numpy(X), torch.from_numpy(X[chosen])).min(dim=1).values.max())


def covered_by(X, chosen, delta):
    """Share of rows nearer than delta to a chosen one."""
    return float((torch.cdist(torch.from_numpy(X), torch.from_numpy(X[chosen])).min(1).values < delta).double().mean())


def typicality_of(X, chosen):
    """Mean typicality of the chosen rows among all."""
    return float(selection.typicality(torch.from_numpy(X))[torch.from_numpy(chosen)].mean())


def potential_of(X, p, chosen):
    """Sum over rows of the squared gradient distance to the nearest chosen one: what k-means++ makes small."""
    residuals = np.eye(N_CLASSES, dtype=np.float32)[p.argmax(1)] - p.astype(np.float32)
    rows = selection.OuterRows(torch.from_numpy(residuals), torch.from_numpy(X))
    nearest = torch.full((len(X),), torch.inf)
    for row in chosen:
        nearest = torch.minimum(nearest, rows.squared_to(int(row)))
    return float(nearest.sum())


def compare(n=10_000):
    """Print seconds, ratios and quality of both libraries at n x 128, ten classes, a batch of 100."""
    from skactiveml import pool
    from skactiveml.classifier import SklearnClassifier

    X, y = clouds(n)
    X /= np.linalg.norm(X, axis=1, keepdims=True)  # both see the same rows, whether they scale or not
    rest = X[N_LABELED:]
    partly = np.where(np.arange(n) < N_LABELED, y, np.nan)
    known = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}
    model = LogisticRegression().fit(X[:N_LABELED], y[:N_LABELED])
    wrapped = SklearnClassifier(LogisticRegression(), classes=range(N_CLASSES)).fit(X, partly)
    p = model.predict_proba(X)
    labeled = np.arange(N_LABELED)
    delta = ProbCover(n_classes=N_CLASSES, random_state=0).select(None, rest, 1, **known).info["delta"]

    def theirs(strategy, **arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(strategy.query(X=X, y=partly, batch_size=BATCH, **arguments))

    def ours(strategy, model=None):
        return strategy.select(model, rest, BATCH, **known).indices + N_LABELED

    def coverage_of(chosen):
        covered = torch.from_numpy(X[np.concatenate([labeled, chosen])])
        near = selection.Gaussian(1.0)(torch.from_numpy(rest), covered)
        return float(near.max(dim=1).values.double().mean())

    table = [
        (
            "CoreSet",
            lambda: ours(CoreSet(random_state=0)),
            lambda: theirs(pool.CoreSet(random_state=0)),
            "radius",
            lambda chosen: radius_of(X, np.concatenate([labeled, chosen])),
        ),
        (
            "BADGE",
            lambda: ours(BADGE(features="input", random_state=0), model),
            lambda: theirs(pool.Badge(random_state=0), clf=wrapped, fit_clf=False),
            "k-means++ potential",
            lambda chosen: potential_of(X, p, chosen),
        ),
        (
            "TypiClust",
            lambda: ours(TypiClust(random_state=0)),
            lambda: theirs(pool.TypiClust(k=20, random_state=0)),
            "mean typicality",
            lambda chosen: typicality_of(X, chosen),
        ),
        (
            "TypiClust, full k-means",
            lambda: ours(TypiClust(mini_batch_above=None, random_state=0)),
            lambda: theirs(pool.TypiClust(k=20, random_state=0)),
            "mean typicality",
            lambda chosen: typicality_of(X, chosen),
        ),
        (
            "MaxHerding",
            lambda: ours(MaxHerding()),
            lambda: theirs(pool.MaxHerding(metric_dict={"gamma": 1.0}, random_state=0)),
            "generalised coverage",
            coverage_of,
        ),
        (
            "ProbCover, by purity",
            lambda: ours(ProbCover(n_classes=N_CLASSES, n_init=1, random_state=0)),  # as many starts as theirs
            lambda: theirs(pool.ProbCover(n_classes=N_CLASSES, random_state=0)),
            f"coverage at {delta:.3f}",
            lambda chosen: covered_by(X, np.concatenate([labeled, chosen]), delta),
        ),
        (
            "ProbCover, same radius",
            lambda: ours(ProbCover(delta=delta, random_state=0)),
            lambda: theirs(pool.ProbCover(n_classes=N_CLASSES, deltas=[delta], random_state=0)),
            f"coverage at {delta:.3f}",
            lambda chosen: covered_by(X, np.concatenate([labeled, chosen]), delta),
        ),
    ]
    print(f"{n:,} x {X.shape[1]}, batch {BATCH}, {torch.get_num_threads()} threads, float32")
    print("| strategy | ours (s) | scikit-activeml (s) | ratio | ours (CPU s) | theirs (CPU s) | ratio | quality |")
    print("|---" * 8 + "|")
    ours(CoreSet(random_state=0))  # torch starts its threads once
    for name, run_ours, run_theirs, quality, measure in table:
        mine, *seconds = timed(run_ours)
        other, *their_seconds = timed(run_theirs)
        times = [f"{s:.2f} | {t:.2f} | {t / s:.1f}" for s, t in zip(seconds, their_seconds, strict=True)]
        both = f"{quality}: {measure(mine):.4g} and {measure(other):.4g}"
        print(f"| {name} | {times[0]} | {times[1]} | {both} |", flush=True)


def growth(sizes=(1_000, 10_000, 30_000, 100_000)):
    """Print our seconds as the pool grows."""
    strategies = {
        "CoreSet": CoreSet(random_state=0),
        "BADGE": BADGE(features="input", random_state=0),
        "BADGE, 10 parts": BADGE(features="input", n_partitions=10, random_state=0),
        "KMedian": KMedian(random_state=0),
        "KMedian, k-medoids": KMedian(method="kmedoids", random_state=0),
        "TypiClust": TypiClust(random_state=0),
        "MaxHerding": MaxHerding(),
        "ProbCover": ProbCover(random_state=0, n_classes=N_CLASSES),
    }
    print(f"seconds (CPU seconds), 128 features, batch {BATCH}, {torch.get_num_threads()} threads, float32")
    print("| strategy | " + " | ".join(f"{n:,}" for n in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for name, strategy in strategies.items():
        cells = []
        for n in sizes:
            X, y = clouds(n)
            model = LogisticRegression().fit(X[:N_LABELED], y[:N_LABELED])
            known = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}
            cells.append(timed(lambda: strategy.select(model, X[N_LABELED:], BATCH, **known))[1:])  # noqa: B023
        print(f"| {name} | " + " | ".join(f"{s:.2f} ({cpu:.2f})" for s, cpu in cells) + " |", flush=True)


def herding(n=100_000, batch=100):
    """Print seconds and peak memory of MaxHerding on as many rows as it keeps no matrix of, beside TypiClust's."""
    X, y = clouds(n)
    known = {"X_labeled": X[:N_LABELED], "y_labeled": y[:N_LABELED]}
    for strategy in (TypiClust(random_state=0), MaxHerding()):
        _, seconds, cpu = timed(lambda: strategy.select(None, X[N_LABELED:], batch, **known))  # noqa: B023
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures = {"strategy": type(strategy).__name__, "n": n, "batch": batch, "seconds": round(seconds, 1)}
        print(json.dumps({**figures, "cpu_seconds": round(cpu, 1), "peak_GiB": round(peak, 2)}), flush=True)


def large(n=1_000_000, d=512, batch=20):
    """Print seconds and peak memory of CoreSet on a million rows."""
    X = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    known = {"X_labeled": X[:N_LABELED].copy(), "y_labeled": np.arange(N_LABELED)}
    selected, seconds, cpu = timed(lambda: CoreSet(random_state=0).select(None, X, batch, **known))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {
        "n": n,
        "d": d,
        "batch": batch,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_GiB": round(peak, 2),
    }
    print(json.dumps({**figures, "radius": round(selected.info["radius"], 3)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("compare", "growth", "herding", "large"))
    only = parser.parse_args().only
    if only in (None, "compare"):
        if importlib.util.find_spec("skactiveml") is None:
            print('compare is left out: scikit-activeml is missing. Run: pip install "modal-ntk[compare]"')
        else:
            compare()
    if only in (None, "growth"):
        growth()
    if only in (None, "herding"):
        herding()
    if only in (None, "large"):
        large()
