"""Slow float64 kernels by their definition, and small nets of every architecture that kernels are asked for."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def jacobian(module, x):
    """The whole Jacobian (n, K, P) of the trainable parameters, one sample at a time, in float64."""
    net = copy.deepcopy(module).double().eval()
    trainable = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    x = x.double() if x.is_floating_point() else x
    rows = []
    for sample in x:

        def logits(parameters, sample=sample):
            return torch.func.functional_call(net, parameters, (sample[None],)).reshape(-1)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            blocks = torch.func.jacrev(logits)(trainable)
        rows.append(torch.cat([b.flatten(1) for b in blocks.values()], 1))
    return torch.stack(rows)


def logits64(module, x):
    net = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        return net(x.double() if x.is_floating_point() else x).reshape(len(x), -1)


def kernel_oracle(module, x1, x2, kind, labels1=None, labels2=None):
    """The kernel from the full one, reduced as methods define it."""
    j1 = jacobian(module, x1)
    j2 = j1 if x2 is x1 else jacobian(module, x2)
    k = j1.shape[1]
    full = torch.einsum("iap,jbp->ijab", j1, j2)
    if kind == "full":
        return full
    if kind == "pseudo":
        return full.sum((2, 3)) / k
    if kind == "trace":
        return full.diagonal(dim1=2, dim2=3).sum(-1) / k
    if kind == "labelled":
        s1, s2 = (2 * F.one_hot(labels, k).double() - 1 for labels in (labels1, labels2))
        return torch.einsum("ia,ijab,jb->ij", s1, full, s2) / k
    sides = ((logits64(module, x1), labels1), (logits64(module, x2), labels2))
    r1, r2 = ((f.softmax(1) if kind == "loss" else f) - F.one_hot(labels, k) for f, labels in sides)
    return torch.einsum("ia,ijab,jb->ij", r1, full, r2)


class LeNet5(nn.Module):
    def __init__(self, n_classes=3, side=12):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 5, padding=2), nn.Conv2d(3, 4, 3)
        self.fc1 = nn.Linear(4 * ((side // 2 - 2) // 2) ** 2, 10)
        self.fc2, self.fc3 = nn.Linear(10, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


class ResNetBlock(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.short = nn.Conv2d(4, 8, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, n_classes)

    def forward(self, x):
        x = self.relu(self.norm1(self.stem(x)))
        y = self.conv2(self.relu(self.norm2(self.conv1(x))))
        y += self.short(x)
        return self.head(self.relu(y).mean((2, 3)))


class SharedWeights(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.first, self.again = nn.Linear(5, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, n_classes)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for _ in range(3):
            x = x + torch.tanh(self.again(x))
        return self.head(x)


class TiedEmbedding(nn.Module):
    """A table read by line and as a matrix: two unlike uses of one weight."""

    def __init__(self, n_words=7, d=4):
        super().__init__()
        self.table = nn.Embedding(n_words, d)

    def forward(self, x):
        return F.linear(torch.tanh(self.table(x).mean(1)), self.table.weight)


class MeanEmbedding(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=0)
        self.head = nn.Linear(4, n_classes)

    def forward(self, x):
        return self.head(torch.tanh(self.table(x)).mean(1))


class SmallTransformer(nn.Module):
    def __init__(self, n_classes=3, batch_first=True):
        super().__init__()
        self.batch_first = batch_first
        self.table, self.place = nn.Embedding(9, 8), nn.Parameter(torch.randn(5, 8) / 3)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, n_classes)

    def forward(self, x):
        x = self.table(x) + self.place
        if self.batch_first:
            return self.head(self.encoder(x).mean(1))
        return self.head(self.encoder(x.transpose(0, 1)).mean(0))


class Conv1dNet(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.conv1 = nn.Conv1d(2, 4, 3, padding="same", dilation=2)
        self.conv2 = nn.Conv1d(4, 6, 4, stride=2, groups=2, padding=1, padding_mode="circular")
        self.norm = nn.GroupNorm(3, 6)
        self.head = nn.Linear(6, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv2(torch.relu(self.conv1(x))))).mean(2))


class FlattenedTokens(nn.Module):
    """Tokens of all samples as rows of one matrix, as hand-written attention does."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.mix, self.head = nn.Linear(5, 6), nn.Linear(6, n_classes)

    def forward(self, x):
        n, t = x.shape[:2]
        return self.head(torch.tanh(self.mix(x.reshape(n * t, -1))).reshape(n, t, -1).mean(1))


