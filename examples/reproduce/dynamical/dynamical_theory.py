"""The theory behind dynamicAL on a convolutional net: training dynamics G, alignment A, generalisation bound B.

    MODAL_NTK_DATA=... python examples/reproduce dynamical_theory --out DIR

A labelled set S is fixed and batches Q are drawn at random, as in the paper's appendix D: 500 and 250 images of
CIFAR-10, 150 draws, a net of three convolutions and global average pooling. For each draw the script computes A and
B of S and Q under their true labels, and G of the squared error under true and under pseudo-labels; it draws A
against both, and B against G, and prints Kendall's tau of each pair. G is the squared length of the net's own summed
loss gradient, as initialised; "ultra-wide" G puts in its place one kernel for all outputs, as A and B do; "centred" G
is that of the same net with its initial outputs taken off, so that it starts from zero. The pseudo-label of a sample
is the largest output of kernel regression on S.

Batches come from 2,000 candidates instead of the whole training set, so that one kernel serves all draws. The kernel
is that of a net of finite width. Without the data set, or with MODAL_NTK_SMALL=1, 8x8 digits stand in at a size
that takes seconds.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import nn
from torch.nn import functional as F

from modal_ntk import kernels
from modal_ntk.bench import load_dataset
from modal_ntk.errors import UnknownNameError

PAPER = {"n_labeled": 500, "n_query": 250, "n_candidates": 2000, "n_draws": 150, "width": 32}
SMALL = {"n_labeled": 40, "n_query": 20, "n_candidates": 150, "n_draws": 40, "width": 8}
PAIRS = [
    ("A", "G_MSE, true labels"),
    ("A", "G_MSE, pseudo-labels"),
    ("A", "centred G_MSE, true labels"),
    ("A", "centred G_MSE, pseudo-labels"),
    ("A", "centred ultra-wide G_MSE, pseudo-labels"),
    ("A", "ultra-wide G_MSE, true labels"),
    ("A", "ultra-wide G_MSE, pseudo-labels"),
    ("B", "G_MSE, true labels"),
    ("B", "G_MSE, pseudo-labels"),
    ("B", "centred G_MSE, true labels"),
    ("B", "G_CE, true labels"),
]


class ConvNet(nn.Sequential):
    """Three convolutions and global average pooling."""

    def __init__(self, n_channels, width, n_classes):
        layers, sizes = [], [n_channels, width, width, width]
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes))


def images(small):
    """Standardised images (n, channels, height, width) in random order, their classes, and their source."""
    try:
        data = load_dataset("digits" if small else "cifar10")
    except UnknownNameError as error:
        print(error, "Using digits.", sep="\n")
        data = load_dataset("digits")
    x = torch.from_numpy(data.x_train)
    x = x.reshape(-1, 1, 8, 8) if x.ndim == 2 else x
    channels = (0, 2, 3)
    x = (x - x.mean(channels, keepdim=True)) / x.std(channels, keepdim=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], torch.from_numpy(data.y_train)[order], data.name


def loss_gram(net, x, labels, kind):
    """Inner products of all loss gradients; a block's sum is the training dynamics of its samples."""
    return kernels.empirical_ntk(net, x, kind=kind, labels=labels).double()


def centred_gram(net, x, target):
    """Return the same of the squared error of a net whose outputs start from zero: its residuals are the labels."""
    signs = target.float() * target.shape[1] ** 0.5  # the labelled kernel divides by the number of outputs
    return torch.from_numpy(kernels.kernel_rows(net, x, signs=signs, method="exact").matrix()).double()


