"""lpNTK's theorem 1 on nets of growing width: how far the labelled kernel lies from the whole one.

    python examples/reproduce lpntk_theorem [--widths 64 256 1024 4096] [--seeds 10]

A net of one hidden layer with ReLU on scikit-learn's digits, its last layer drawn from N(0, 1 / width) as the proof has
it, the first from N(0, 1 / 64). Printed is the norm of

    D = kappa((x, y), (x', y')) I - K(x, x')

over the root of the width, which is what the proof bounds by a number that falls as one over the root, and over the
norm of K, for 40 pairs of one label and 40 of two: means over the pairs, then mean and deviation over the
initialisations. MODAL_NTK_SMALL=1 makes it seconds.
"""

import argparse
import os

import numpy as np
import torch
from torch import nn

from modal_ntk.bench import load_dataset
from modal_ntk.kernels import empirical_ntk

SMALL = bool(os.environ.get("MODAL_NTK_SMALL"))
N_PAIRS = 40


def norms(width, seed, equal):
    """Of D over the root of the width, and over the norm of K."""
    data, rng = load_dataset("digits"), np.random.default_rng(seed)
    order = rng.permutation(len(data.x_train))
    half = len(order) // 2
    together = data.y_train[order[:half]] == data.y_train[order[half : 2 * half]]
    some = np.flatnonzero(together == equal)[:N_PAIRS]
    one, other = order[some], order[half + some]
    x, y = torch.from_numpy(data.x_train).double(), data.y_train
    net = nn.Sequential(nn.Linear(64, width, bias=False), nn.ReLU(), nn.Linear(width, 10, bias=False)).double()
    for layer, fan_in in ((net[0], 64), (net[2], width)):
        layer.weight.data = torch.from_numpy(rng.normal(size=layer.weight.shape)) / fan_in**0.5
    pairs = np.arange(len(some))
    kernels = empirical_ntk(net, x[one], x[other], kind="full").numpy()[pairs, pairs]
    labelled = empirical_ntk(net, x[one], x[other], kind="labelled", labels=(y[one], y[other])).numpy()[pairs, pairs]
    gaps = np.linalg.norm(labelled[:, None, None] * np.eye(10) - kernels, axis=(1, 2))
    return gaps.mean() / width**0.5, (gaps / np.linalg.norm(kernels, axis=(1, 2))).mean()


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64] if SMALL else [64, 256, 1024, 4096])
    parser.add_argument("--seeds", type=int, default=2 if SMALL else 10)
    options = parser.parse_args(arguments)
    scales = ("root of width", "norm of K")
    heads = [f"norm of D / {scale}, {labels}" for labels in ("one label", "two labels") for scale in scales]
    print(f"| width | {' | '.join(heads)} |\n|{'---|' * 5}")
    for width in options.widths:
        found = np.array([[*norms(width, s, True), *norms(width, s, False)] for s in range(options.seeds)])
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=0), found.std(axis=0, ddof=1), strict=True)]
        print(f"| {width} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