class SequenceFirst(nn.Module):
    """Positions on the first axis: the layers' rows are no samples."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.mix, self.norm, self.head = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, n_classes)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.mix(x.transpose(0, 1)))).mean(0))


class Wary(nn.Module):
    """Looks at values before it multiplies, in a way that no layer function stands for."""

    def __init__(self, n_classes=3):
        super().__init__()
        self.mix, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(4, n_classes)

    def forward(self, x):
        if x.isnan().any():
            raise ValueError("NaN")
        return self.head(torch.einsum("ntd,dk->nk", x, self.mix).tanh())


def _with_statistics(module):
    """Give batch normalisations other than their first statistics."""
    generator = torch.Generator().manual_seed(7)
    for part in module.modules():
        if hasattr(part, "running_mean") and part.running_mean is not None:
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.normal_(part.weight, 1, 0.3, generator=generator)
            nn.init.normal_(part.bias, generator=generator)
    return module


def nets():
    """Name -> (module, samples), drawn with the caller's seed."""
    words = torch.randint(0, 9, (5, 5))
    tokens = torch.randn(5, 4, 5)
    return {
        "mlp": (nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)), torch.randn(5, 5)),
        "lenet": (LeNet5(), torch.randn(5, 1, 12, 12)),
        "conv_bn": (
            _with_statistics(
                nn.Sequential(
                    nn.Conv2d(2, 4, 3),
                    nn.BatchNorm2d(4),
                    nn.ReLU(inplace=True),
                    nn.Dropout(),
                    nn.Flatten(),
                    nn.Linear(4 * 16, 6),
                    nn.BatchNorm1d(6),
                    nn.Tanh(),
                    nn.Linear(6, 3),
                )
            ),
            torch.randn(5, 2, 6, 6),
        ),
        "resnet": (_with_statistics(ResNetBlock()), torch.randn(5, 2, 7, 6)),
        "layer_norm": (
            _with_statistics(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3))),
            torch.randn(5, 5),
        ),
        "shared": (SharedWeights(), torch.randn(5, 5)),
        "embedding": (MeanEmbedding(), words),
        "tied": (TiedEmbedding(9), words),
        "transformer": (_with_statistics(SmallTransformer()), words),
        "transformer_sequence_first": (_with_statistics(SmallTransformer(batch_first=False)), words),
        "conv1d": (_with_statistics(Conv1dNet()), torch.randn(5, 2, 9)),
        "flattened": (FlattenedTokens(), tokens),
        "sequence_first": (_with_statistics(SequenceFirst()), tokens),
        "weight_norm": (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3)),
            torch.randn(5, 5),
        ),
    }


KINDS = ("pseudo", "trace", "full", "labelled", "loss", "mse")
NETS = [
    "mlp",
    "lenet",
    "conv_bn",
    "resnet",
    "layer_norm",
    "shared",
    "embedding",
    "tied",
    "transformer",
    "transformer_sequence_first",
    "conv1d",
    "flattened",
    "sequence_first",
    "weight_norm",
]


def infinite_width_oracle(x1, x2):
    """Kernel of the infinitely wide Linear-ReLU-Linear head, by entries, from arc-cosine kernels of order 0 and 1."""
    kernel = np.empty((len(x1), len(x2)))
    for i, a in enumerate(x1):
        for j, b in enumerate(x2):
            s, n, m = a @ b / len(a), np.sqrt(a @ a / len(a)), np.sqrt(b @ b / len(b))
            angle = np.arctan2(np.linalg.norm(a / n * m - b), np.linalg.norm(a / n * m + b)) * 2
            first_order = n * m * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
            kernel[i, j] = first_order + s * (np.pi - angle) / (2 * np.pi)
    return kernel
