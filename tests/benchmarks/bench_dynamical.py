"""Time and memory of dynamicAL's pool scoring, beside a plain training pass and BackPACK's explicit gradients.

Run as ``OMP_NUM_THREADS=2 MODAL_NTK_DATA=... python tests/benchmarks/bench_dynamical.py``; ``--only NAME`` runs one
table. Without the data set, random pixels of its shape stand in.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from functools import partial

import numpy as np
import torch
from bench_kernels import LeNet5, Peak, images, resnet18
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from modal_ntk import DynamicAL

N_LABELED = 500


def fitted(module, batch_size):
    """A skorch net around a module, as a user has it."""
    classes = list(range(10))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, classes=classes, batch_size=batch_size, train_split=None, verbose=0
    )
    return net.initialize()


def plain_pass(module, x, labels, batch_size):
    """One forward and backward pass over all samples, as in training, without the optimiser."""
    for start in range(0, len(x), batch_size):
        module.zero_grad()
        stop = start + batch_size
        F.cross_entropy(module(x[start:stop]), labels[start:stop]).backward()


def by_batch_grad(module, x, direction, batch_size):
    """Scores from all per-sample gradients, written out by BackPACK's BatchGrad batch by batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad
    # A copy, for BackPACK marks what it extends.
    extended = extend(copy.deepcopy(module))
    loss_function = extend(nn.CrossEntropyLoss(reduction="sum"))
    flat = torch.cat([g.flatten() for g in direction.values()])
    out = []
    for start in range(0, len(x), batch_size):
        logits = extended(x[start : start + batch_size])
        loss = loss_function(logits, logits.detach().argmax(1))
        with backpack(BatchGrad()), warnings.catch_warnings():
            # BackPACK's hooks warn at the first layer, whose input needs no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            loss.backward()
        rows = torch.cat([p.grad_batch.flatten(1) for p in extended.parameters()], 1)
        out.append(rows.square().sum(1) + 2 * rows @ flat)
        for p in extended.parameters():
            del p.grad_batch
        extended.zero_grad()
    return torch.cat(out)


def timed(function):
    """Seconds of one run, what it returns, and the processor's seconds, which hardly feel other work beside it."""
    started, worked = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - started, result, time.process_time() - worked


def peak_of(function):
    """Peak growth of memory, in MiB, of a run that is not timed, for on two cores watching takes its share."""
    with Peak() as peak:
        function()
    return peak.mib


def sequential_lenet():
    """LeNet-5 as one chain of layers, which BackPACK can follow."""
    net = LeNet5()
    return nn.Sequential(*net.features, *net.head)


def table_lenet(n=10_000, batch_size=256, repeats=4):
    """LeNet-5: scoring by the strategy, a plain pass, explicit gradients by BatchGrad."""
    print(table_lenet.__doc__)
    x, source = images(n + N_LABELED)
    labels = torch.arange(len(x)) % 10
    module = sequential_lenet()
    net = fitted(module, batch_size)
    pool, known = x[:n].numpy(), {"X_labeled": x[n:].numpy(), "y_labeled": labels[n:].numpy()}
    # Outside the strategy nothing of the net's gradients is known, so the direction is taken from a plain pass.
    plain_pass(module, x[n:], labels[n:], N_LABELED)
    direction = {name: p.grad.detach() * N_LABELED for name, p in module.named_parameters()}
    few = {k: v[:20] for k, v in known.items()}
    DynamicAL().select(net, pool[:512], 5, **few)
    by_batch_grad(module, x[:512], direction, batch_size)
    strategy, seconds, queries = DynamicAL(random_state=0), {"plain": [], "whole": [], "explicit": []}, []
    tasks = {
        "plain": lambda: plain_pass(module, x[:n], labels[:n], batch_size),
        "whole": lambda: strategy.select(net, pool, 500, **known),
        "explicit": lambda: by_batch_grad(module, x[:n], direction, batch_size),
    }
    # In turn, so that a busy machine is busy for all three.
    for _ in range(repeats):
        found = {name: timed(task) for name, task in tasks.items()}
        for name, (passed, _, worked) in found.items():
            seconds[name].append((passed, worked))
        queries.append(found["whole"][1])
    (plain, whole, explicit), work = ([min(run[i] for run in column) for column in seconds.values()] for i in range(2))
    scoring = min(query.info["seconds"]["scores"] for query in queries)
    whole_mib, explicit_mib = peak_of(tasks["whole"]), peak_of(tasks["explicit"])
    selected, want = queries[-1], found["explicit"][1]
    got, chosen = selected.scores, selected.indices
    difference = np.abs(got - want[chosen].numpy()).max() / np.abs(got).max()
    print(
        f"  N={n} ({source}), batch {batch_size}: plain pass {plain:.2f} s; scoring {scoring:.2f} s, "
        f"{scoring / plain:.2f} plain passes; whole query (500 of {n}, {N_LABELED} labelled) {whole:.2f} s, "
        f"{whole_mib:.0f} MiB; BatchGrad and products {explicit:.2f} s, {explicit_mib:.0f} MiB, "
        f"{explicit / scoring:.1f} times slower than scoring; largest relative difference of scores {difference:.1e}"
    )
    print(
        f"  seconds of processor: plain pass {work[0]:.2f}, whole query {work[1]:.2f} ({work[1] / work[0]:.2f} plain "
        f"passes), BatchGrad and products {work[2]:.2f} ({work[2] / work[1]:.1f} times the whole query)"
    )


