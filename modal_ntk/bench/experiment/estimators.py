"""The nets that the benchmark trains when the user names none."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modal_ntk.bench.experiment.datasets import Dataset


class MLPHead(nn.Module):
    """The classifier of NTKCPL, appendix 6.3: Linear, BatchNorm, ReLU, Linear.

    Parameters
    ----------
    n_features, n_hidden, n_classes : int
        Widths; the paper's hidden width for CIFAR-10 is 64.
    """

    def __init__(self, n_features: int, n_hidden: int, n_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, n_hidden)
        self.norm = nn.BatchNorm1d(n_hidden)
        self.head = nn.Linear(n_hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, d) to logits (n, C)."""
        return self.head(torch.relu(self.norm(self.hidden(x))))


class LeNet(nn.Module):
    """A small convolutional net for images of any size from 12 pixels up.

    Parameters
    ----------
    n_channels, n_classes : int
        Channels of the images and number of classes.
    """

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(5),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, C)."""
        return self.head(self.body(x))


class BatchLoader(DataLoader[Any]):
    """Data loader that leaves out a last batch of a single sample, on which BatchNorm cannot train.

    Parameters
    ----------
    dataset : torch Dataset
        The samples.
    batch_size : int
        Samples in a batch.
    shuffle : bool, default=False
        Whether to draw a new order at every pass.
    """

    def __init__(self, dataset: Any, batch_size: int, shuffle: bool = False) -> None:
        single = len(dataset) > batch_size and len(dataset) % batch_size == 1
        super().__init__(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=single)


def default_estimator(dataset: Dataset, *, device: str = "cpu") -> Any:
    """Return an unfitted classifier that suits a data set.

    Parameters
    ----------
    dataset : Dataset
        Tells the shape of samples and the number of classes.
    device : str, default="cpu"
        Where to train.

    Returns
    -------
    estimator
        A skorch net: `LeNet` for images, `MLPHead` for features. Both train by cross-entropy, SGD with
        Nesterov momentum 0.9, weight decay 3e-4, batches of 100, cosine schedule, 100 epochs.

    Notes
    -----
    The recipe is NTKCPL's (appendix 6.3), without its augmentation, which frozen features do not allow, and
    with a learning rate of 0.1 (0.05 for images) in place of 0.3, so that raw data train as well.

    Examples
    --------
    >>> from modal_ntk.bench import load_dataset
    >>> default_estimator(load_dataset("digits")).module.__name__
    'MLPHead'
    """
    n_classes, images = len(dataset.classes), dataset.x_train.ndim > 2
    n = dataset.x_train.shape[1]
    sizes = {"module__n_channels": n} if images else {"module__n_features": n, "module__n_hidden": 64}
    return NeuralNetClassifier(
        LeNet if images else MLPHead,
        **sizes,
        module__n_classes=n_classes,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        optimizer__weight_decay=3e-4,
        lr=0.05 if images else 0.1,
        max_epochs=100,
        batch_size=100,
        iterator_train=BatchLoader,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=1000,
        callbacks=[("cosine", LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=100))],
        classes=list(range(n_classes)),
        train_split=None,
        device=device,
        verbose=0,
    )
