"""The convolutional net that `strategies.toml` trains from its first layer on."""

from itertools import pairwise

import torch
from skorch import NeuralNetClassifier
from torch import nn

from modal_ntk.bench.experiment.estimators import BatchLoader


class ConvNet(nn.Module):
    """Three convolutions, then two linear layers with dropout between them."""

    def __init__(self, n_channels, n_classes):
        super().__init__()
        widths = [n_channels, 16, 32, 64]
        layers = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(576, 64), nn.ReLU())
        self.dropout = nn.Dropout(0.25)
        self.head = nn.Linear(64, n_classes)

    def forward(self, x):
        """Map images to logits."""
        return self.head(self.dropout(self.body(x)))


def conv_net(data, **params):
    """Return an unfitted classifier for a data set of images."""
    n_classes = len(data.classes)
    net = NeuralNetClassifier(
        ConvNet, module__n_channels=data.x_train.shape[1], module__n_classes=n_classes,
        criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3, max_epochs=40, batch_size=50,
        iterator_train=BatchLoader, iterator_train__shuffle=True, iterator_valid__batch_size=500,
        classes=list(range(n_classes)), train_split=None, verbose=0,
    )  # fmt: skip
    return net.set_params(**params)
