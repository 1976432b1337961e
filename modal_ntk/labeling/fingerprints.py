"""Knowing a pool again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from modal_ntk import checks, nets

_BLOCK = 4096  # rows looked at together: a memory-mapped pool is never held whole


def fingerprint(X_pool: Any, names: Sequence[str] | None = None) -> str:
    """Return a digest of a pool by its values, which is the same on every machine.

    Parameters
    ----------
    X_pool : array, tensor, frame, sparse matrix, list, dict of these, or torch Dataset
        The samples. Their order counts; the type of float that holds them does not.
    names : sequence of str, optional
        Names of the samples.

    Returns
    -------
    str
        32 hexadecimal digits.

    Examples
    --------
    >>> pool = np.arange(6.0).reshape(3, 2)
    >>> fingerprint(pool) == fingerprint(pool.astype(np.float32)), fingerprint(pool) == fingerprint(pool[::-1])
    (True, False)
    """
    n = checks.n_rows(X_pool)
    digest = hashlib.sha256(str(n).encode())
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        for row in nets.row_digests(nets.take_rows(X_pool, rows)):
            digest.update(row)
    for name in names or ():
        digest.update(hashlib.sha256(name.encode()).digest())
    return digest.hexdigest()[:32]
