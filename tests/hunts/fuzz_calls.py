"""Thousands of calls with whatever a user may pass: picks are sound, or the error is the library's.

Run by hand: ``python tests/hunts/fuzz_calls.py [N_CALLS] [SEED] [N_PROCESSES]``. Prints how many calls chose, how many
were refused in words, and every other end; the status is 1 if there is any. A call is made again by its number:
``python tests/hunts/fuzz_calls.py --only NUMBER SEED``.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import Subset, TensorDataset

import modal_ntk
from modal_ntk import checks
from modal_ntk.errors import ModalNTKError
from modal_ntk.testing.situations import MLP, DropoutMLP, OneLogit, blobs, skorch_net

X0, Y0 = blobs(80)
CONTAINERS = {
    "array": lambda X: X,
    "Fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "reversed": lambda X: X[::-1].copy()[::-1],
    "list": lambda X: X.tolist(),
    "list of rows": list,
    "tuple": lambda X: tuple(map(tuple, X.tolist())),
    "tensor": lambda X: torch.tensor(np.asarray(X)),
    "frame": pd.DataFrame,
    "csr": sparse.csr_matrix,
    "coo": sparse.coo_matrix,
    "masked": np.ma.masked_array,
    "really masked": lambda X: np.ma.masked_array(X, np.asarray(X) > np.asarray(X).mean()),
    "TensorDataset": lambda X: TensorDataset(torch.tensor(np.asarray(X))),
    "pairs": lambda X: TensorDataset(torch.tensor(np.asarray(X)), torch.arange(len(X)) * 99),
    "Subset": lambda X: Subset(TensorDataset(torch.tensor(np.asarray(X)), torch.arange(len(X))), range(len(X))),
    "SliceDataset": lambda X: SliceDataset(TensorDataset(torch.tensor(np.asarray(X)), torch.arange(len(X)))),
    "dict": lambda X: {"x": X},
    "one column": lambda X: X[:, 0],
    "cube": lambda X: np.asarray(X).reshape(len(X), 2, 3),
}
DTYPES = {
    **{name: name for name in ("float32", "float64", "float16", "longdouble", "int64", "int8", "uint8", "uint16")},
    **{name: name for name in ("bool", "complex64", "object", ">f8", ">i4", "U8")},
}
VALUES = {
    "as drawn": lambda X, rng: X,
    "NaN": lambda X, rng: np.where(rng.random(X.shape) < 0.02, np.nan, X),
    "infinity": lambda X, rng: np.where(rng.random(X.shape) < 0.02, np.inf, X),
    "constant": lambda X, rng: np.zeros_like(X),
    "huge": lambda X, rng: X * 1e30,
    "few rows": lambda X, rng: X[rng.integers(3, size=len(X))],
}
LABELS = {
    "numbers": lambda y, rng: y,
    "list": lambda y, rng: y.tolist(),
    "tensor": lambda y, rng: torch.from_numpy(y),
    "series": lambda y, rng: pd.Series(y),
    "float": lambda y, rng: y.astype(float),
    "int32": lambda y, rng: y.astype("int32"),
    "strings": lambda y, rng: np.array(list("abc"))[y],
    "objects": lambda y, rng: np.array(list("abc"), dtype=object)[y],
    "categories": lambda y, rng: pd.Series(pd.Categorical(np.array(list("abc"))[y])),
    "bool": lambda y, rng: y > 0,
    "column": lambda y, rng: y[:, None],
    "gaps": lambda y, rng: y * 7 - 3,
    "one class": lambda y, rng: y * 0,
    "missing": lambda y, rng: np.where(rng.random(len(y)) < 0.3, None, y),
    "NaN": lambda y, rng: np.where(rng.random(len(y)) < 0.3, np.nan, y),
    "NA": lambda y, rng: pd.array(np.where(rng.random(len(y)) < 0.3, None, y), dtype="Int64"),
    "mixed": lambda y, rng: [str(v) if i % 2 else int(v) for i, v in enumerate(y)],
    "matrix": lambda y, rng: np.eye(3, dtype=int)[y],
    "numbers in a matrix": lambda y, rng: np.stack([y, y], 1),
    "too few": lambda y, rng: y[1:],
    "complex": lambda y, rng: y * 1j,
    "masked": lambda y, rng: np.ma.masked_array(y, y == 1),
}


def label_net():
    return skorch_net(DropoutMLP, kind=NeuralNet, criterion=nn.BCEWithLogitsLoss)


FITTED = {
    "net": lambda: skorch_net(DropoutMLP).fit(X0[:12], Y0[:12]),
    "net without classes": lambda: skorch_net(classes=None).fit(X0[:12], np.minimum(Y0[:12], 1)),
    "NeuralNet": lambda: skorch_net(DropoutMLP, kind=NeuralNet).fit(X0[:12], Y0[:12]),
    "binary": lambda: skorch_net(OneLogit, kind=NeuralNetBinaryClassifier, criterion=nn.BCEWithLogitsLoss).fit(
        X0[:12], (Y0[:12] > 0).astype("float32")
    ),
    "labels": lambda: label_net().fit(X0[:12], np.eye(3, dtype="float32")[Y0[:12]]),
    "regressor": lambda: skorch_net(kind=NeuralNetRegressor, criterion=nn.MSELoss).fit(
        X0[:12], np.zeros((12, 3), "float32")
    ),
    "pipeline": lambda: make_pipeline(StandardScaler(), skorch_net(DropoutMLP)).fit(X0[:12], Y0[:12]),
    "shuffling": lambda: skorch_net(DropoutMLP, iterator_valid__shuffle=True).fit(X0[:12], Y0[:12]),
    "logistic": lambda: LogisticRegression().fit(X0[:12], Y0[:12]),
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X0[:12], Y0[:12]),
    "forest of matrices": lambda: RandomForestClassifier(5, random_state=0).fit(X0[:12], np.eye(3, dtype=int)[Y0[:12]]),
    "regression": lambda: RandomForestRegressor(5, random_state=0).fit(X0[:12], Y0[:12]),
    "unfitted net": lambda: skorch_net(MLP),
    "unfitted pipeline": lambda: make_pipeline(StandardScaler(), skorch_net(MLP)),
    "nothing": lambda: None,
    "a class": lambda: NeuralNetClassifier,
}
MADE = {}


def strategies():
    made = {}
    for registered in modal_ntk.list_strategies():
        strategy = registered.spec.factory(random_state=0)
        if "critic" in strategy.needs:
            strategy.set_params(critic=lambda X: np.zeros(checks.n_rows(X)))
        made[registered.name] = strategy
    return made


def pick(rng, options, usual=0.5):
    """Draw a key, the first half of the time: calls that are odd in everything tell little."""
    names = list(options)
    return names[0] if rng.random() < usual else names[rng.integers(len(names))]


def drawn(number, seed, made):
    """Return what a call is about, and what builds the call."""
    rng = np.random.default_rng([seed, number])
    name = list(made)[rng.integers(len(made))]
    learner, container = list(FITTED)[rng.integers(len(FITTED))], pick(rng, CONTAINERS)
    dtype, value, label = pick(rng, DTYPES, 0.6), pick(rng, VALUES, 0.8), pick(rng, LABELS, 0.4)
    n_known, n_instances = int(rng.integers(0, 13)), int(rng.integers(1, 8))
    about = (name, learner, container, dtype, value, label, n_known, n_instances)

    def build():
        rows = VALUES[value](X0[12:42].astype(float), rng)
        known = X0[:n_known].astype(float)
        pool, samples = (CONTAINERS[container](part.astype(DTYPES[dtype])) for part in (rows, known))
        if learner not in MADE:
            MADE[learner] = FITTED[learner]()
        given = {"X_labeled": samples, "y_labeled": LABELS[label](Y0[:n_known], rng)} if n_known else {}
        return lambda: check(pool, given)

    def check(pool, given):
        selected = made[name].select(MADE[learner], pool, n_instances, **given)
        indices = selected.indices
        right = (
            len(indices) == len(set(indices.tolist())) == n_instances
            and indices.min() >= 0
            and indices.max() < 30
            and np.isfinite(selected.scores).all()
        )
        if not right:
            raise RuntimeError(f"WRONG: {indices} {selected.scores}")

    return about, build


def end_of(build):
    """Return how a call ended: "chosen", "refused", "no such thing" to pass, or what else came out and from where."""
    try:
        call = build()
    except (ValueError, TypeError, OverflowError, RuntimeError):
        return "no such thing"
    try:
        call()
    except ModalNTKError as error:
        teaches = "xpected" in str(error) or "got" in str(error) or "Unknown" in str(error)
        return "refused" if teaches else f"a refusal that does not teach: {error}"
    except Exception as error:  # noqa: BLE001 - the finding
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {str(error)[:90]!r} at {place.filename.rsplit('/', 2)[-1]}:{place.lineno}"
    return "chosen"


def shard(n_calls, seed, first=0, step=1):
    """Make calls of every `step`-th number from `first` on, until so many were calls; return how they ended."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    made, ends, number = strategies(), Counter(), first
    while ends.total() < n_calls:
        about, build = drawn(number, seed, made)
        end = end_of(build)
        if end != "no such thing":
            ends[end] += 1
        if end not in ("chosen", "refused", "no such thing"):
            print(number, *about, "->", end, flush=True)
        number += step
    return ends


def main(n_calls=3000, seed=0, n_processes=1):
    sizes = [len(part) for part in np.array_split(np.arange(n_calls), n_processes)]
    with ProcessPoolExecutor(n_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        shards = [pool.submit(shard, size, seed, i, n_processes) for i, size in enumerate(sizes)]
        ends = sum((found.result() for found in shards), Counter())
    others = n_calls - ends["chosen"] - ends["refused"]
    print(f"{n_calls} calls, seed {seed}: {ends['chosen']} chosen, {ends['refused']} refused in words, {others} else")
    return int(others > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--only"]:
        number, seed = map(int, sys.argv[2:4])
        about, build = drawn(number, seed, strategies())
        print(*about)
        build()()
    else:
        sys.exit(main(*map(int, sys.argv[1:4])))
