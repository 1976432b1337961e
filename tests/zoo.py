"""Small data and nets of every kind that users bring, shared by the tests."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn


def blobs(n=60, d=6, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = rng.normal(scale=3, size=(n_classes, d))
    return (centres[y] + rng.normal(size=(n, d))).astype(np.float32), y.astype(np.int64)


class MLP(nn.Module):
    def __init__(self, d=6, hidden=8, n_classes=3, output="logits"):
        super().__init__()
        self.hidden = nn.Linear(d, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, n_classes)
        self.output = output

    def forward(self, x):
        logits = self.head(torch.relu(self.norm(self.hidden(x))))
        return {"logits": logits, "softmax": logits.softmax(1), "log_softmax": logits.log_softmax(1)}[self.output]


class ConvNet(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 2 * 3, n_classes)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


class DictNet(nn.Module):
    def __init__(self, n_classes=3):
        super().__init__()
        self.left = nn.Linear(3, 5)
        self.head = nn.Linear(8, n_classes)

    def forward(self, a, b):
        return self.head(torch.cat([torch.relu(self.left(a)), b], dim=1))


class FrozenBackbone(nn.Module):
    def __init__(self, d=6, n_classes=3):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(d, 7), nn.Tanh())
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        self.classifier = MLP(7, 8, n_classes)

    def forward(self, x):
        return self.classifier(self.backbone(x))


class OneLogit(nn.Module):
    def __init__(self, d=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x):
        return self.layers(x).squeeze(1)


def net(module=MLP, *, n_classes=3, **options):
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 3,
        "lr": 0.1,
        "batch_size": 16,
        "train_split": None,
        "classes": list(range(n_classes)),
        "verbose": 0,
    }
    return NeuralNetClassifier(module, **{**settings, **options})


@contextmanager
def generators_untouched():
    """The global generators of NumPy and torch are the same after the body."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    yield
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))


def state_of(module):
    """Everything a strategy must leave alone, copied."""
    return {
        "tensors": {k: v.detach().clone() for k, v in module.state_dict().items()},
        "training": [m.training for m in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "hooks": [len(v) for m in module.modules() for k, v in vars(m).items() if k.endswith("_hooks")],
        "devices": [p.device for p in module.parameters()],
    }


def assert_same_state(before, after):
    assert before["tensors"].keys() == after["tensors"].keys()
    for name, tensor in before["tensors"].items():
        assert torch.equal(tensor, after["tensors"][name]), name
    for key in ("training", "requires_grad", "hooks", "devices"):
        assert before[key] == after[key], key
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None) == (new is None)
        assert old is None or torch.equal(old, new)
