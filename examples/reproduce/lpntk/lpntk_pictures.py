"""Pictures of lpntk_mnist: pairs of samples to look at, the sizes of clusters, difficulty under control."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from lpntk_common import images, pruned, reference

from modal_ntk.kernels import kernel_rows
from modal_ntk.pruning import sample_relations


def pictures(options):
    """Pictures of redundant, interchangeable and contradictory pairs, and of the clusters' long tail."""
    X, y, _, _ = images(options)
    net = reference(X, y, options)
    pruner = pruned(net, X, y)
    few = np.random.default_rng(0).permutation(len(y))[:2000]
    rows = kernel_rows(net.module_, torch.from_numpy(X[few]), labels=y[few])
    kernel = rows.matrix()
    _pairs(_redundant(kernel), "redundant, and what makes it so", X[few], y[few], options.out / "redundant.png")
    length = np.sqrt(kernel.diagonal())
    cosines = kernel / length / length[:, None]
    relations = sample_relations(kernel)
    print(relations)
    same = _extreme(np.where(relations.interchangeable, cosines, -np.inf))
    _pairs(same, "interchangeable", X[few], y[few], options.out / "interchangeable.png")
    # Pairs beyond the threshold are rare; the most obtuse angles are shown whether they reach it or not.
    opposed = _extreme(-cosines)
    _pairs(opposed, "most contradictory", X[few], y[few], options.out / "contradictory.png")
    _sizes(pruner, y, options.out / "clusters.png")


def difficulties(found, path):
    """Draw the targets' mean difficulty by the number of samples beside them, a line for each kind of these."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for kind, by_number in found.items():
        numbers = [n for n, values in by_number.items() if values]
        means = [np.mean(by_number[n]) for n in numbers]
        axis.errorbar(numbers, means, [np.std(by_number[n]) for n in numbers], marker=".", capsize=3, label=kind)
    axis.set(xlabel="samples added to each class", ylabel="difficulty of the targets", xscale="log")
    axis.set_title("Loss of the targets, summed over the epochs")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _redundant(kernel):
    matrix = kernel - np.diag(kernel.diagonal())
    excess = matrix.max(1) - kernel.diagonal()
    worst = np.argsort(-excess / kernel.diagonal())[:10]
    return [(i, int(matrix[i].argmax())) for i in worst if excess[i] > 0]


def _extreme(values):
    above = np.where(np.triu(np.ones_like(values, dtype=bool), 1), values, -np.inf)
    chosen, used = [], set()
    for position in np.argsort(-above, axis=None)[:2000]:
        pair = divmod(int(position), len(values))
        if np.isfinite(above[pair]) and not used & set(pair) and len(chosen) < 10:
            chosen.append(pair)
            used |= set(pair)
    return chosen


def _pairs(pairs, title, X, y, path):
    figure, axes = plt.subplots(2, max(len(pairs), 2), figsize=(10, 2.6), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for column, pair in enumerate(pairs):
        for row, i in enumerate(pair):
            axes[row, column].imshow(X[i, 0], cmap="gray_r")
            axes[row, column].set_title(str(y[i]), fontsize=8)
    figure.suptitle(f"{title} ({len(pairs)} pairs, labels above)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _sizes(pruner, y, path):
    figure, axis = plt.subplots(figsize=(6, 4))
    for label in np.unique(y):
        clusters = pruner.clusters_[y == label]
        sizes = np.sort(np.bincount(clusters[clusters >= 0]))[::-1][:30]
        axis.plot(np.arange(1, len(sizes) + 1), sizes, marker=".", label=str(label))
    axis.set(xlabel="cluster, by size", ylabel="samples", yscale="log", title="Clusters of each class")
    axis.legend(ncol=2, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
