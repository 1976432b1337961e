"""Batches that hold as many labelled as unlabelled samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler


class Pairs(Dataset[Any]):
    """Labelled and unlabelled samples, read in pairs.

    Parameters
    ----------
    labeled : torch Dataset of (x, y)
        The training set.
    unlabeled : torch Dataset of (x, anything)
        The pool.

    Examples
    --------
    >>> pairs = Pairs([(1.0, 0), (2.0, 1)], [(7.0, 0), (8.0, 0), (9.0, 0)])
    >>> len(pairs), pairs[1, 2]
    (3, ((2.0, 9.0), 1))
    """

    def __init__(self, labeled: Any, unlabeled: Any) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def __len__(self) -> int:
        """Return the number of pairs in an epoch: the larger set is seen once, whole."""
        return max(len(self.labeled), len(self.unlabeled))

    def __getitem__(self, pair: tuple[int, int]) -> tuple[tuple[Any, Any], Any]:
        """Return ((labelled x, unlabelled x), y)."""
        x, y = self.labeled[pair[0]]
        return (x, self.unlabeled[pair[1]][0]), y


class PairSampler(Sampler[tuple[int, int]]):
    """Draw the pairs of one epoch: unlabelled samples once each, labelled ones with replacement.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        Sizes of the sets.
    batch_size : int
        Where the last batch would hold a single pair, that pair is left out: BatchNorm cannot train on it.
    fixed : bool, default=False
        Pair each unlabelled sample always with the same labelled one, by its position modulo the number of
        labelled ones, as the authors' code does.

    Notes
    -----
    Where there are fewer unlabelled than labelled samples, an epoch has as many pairs as there are labels,
    and the unlabelled ones come round again. Draws come from torch's global generator, as in any loader.

    Examples
    --------
    >>> sorted(PairSampler(2, 4, 4, fixed=True)), len(PairSampler(2, 5, 4))
    ([(0, 0), (0, 2), (1, 1), (1, 3)], 4)
    """

    def __init__(self, n_labeled: int, n_unlabeled: int, batch_size: int, *, fixed: bool = False) -> None:
        self.n_labeled = n_labeled
        self.n_unlabeled = n_unlabeled
        self.batch_size = batch_size
        self.fixed = fixed

    def __len__(self) -> int:
        """Return the number of pairs."""
        n = max(self.n_labeled, self.n_unlabeled)
        return n - 1 if n % self.batch_size == 1 and 1 < self.batch_size < n else n

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (labelled position, unlabelled position)."""
        n = max(self.n_labeled, self.n_unlabeled)
        order = torch.randperm(n)
        labeled = order % self.n_labeled if self.fixed else torch.randint(self.n_labeled, (n,))
        pairs = zip(labeled.tolist(), (order % self.n_unlabeled).tolist(), strict=True)
        return islice(pairs, len(self))
