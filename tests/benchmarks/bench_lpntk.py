"""Speed and memory of the labelled kernel, farthest-point clustering and pruning, on LeNet-5 and MNIST.

Run as ``OMP_NUM_THREADS=2 MODAL_NTK_DATA=... python tests/benchmarks/bench_lpntk.py``; ``--only NAME`` runs one table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import skorch
import torch
from bench_kernels import LeNet5, Peak
from torch import nn

from modal_ntk import LpNTK
from modal_ntk.bench import load_dataset
from modal_ntk.kernels import kernel_rows
from modal_ntk.pruning import LpNTKPruner, farthest_point_clustering
from modal_ntk.structure import redundant_samples


class CountedRows:
    """Rows on demand that count how many are asked for."""

    def __init__(self, rows):
        self.rows, self.n = rows, 0

    def diagonal(self):
        return self.rows.diagonal()

    def row(self, i):
        self.n += 1
        return self.rows.row(i)


def by_features(module, x, labels):
    """The labelled kernel as one writes it down: per-sample gradients by vmap(grad), then one product."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    signs = 2 * nn.functional.one_hot(labels, 10).to(x) - 1

    def weighted(p, sample, sign):
        return (torch.func.functional_call(module, p, (sample[None],))[0] * sign).sum() / 10**0.5

    grads = torch.func.vmap(torch.func.grad(weighted), (None, 0, 0), chunk_size=500)(parameters, x, signs)
    flat = torch.cat([g.flatten(1) for g in grads.values()], 1)
    return flat @ flat.T


def timed(function, repeats, clock=time.perf_counter):
    seconds = []
    for _ in range(repeats):
        began = clock()
        result = function()
        seconds.append(clock() - began)
    return statistics.median(seconds), result


def images():
    """All training images and labels of MNIST."""
    data = load_dataset("mnist")
    return data.x_train, data.y_train


def table_kernel(n):
    """Labelled kernel of one class: held in factors, against features written out and one product; float32."""
    x, labels = one_class(n)
    module = LeNet5()
    by_features(module, x[:10], labels[:10]), kernel_rows(module, x[:10], labels=labels[:10]).matrix()
    fast, got = timed(lambda: kernel_rows(module, x, labels=labels).matrix(), 3)
    slow, want = timed(lambda: by_features(module, x, labels), 1)
    with Peak() as fast_peak:
        kernel_rows(module, x, labels=labels).matrix()
    with Peak() as slow_peak:
        by_features(module, x, labels)
    error = float(np.linalg.norm(got - want.numpy()) / want.norm())
    print(
        f"  N={len(x)}: factored {fast:.2f} s, {fast_peak.mib:.0f} MiB; features and product {slow:.2f} s, "
        f"{slow_peak.mib:.0f} MiB; {slow / fast:.1f} times faster, {slow_peak.mib / fast_peak.mib:.1f} times less "
        f"memory, relative difference {error:.1e}"
    )


def table_clustering(n):
    """Farthest-point clustering of one class to a tenth as many centres: rows on demand, and the whole matrix first."""
    x, labels = one_class(n)
    rows = kernel_rows(LeNet5(), x, labels=labels)
    counted = CountedRows(rows)
    lazily, found = timed(lambda: farthest_point_clustering(counted, len(x) // 10), 1)
    whole, again = timed(lambda: farthest_point_clustering(rows.matrix(), len(x) // 10), 1)
    print(
        f"  N={len(x)}, {len(found.centres)} centres: {counted.n} rows computed of {len(x)}, {lazily:.2f} s; "
        f"whole matrix first {whole:.2f} s; same centres: {bool((found.centres == again.centres).all())}; "
        f"largest cluster {found.sizes().max()}"
    )


def table_pruning(n):
    """De-redundancy over all samples and clustering of every class, by a net trained for one epoch."""
    X, y = images()
    X, y = X[:n], y[:n]
    torch.manual_seed(0)
    net = skorch.NeuralNetClassifier(
        LeNet5, criterion=nn.CrossEntropyLoss, lr=0.05, batch_size=128, max_epochs=1, train_split=None, verbose=0
    ).fit(X, y)
    pruner = LpNTKPruner(net, prefit=True, max_redundant=1.0, random_state=0)
    with Peak() as peak:
        seconds, _ = timed(lambda: pruner.fit(X, y), 1)
    print(
        f"  N={n}: {seconds / 60:.1f} minutes, {peak.mib / 1024:.2f} GiB; "
        f"gradients held {pruner.kernel_info_['bytes'] / 2**30:.2f} GiB; redundant {pruner.shares_['redundant']:.1%}, "
        f"clustered away {pruner.shares_['clustered']:.1%}"
    )


class AllPairs:
    """Rows whose blocks leave nothing out, as redundancy was looked for once."""

    def __init__(self, rows):
        self.rows = rows

    def diagonal(self):
        return self.rows.diagonal()

    def take(self, chosen):
        return AllPairs(self.rows.take(chosen))

    def block(self, start, stop, n_columns=None):
        return self.rows.block(start, stop)[:, :n_columns]


def table_redundancy(n):
    """Redundant samples among the candidates of a query, and the query itself, in CPU seconds."""
    X, y = images()
    x, labels = torch.from_numpy(X[:n]), torch.from_numpy(y[:n])
    rows = kernel_rows(LeNet5(), x, labels=labels)
    redundant_samples(rows.take(np.arange(100)))
    half, found = timed(lambda: redundant_samples(rows), 1, time.process_time)
    whole, again = timed(lambda: redundant_samples(AllPairs(rows)), 1, time.process_time)
    net = skorch.NeuralNetClassifier(LeNet5, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0)
    net.fit(X[:100], y[:100])
    given = {"X_labeled": X[:100], "y_labeled": y[:100]}
    spent = {
        rule: timed(partial(LpNTK(rule=rule, random_state=0).select, net, X[100:n], 100, **given), 1, time.process_time)
        for rule in ("coverage", "clusters")
    }
    print(
        f"  N={n}: pairs below the diagonal {half:.2f} s, all pairs {whole:.2f} s, ratio {half / whole:.2f}; "
        f"same samples: {bool((found == again).all())}; query of 100 by coverage {spent['coverage'][0]:.2f} s, "
        f"by clusters without redundant ones {spent['clusters'][0]:.2f} s"
    )


def one_class(n):
    X, y = images()
    rows = np.flatnonzero(y == y[0])[:n]
    return torch.from_numpy(X[rows]), torch.from_numpy(y[rows])


TABLES = {
    "kernel": (table_kernel, 6000),
    "clustering": (table_clustering, 6000),
    "redundancy": (table_redundancy, 10000),
    "pruning": (table_pruning, 60000),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--n", type=int, help="samples, in place of each table's own number")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, (table, n) in TABLES.items():
        if arguments.only in (None, name):
            print(table.__doc__)
            table(arguments.n or n)


if __name__ == "__main__":
    main()
