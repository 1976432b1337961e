"""Speed, memory and error of the kernel routes on this machine, as ratios within one run.

Run as ``OMP_NUM_THREADS=2 python tests/benchmarks/bench_kernels.py``; ``--only NAME`` runs one table.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from pathlib import Path

import torch
from torch import nn

from modal_ntk.kernels import empirical_ntk


class Peak:
    """Peak growth of resident memory inside a with-block, sampled every millisecond."""

    def __enter__(self):
        gc.collect()
        self.start = self.peak = _resident()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while not self.stop.wait(0.001):
            self.peak = max(self.peak, _resident())

    def __exit__(self, *_):
        self.peak = max(self.peak, _resident())
        self.stop.set()
        self.thread.join()
        self.mib = (self.peak - self.start) / 2**20


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def by_vmap(module, x):
    """The pseudo-kernel as one writes it down: per-sample gradients by vmap(grad), then one product."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def summed(p, sample):
        out = torch.func.functional_call(module, p, (sample[None],))
        return out.sum() / out.shape[1] ** 0.5

    grads = torch.func.vmap(torch.func.grad(summed), (None, 0))(parameters, x)
    flat = torch.cat([g.flatten(1) for g in grads.values()], 1)
    return flat @ flat.T


def measured(function, warm_up, repeats=3):
    """Median time of some runs and the memory of one more, after a tiny one that only loads what is loaded once.

    The run whose memory is watched is not timed: on two cores the watcher takes its share of them.
    """
    warm_up()
    seconds = []
    for _ in range(repeats):
        gc.collect()
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    with Peak() as peak:
        result = function()
    return statistics.median(seconds), peak.mib, result


def mlp(n_in=512):
    return nn.Sequential(nn.Linear(n_in, 512), nn.ReLU(), nn.Linear(512, 10))


def table_mlp(sizes=(500, 1000, 2000)):
    """MLP 512-512-10, pseudo-kernel, float32."""
    print(table_mlp.__doc__)
    module = mlp()
    for n in sizes:
        x = torch.randn(n, 512)
        few = x[:4]
        fast, fast_mib, got = measured(
            lambda x=x: empirical_ntk(module, x), lambda few=few: empirical_ntk(module, few), 25
        )
        slow, slow_mib, want = measured(lambda x=x: by_vmap(module, x), lambda few=few: by_vmap(module, few), 2)
        error = float((got - want).norm() / want.norm())
        print(
            f"  N={n}: factored {fast * 1e3:.1f} ms, {fast_mib:.1f} MiB; vmap(grad) and product {slow * 1e3:.0f} ms, "
            f"{slow_mib:.0f} MiB; {slow / fast:.1f} times faster, {slow_mib / max(fast_mib, 0.1):.1f} times less "
            f"memory, relative difference {error:.1e}"
        )


