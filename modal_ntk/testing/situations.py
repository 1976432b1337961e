"""Learners, pools and labels of every kind that users bring, small enough to be fitted in milliseconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import modAL.models
import numpy as np
import torch
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import Tensor, nn

from modal_ntk import nets
from modal_ntk.nets.traceless import seeded


@dataclass(frozen=True)
class Situation:
    """A fitted learner, what it was taught and what it may ask about.

    Parameters
    ----------
    learner : estimator or modAL learner
        Fitted to the labelled samples.
    X_pool : samples (n, ...)
        Unlabelled samples.
    X_labeled : samples (l, ...)
        Labelled samples.
    y_labeled : numpy.ndarray (l,)
        Their labels.
    """

    learner: Any
    X_pool: Any
    X_labeled: Any
    y_labeled: Any

    def select(self, strategy: Any, n_instances: int = 4) -> Any:
        """Let a strategy choose."""
        known = {"X_labeled": self.X_labeled, "y_labeled": self.y_labeled}
        return strategy.select(self.learner, self.X_pool, n_instances, **known)

    def but(self, **changes: Any) -> Situation:
        """Return the same with some parts replaced."""
        return replace(self, **changes)


def blobs(n: int = 60, d: int = 6, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples (n, d) float32 around one centre a class, and their classes (n,) by turns."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = rng.normal(scale=3, size=(n_classes, d))
    return (centres[y] + rng.normal(size=(n, d))).astype(np.float32), y.astype(np.int64)


def images() -> np.ndarray:
    """Return the samples of `blobs` as images (n, 1, 2, 3)."""
    return blobs()[0].reshape(-1, 1, 2, 3)


class MLP(nn.Module):
    """One hidden layer with BatchNorm; logits, or what a net with another criterion returns."""

    def __init__(self, d: int = 6, hidden: int = 8, n_classes: int = 3, output: str = "logits") -> None:
        super().__init__()
        self.hidden = nn.Linear(d, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, n_classes)
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, n_classes)."""
        logits = self.head(torch.relu(self.norm(self.hidden(x))))
        return {"logits": logits, "softmax": logits.softmax(1), "log_softmax": logits.log_softmax(1)}[self.output]


class ConvNet(nn.Module):
    """Convolution, BatchNorm and dropout on images (n, 1, 2, 3)."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 2 * 3, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


class DropoutMLP(MLP):
    """The same with dropout, called as a function."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        hidden = torch.relu(self.norm(self.hidden(x)))
        return self.head(nn.functional.dropout(hidden, 0.5, self.training))


class DictNet(nn.Module):
    """Two inputs by name."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.left = nn.Linear(3, 5)
        self.head = nn.Linear(8, n_classes)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.head(torch.cat([torch.relu(self.left(a)), b], dim=1))


class FrozenBackbone(nn.Module):
    """A fixed encoder below a trained classifier."""

    def __init__(self, d: int = 6, n_classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(d, 7), nn.Tanh()).requires_grad_(False)
        self.classifier = MLP(7, 8, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes)."""
        return self.classifier(self.backbone(x))


class OneLogit(nn.Module):
    """One logit for two classes."""

    def __init__(self, d: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n,)."""
        return self.layers(x).squeeze(1)


class EncodingNet(NeuralNetClassifier):
    """A net for labels of any kind, which it numbers itself."""

    def fit(self, X: Any, y: Any, **fit_params: Any) -> EncodingNet:
        """Fit to the numbers of the labels."""
        self.encoder_ = LabelEncoder().fit(y)
        super().fit(X, self.encoder_.transform(y).astype(np.int64), **fit_params)
        return self

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the outputs."""
        return self.encoder_.classes_

    def predict(self, X: Any) -> np.ndarray:
        """Return labels."""
        return self.classes_[self.predict_proba(X).argmax(1)]


DEVICE_VARIABLE = "MODAL_NTK_TEST_DEVICE"


def device() -> str:
    """Where nets are tried: on the CPU, or where MODAL_NTK_TEST_DEVICE says."""
    return os.environ.get(DEVICE_VARIABLE, "cpu")


def skorch_net(module: Any = MLP, *, kind: Any = NeuralNetClassifier, n_classes: int = 3, **options: Any) -> Any:
    """Return an unfitted skorch net that trains in milliseconds, on `device`."""
    settings = {
        "device": device(),
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 3,
        "lr": 0.1,
        "batch_size": 16,
        "train_split": None,
        "verbose": 0,
    }
    if kind is NeuralNetClassifier:
        settings["classes"] = list(range(n_classes))
    return kind(module, **{**settings, **options})


N_LABELED = 12