def study(x, y, settings, seed=0):
    """All quantities for every draw of Q, as a dict of lists."""
    n_labeled, n = settings["n_labeled"], settings["n_labeled"] + settings["n_candidates"]
    x, y = x[:n], y[:n]
    torch.manual_seed(seed)
    n_classes = int(y.max()) + 1
    net = ConvNet(x.shape[1], settings["width"], n_classes).eval()
    started = perf_counter()
    kernel = kernels.empirical_ntk(net, x, kind="trace", dtype=torch.float32, verbose=1).double()
    print(f"kernel of {n} images: {perf_counter() - started:.0f} s")
    with torch.no_grad():
        outputs = torch.cat([net(part) for part in x.split(250)]).double()
    true = F.one_hot(y, n_classes).double()
    known = slice(0, n_labeled)
    regression = kernels.ntk_regression(kernel[known, known], kernel[:, known], true[known])
    pseudo = true.clone()
    pseudo[n_labeled:] = F.one_hot(regression[n_labeled:].argmax(1), n_classes).double()
    grams = {
        f"{name}, {which} labels".replace("pseudo ", "pseudo-"): loss_gram(net, x, target.argmax(1), kind)
        for name, kind, which, target in (
            ("G_MSE", "mse", "true", true),
            ("G_MSE", "mse", "pseudo", pseudo),
            ("G_CE", "loss", "true", true),
        )
    }
    grams["centred G_MSE, true labels"] = centred_gram(net, x, true)
    grams["centred G_MSE, pseudo-labels"] = centred_gram(net, x, pseudo)
    rng, found = np.random.default_rng(seed), []
    for _ in range(settings["n_draws"]):
        drawn = n_labeled + rng.choice(n - n_labeled, settings["n_query"], replace=False)
        rows = np.concatenate([np.arange(n_labeled), drawn])
        part, f, labels, guessed = kernel[np.ix_(rows, rows)], outputs[rows], true[rows], pseudo[rows]
        found.append(
            {
                "A": kernels.alignment(part, labels),
                "B": kernels.generalization_bound(part, labels),
                "MMD": kernels.mmd(part, np.arange(n_labeled)).value,
                **{name: float(gram[np.ix_(rows, rows)].sum()) for name, gram in grams.items()},
                "ultra-wide G_MSE, true labels": kernels.training_dynamics(part, f - labels),
                "ultra-wide G_MSE, pseudo-labels": kernels.training_dynamics(part, f - guessed),
                "centred ultra-wide G_MSE, pseudo-labels": kernels.training_dynamics(part, -guessed),
                "pseudo-labels right": float((labels == guessed)[n_labeled:].all(1).double().mean()),
            }
        )
    return {key: [draw[key] for draw in found] for key in found[0]}


def draw(found, taus, path):
    """Draw the scatter plots: A against G as initialised and from zero, B against both."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    titles = ("A, outputs as initialised", "A, outputs from zero", "B")
    panels = (PAIRS[:2], PAIRS[2:5], [pair for pair in PAIRS if pair[0] == "B" and "true" in pair[1]][:2])
    for axes, title, pairs in zip(figure.subplots(1, 3), titles, panels, strict=True):
        for what, goal in pairs:
            axes.scatter(found[goal], found[what], s=12, label=f"{goal}: tau = {taus[f'{what} and {goal}']:.3f}")
        axes.set(xlabel="G of S and Q", ylabel=f"{title[0]} of S and Q", title=title)
        axes.ticklabel_format(scilimits=(-3, 3))
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main(argv):
    """Compute, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="folder for the plot and the values")
    parser.add_argument("--width", type=int, help="channels of each convolution")
    parser.add_argument("--n-candidates", type=int, help="images that batches are drawn from")
    arguments = parser.parse_args(argv)
    x, y, source = images(bool(os.environ.get("MODAL_NTK_SMALL")))
    settings = dict(SMALL if source == "digits" else PAPER)
    settings.update({k: v for k in ("width", "n_candidates") if (v := getattr(arguments, k)) is not None})
    if not settings["n_query"] < settings["n_candidates"]:
        parser.error(f"--n-candidates must be above {settings['n_query']}, the size of a batch, for draws to differ")
    found = study(x, y, settings)
    print(f"{source}, " + ", ".join(f"{key} {value}" for key, value in settings.items()))
    taus = {" and ".join(pair): float(kendalltau(*(found[name] for name in pair)).statistic) for pair in PAIRS}
    for pair, tau in taus.items():
        print(f"Kendall's tau of {pair}: {tau:.3f}")
    for name in ("B", "MMD", "pseudo-labels right"):
        print(f"{name}: {np.mean(found[name]):.4g} on average, from {min(found[name]):.4g} to {max(found[name]):.4g}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        draw(found, taus, folder / "dynamical_theory.png")
        record = {"source": source, **settings, "kendall_tau": taus, "draws": found}
        (folder / "dynamical_theory.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