class LeNet5(nn.Module):
    """LeNet-5 for 28x28 images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, x):
        return self.head(self.features(x))


def table_lenet(n=2000):
    """LeNet-5, Fashion-MNIST images (random pixels if MODAL_NTK_DATA has none), pseudo-kernel, float32."""
    print(table_lenet.__doc__)
    x, source = images(n)
    module = LeNet5()
    few = x[:4]
    fast, fast_mib, got = measured(lambda: empirical_ntk(module, x), lambda: empirical_ntk(module, few), 3)
    slow, slow_mib, _ = measured(
        lambda: empirical_ntk(module, x, method="explicit"), lambda: empirical_ntk(module, few, method="explicit"), 1
    )
    plain, plain_mib, want = measured(lambda: by_vmap(module, x), lambda: by_vmap(module, few), 1)
    error = float((got - want).norm() / want.norm())
    print(
        f"  N={n} ({source}): factored {fast:.2f} s, {fast_mib:.0f} MiB; explicit {slow:.2f} s, {slow_mib:.0f} MiB; "
        f"vmap(grad) and product {plain:.2f} s, {plain_mib:.0f} MiB; {slow / fast:.1f} and {plain / fast:.1f} times "
        f"faster, relative difference {error:.1e}"
    )


def images(n):
    """Fashion-MNIST images in [0, 1], or noise of that shape."""
    import os

    import numpy as np

    path = Path(os.environ.get("MODAL_NTK_DATA", "")) / "fashion_mnist.npz"
    if not path.is_file():
        return torch.rand(n, 1, 28, 28), "random pixels"
    with np.load(path, allow_pickle=False) as data:
        pixels = torch.from_numpy(data["x_train"][:n]).float().reshape(n, 1, 28, 28)
    return pixels / pixels.max(), "Fashion-MNIST"


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out),
        )  # fmt: skip
        same = stride == 1 and n_in == n_out
        short = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.short = nn.Identity() if same else short

    def forward(self, x):
        return torch.relu(self.body(x) + self.short(x))


def resnet18():
    """ResNet-18 for 32x32 images."""
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    width = 64
    for n_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, n_out, stride), Block(n_out, n_out, 1)]
        width = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def table_resnet(n=200, dims=(64, 256, 1024, 4096), n_seeds=5, budget=2**31):
    """ResNet-18, 32x32 inputs of noise, pseudo-kernel by sketch, float32."""
    module, x = resnet18(), torch.randn(n, 3, 32, 32)
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    print(f"{table_resnet.__doc__} {millions:.1f} M parameters, N={n}, memory_budget {budget / 2**30:.1f} GiB")
    began = time.perf_counter()
    with Peak() as exact_run:
        exact = empirical_ntk(module, x, memory_budget=budget)
    print(f"  exact (factored): {time.perf_counter() - began:.1f} s, {exact_run.mib:.0f} MiB")
    for dim in dims:
        errors, seconds, peaks = [], [], []
        for seed in range(n_seeds):
            began = time.perf_counter()
            with Peak() as run:
                got = empirical_ntk(module, x, method="sketch", sketch_dim=dim, random_state=seed, memory_budget=budget)
            seconds.append(time.perf_counter() - began)
            peaks.append(run.mib)
            errors.append(float((got - exact).norm() / exact.norm()))
        root_mean_square = (sum(e * e for e in errors) / n_seeds) ** 0.5
        print(
            f"  sketch_dim={dim}: {statistics.median(seconds):.1f} s, {max(peaks):.0f} MiB, relative error over "
            f"{n_seeds} seeds {root_mean_square:.2e} (root mean square; {min(errors):.1e} to {max(errors):.1e})"
        )


def table_neural_tangents(sizes=(100, 250, 500)):
    """MLP 512-512-10 against neural-tangents (jax on the CPU), trace kernel, float32."""
    print(table_neural_tangents.__doc__)
    try:
        import jax
        import neural_tangents as nt
    except ImportError as error:
        print(f"  not measured: {error}")
        return
    module = mlp()
    parameters = tuple(jax.numpy.asarray(p.detach().numpy()) for p in module.parameters())

    def logits(p, x):
        return jax.numpy.maximum(x @ p[0].T + p[1], 0) @ p[2].T + p[3]

    # Jacobian contraction; the structured implementations of 0.6.5 raise, or ask for tens of GiB, on this net.
    kernel = jax.jit(nt.empirical_ntk_fn(logits, trace_axes=(-1,), vmap_axes=0, implementation=1))
    for n in sizes:
        x = torch.randn(n, 512)
        data = jax.numpy.asarray(x.numpy())
        theirs, _, want = measured(*[lambda data=data: kernel(data, None, parameters).block_until_ready()] * 2)
        ours, _, got = measured(*[lambda x=x: empirical_ntk(module, x, kind="trace")] * 2)
        error = float((got - torch.tensor(want.tolist())).norm() / got.norm())
        print(
            f"  N={n}: ours {ours * 1e3:.0f} ms, theirs {theirs * 1e3:.0f} ms, ratio theirs to ours "
            f"{theirs / ours:.0f}, relative difference {error:.1e}"
        )


def ratio(with_it, without, repeats=7):
    """Median over alternate runs of the processor time of one function by that of another, and both medians."""
    seconds = {with_it: [], without: []}
    for function in (with_it, without) * repeats:
        gc.collect()
        began = time.process_time()
        function()
        seconds[function].append(time.process_time() - began)
    first, second = (statistics.median(values) for values in seconds.values())
    return first / second, first, second


def table_proof():
    """The pseudo-kernel with its proof on every chunk by that with verify=False, float32, processor time."""
    print(table_proof.__doc__)
    sides = {
        "MLP 512-512-10, N=2000": (mlp(), torch.randn(2000, 512), 5),
        "LeNet-5, N=2000": (LeNet5(), images(2000)[0], 1),
        "ResNet-18, N=64": (resnet18(), torch.randn(64, 3, 32, 32), 1),
    }
    for name, (module, x, repeats) in sides.items():
        empirical_ntk(module, x[:4])
        cost, with_it, without = ratio(
            lambda m=module, x=x: empirical_ntk(m, x),
            lambda m=module, x=x: empirical_ntk(m, x, verify=False),
            repeats,
        )
        print(f"  {name}: {with_it * 1e3:.0f} ms and {without * 1e3:.0f} ms, ratio {cost:.2f}")


def table_bert(n=64, length=32):
    """Bert (2 layers, width 128, from configuration, masked), pseudo-kernel against one sample at a time.

    Before broadcast lookups had factors, this took .61 to .67 s where one forward and backward pass of all samples took
    .085 to .090 s; since then .26 to .28 s beside the same pass, three times the pass. Ten times faster would have been
    less than the pass itself, which only adds gradients up. Beyond the pass there are the gradients written out and
    their products (64 x 64 of 390,000 numbers, about .08 s together, as many multiplications as the pass has), the
    settling on two samples and the proof on an eighth of them (under .1 s, most of it Python's, whatever the number of
    samples). Without a mask .25 to .26 s (.30 before); GPT-2 of that size, without a mask, .30 s beside a pass of .11 s
    (.70 to .76 before). Processor time, one thread, beside other work.
    """
    print(table_bert.__doc__)
    try:
        from transformers import BertConfig, BertForSequenceClassification
    except Exception as error:  # noqa: BLE001 - not installed, or installed beside what it does not work with
        print(f"  not measured: {error}")
        return
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = BertConfig(num_labels=3, vocab_size=1000, max_position_embeddings=64, **sizes)

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = BertForSequenceClassification(config).eval()

        def forward(self, words, mask):
            return self.model(input_ids=words, attention_mask=mask).logits

    module = Logits()
    mask = (torch.arange(length)[None] < torch.randint(8, length + 1, (n, 1))).long()
    x = {"words": torch.randint(3, 1000, (n, length)), "mask": mask}

    against_a_loop(module, x)


def against_a_loop(module, x):
    """Print the time of a pseudo-kernel beside those of a loop over samples and of one plain pass over all."""
    n, trained = len(next(iter(x.values()))), list(module.parameters())

    def gradients(rows):
        out = module(**{name: part[rows] for name, part in x.items()})
        return torch.autograd.grad(out.sum() / out.shape[1] ** 0.5, trained)

    def looped():
        flat = torch.stack([torch.cat([g.flatten() for g in gradients(slice(i, i + 1))]) for i in range(n)])
        return flat @ flat.T

    empirical_ntk(module, {name: part[:2] for name, part in x.items()})
    gain, loop, ours = ratio(looped, lambda: empirical_ntk(module, x), 5)
    _, plain, _ = ratio(lambda: gradients(slice(None)), lambda: None, 5)
    _, info = empirical_ntk(module, x, return_info=True)
    routes = sorted(set(info["routes"].values()))
    print(
        f"  N={n}: {ours * 1e3:.0f} ms, one sample at a time {loop * 1e3:.0f} ms, {gain:.1f} times; one forward and "
        f"backward pass of all samples, without a kernel, {plain * 1e3:.0f} ms; routes {routes}"
    )


def table_recurrent(n=64, length=32):
    """LSTM (2 layers, width 128), pseudo-kernel against one sample at a time."""
    print(table_recurrent.__doc__)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTM(32, 128, 2, batch_first=True), nn.Linear(128, 3)

        def forward(self, steps):
            return self.head(self.cell(steps)[0][:, -1])

    against_a_loop(Last(), {"steps": torch.randn(n, length, 32)})


TABLES = {
    "proof": table_proof, "bert": table_bert, "recurrent": table_recurrent, "mlp": table_mlp, "lenet": table_lenet,
    "resnet": table_resnet, "neural-tangents": table_neural_tangents,
}  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TABLES)
    only = parser.parse_args().only
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, table in TABLES.items():
        if only in (None, name):
            table()


if __name__ == "__main__":
    main()