def beside(learner: Any, X: Any = None, y: Any = None) -> Situation:
    """Set a learner, as it is, beside some data, `blobs` by default: the first rows are labelled, the rest the pool."""
    X0, y0 = blobs()
    X, y = X0 if X is None else X, y0 if y is None else y
    known, rest = (nets.take_rows(X, rows) for rows in np.split(np.arange(len(y)), [N_LABELED]))
    return Situation(learner, rest, known, y[:N_LABELED])


def learning(net: Any, X: Any = None, y: Any = None, **options: Any) -> Situation:
    """Have an active learner fit a net to the first rows of some data and leave the rest as the pool."""
    situation = beside(None, X, y)
    known = {"X_training": situation.X_labeled, "y_training": situation.y_labeled}
    with seeded(0):
        return situation.but(learner=nets.ActiveLearner(net, **known, **options))


def taught(estimator: Any, X: Any = None, y: Any = None) -> Situation:
    """Fit an estimator to the first rows of some data and leave the rest as the pool."""
    situation = beside(estimator, X, y)
    with seeded(0):
        estimator.fit(situation.X_labeled, situation.y_labeled)
    return situation


def _named() -> Situation:
    X, _ = blobs()
    return taught(skorch_net(DictNet), {"a": X[:, :3], "b": X[:, 3:]})


def _binary() -> Situation:
    X, y = blobs(n_classes=2)
    net = skorch_net(OneLogit, kind=NeuralNetBinaryClassifier, criterion=nn.BCEWithLogitsLoss)
    return taught(net, X, y.astype(np.float32))


def _committee() -> Situation:
    situation = beside(None)
    known = {"X_training": situation.X_labeled, "y_training": situation.y_labeled}
    with seeded(0):
        members = [nets.ActiveLearner(skorch_net(), **known) for _ in range(2)]
    return situation.but(learner=modAL.models.Committee(members))


def _critic() -> Situation:
    X, _ = blobs()
    # The parameter, not the argument of `fit`, so that whoever teaches this net on teaches it against the critic.
    kind = partial(nets.WAALClassifier, module__n_classes=8, unlabeled=X[N_LABELED:])
    return taught(skorch_net(kind=kind, classes=range(3)))


LEARNERS: dict[str, Callable[[], Situation]] = {
    "MLP": lambda: taught(skorch_net()),
    "conv net with BatchNorm and dropout": lambda: taught(skorch_net(ConvNet), images()),
    "MLP with dropout": lambda: taught(skorch_net(DropoutMLP)),
    "dict inputs": _named,
    "frozen backbone": lambda: taught(skorch_net(FrozenBackbone)),
    "log-softmax outputs": lambda: taught(skorch_net(MLP, module__output="log_softmax", criterion=nn.NLLLoss)),
    "softmax outputs": lambda: taught(skorch_net(MLP, module__output="softmax", criterion=nn.NLLLoss)),
    "one logit": _binary,
    "a class not seen yet": lambda: taught(skorch_net(), y=np.minimum(blobs()[1], 1)),
    "Pipeline": lambda: taught(make_pipeline(StandardScaler(), skorch_net())),
    "active learner": lambda: learning(skorch_net()),
    "committee": _committee,
    "net with a critic": _critic,
    "random forest": lambda: taught(RandomForestClassifier(5, random_state=0)),
    "logistic regression": lambda: taught(LogisticRegression()),
}
"""Fitted learners by name."""


def _frame(X: np.ndarray) -> Any:
    import pandas

    return pandas.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def _mapped(X: np.ndarray) -> np.ndarray:
    # The file may go as soon as it is mapped, so nothing is left behind.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npy"
        np.save(path, X)
        return np.load(path, mmap_mode="r")


CONTAINERS: dict[str, tuple[Callable[[np.ndarray], Any], bool]] = {
    "Fortran order": (np.asfortranarray, True),
    "every second row of an array": (lambda X: np.repeat(X, 2, axis=0)[::2], True),
    "read-only memory map": (_mapped, True),
    "torch tensor": (torch.from_numpy, True),
    "pandas frame": (_frame, True),
    "float64": (partial(np.asarray, dtype=np.float64), False),
    "list of lists": (lambda X: X.tolist(), False),
    "sparse matrix": (sparse.csr_matrix, False),
}
"""Ways to hold a matrix, and whether every bit of it is kept, so that the picks must be the same."""

LABELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {
    "strings": (lambda y: np.array(["ant", "bee", "cat"])[y], True),
    "strings as objects": (lambda y: np.array(["ant", "bee", "cat"], dtype=object)[y], True),
    "numbers with gaps": (lambda y: y * 7 - 3, True),
    "one class": (lambda y: 0 * y, False),
    "one label of each class but one": (lambda y: np.where(np.arange(len(y)) < 3, y, 0), False),
}
"""Kinds of labels made from class numbers, and whether these are only renamed, so that the picks must be the same."""