def table_memory(sizes=(2_500, 10_000, 40_000), batch_size=256):
    """LeNet-5: peak memory of a query by the size of the pool."""
    print(table_memory.__doc__)
    net = fitted(sequential_lenet(), batch_size)
    x, source = images(max(sizes))
    x = x.numpy()
    known = {"X_labeled": x[:100], "y_labeled": np.arange(100) % 10}
    DynamicAL().select(net, x[: min(sizes)], 5, **known)
    for n in sizes:
        mib = max(peak_of(lambda n=n: DynamicAL().select(net, x[:n], 100, **known)) for _ in range(2))
        print(f"  N={n} ({source}): {mib:.0f} MiB above the pool itself")


def table_batches(n=2_000, n_instances=100, batch_size=256):
    """LeNet-5: the price of the other two batch rules, by kernel and by passes."""
    print(table_batches.__doc__)
    net = fitted(sequential_lenet(), batch_size)
    x = images(n)[0].numpy()
    known = {"X_labeled": x[:100], "y_labeled": np.arange(100) % 10}
    for batch, budget in (("top", 2**30), ("de_influence", 2**30), ("greedy", 2**30), ("greedy", 2 * n * n)):
        strategy = DynamicAL(batch=batch, memory_budget=budget, sub_batch=20)
        task = partial(strategy.select, net, x, n_instances, **known)
        (seconds, selected, _), mib = timed(task), peak_of(task)
        how = selected.info.get("products", "one step")
        print(f"  {batch} ({how}), {n_instances} of {n}: {seconds:.2f} s, {mib:.0f} MiB")


def table_resnet(n=500, batch_size=50):
    """ResNet-18 for 32x32 inputs of noise: scoring beside a plain pass in evaluation mode."""
    print(table_resnet.__doc__)
    module = resnet18().eval()
    net, x, labels = fitted(module, batch_size), torch.randn(n + 20, 3, 32, 32), torch.arange(n + 20) % 10
    known = {"X_labeled": x[n:].numpy(), "y_labeled": labels[n:].numpy()}
    DynamicAL().select(net, x[:4].numpy(), 2, **known)
    plain_pass(module, x[:4], labels[:4], batch_size)
    work = [
        lambda: plain_pass(module, x[:n], labels[:n], batch_size),
        lambda: DynamicAL().select(net, x[:n].numpy(), 50, **known),
    ]
    runs = [[timed(task) for task in work] for _ in range(2)]
    plain, whole = (min(run[i][0] for run in runs) for i in range(2))
    scoring = min(run[1][1].info["seconds"]["scores"] for run in runs)
    plain_mib, mib = (peak_of(task) for task in work)
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    print(
        f"  {millions:.1f} M parameters, N={n}, batch {batch_size}: plain pass {plain:.1f} s, {plain_mib:.0f} MiB; "
        f"scoring {scoring:.1f} s, {scoring / plain:.2f} plain passes; whole query {whole:.1f} s, {mib:.0f} MiB"
    )


TABLES = {"lenet": table_lenet, "memory": table_memory, "batches": table_batches, "resnet": table_resnet}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--repeats", type=int, default=4, help="runs in the first table, of which the fastest counts")
    arguments = parser.parse_args()
    only = arguments.only
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, table in TABLES.items():
        if only in (None, name):
            table(**({"repeats": arguments.repeats} if name == "lenet" else {}))


if __name__ == "__main__":
    main()
