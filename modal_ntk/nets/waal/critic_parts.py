"""The parts of a net that trains against a critic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modal_ntk import checks


class TwoLayerHead(nn.Sequential):
    """The paper's classifier head: Linear, ReLU, Dropout, Linear.

    Parameters
    ----------
    n_features : int
        Width of the features.
    n_outputs : int
        Number of logits.
    n_hidden : int, default=50
        Hidden width (the paper: 50; 100 for STL-10).
    dropout : float, default=0.5
        Probability with which a hidden unit is dropped in training; the paper gives none.

    Examples
    --------
    >>> TwoLayerHead(320, 10)(torch.zeros(2, 320)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_features: int, n_outputs: int, n_hidden: int = 50, dropout: float = 0.5) -> None:
        super().__init__(
            nn.Linear(n_features, n_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(n_hidden, n_outputs)
        )


class TwoLayerCritic(nn.Module):
    """The paper's critic: a head with one output, between 0 and 1.

    Parameters
    ----------
    n_features : int
        Width of the features.
    n_hidden : int, default=50
        Hidden width.
    dropout : float, default=0.5
        As for the head.

    Examples
    --------
    >>> TwoLayerCritic(320)(torch.zeros(2, 320)).shape
    torch.Size([2])
    """

    def __init__(self, n_features: int, n_hidden: int = 50, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = TwoLayerHead(n_features, 1, n_hidden, dropout)

    def forward(self, z: Tensor) -> Tensor:
        """Return one value for each row: large where it looks unlabelled."""
        return torch.sigmoid(self.layers(z)).squeeze(1)


class FeaturesAndHead(nn.Module):
    """A feature extractor and the head on its flattened output: an ordinary classifier.

    Parameters
    ----------
    extractor : torch.nn.Module
        From inputs, by position or name, to features (n, ...).
    head : torch.nn.Module
        From flat features to logits.

    Examples
    --------
    >>> FeaturesAndHead(nn.Identity(), TwoLayerHead(6, 3))(torch.zeros(2, 2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return logits."""
        return self.head(flat(self.extractor(*inputs, **named)))


def flat(z: Any) -> Any:
    """Return features with one row for each sample.

    Parameters
    ----------
    z : Tensor (n, ...)
        What an extractor gives.

    Returns
    -------
    Tensor (n, d)
        The same numbers.

    Raises
    ------
    InvalidInputError
        If it is no tensor.

    Examples
    --------
    >>> flat(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    if isinstance(z, (tuple, list, dict)):
        remedy = "Return the features alone."
        raise checks.expected("an extractor that returns one tensor of features", f"a {type(z).__name__}", remedy)
    return z.reshape(len(z), -1)
