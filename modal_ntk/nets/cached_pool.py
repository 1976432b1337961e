"""A pool that stays on the disk, and what a net says of it, computed once in blocks and kept beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from modal_ntk import checks, progress
from modal_ntk.nets.rows import row_digests, take_rows
from modal_ntk.writing import replacing

BLOCK = 2**16
"""Samples that are read and sent through the net at a time."""


class CachedPool(Dataset):  # type: ignore[type-arg]
    """A pool for any strategy, whose embeddings and probabilities are computed once for each state of the net.

    Parameters
    ----------
    samples : memory map, array, Zarr array, ArrowRows, or torch Dataset (n, ...)
        The samples; read in blocks, by slices ``samples[i:j]`` or, of a Dataset, by their number.
    folder : str or path
        Of the cache, for this pool alone; made if it is not there. Two files for each state of the net that was asked:
        delete what is of no use any more.

    Notes
    -----
    Pass it as ``X_pool``. What a strategy asks of the net, embeddings (of any layer by name) or class probabilities, is
    computed block by block for the whole pool, written to a file under a fingerprint of the estimator and of some
    samples, and handed out as a memory map, also to parts of the pool (`CandidateSubset`, `GreeDi`, shards). After the
    next ``teach`` the fingerprint is another. What else a strategy asks for, such as gradients, is computed from the
    samples as of any Dataset.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> from modal_ntk import Margin
    >>> X = np.linspace(-3, 3, 8)[:, None]
    >>> model = LogisticRegression().fit([[-2.0], [2.0]], ["low", "high"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pool = CachedPool(X, folder)
    ...     picks = sorted(Margin(random_state=0).select(model, pool, 2).indices.tolist())
    ...     files = len(list(Path(folder).iterdir()))
    >>> picks, files
    ([3, 4], 1)
    """

    def __init__(self, samples: Any, folder: str | os.PathLike[str]) -> None:
        sized = hasattr(samples, "__getitem__") and (hasattr(samples, "__len__") or hasattr(samples, "shape"))
        if not sized or not checks.n_rows(samples):
            remedy = "Pass an array, a memory map, a Zarr array, ArrowRows or a torch Dataset."
            raise checks.expected("samples with a length and rows to be taken", type(samples).__name__, remedy)
        self.samples, self.folder = samples, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known: tuple[Any, str] = (None, "")

    def __len__(self) -> int:
        """Return the number of samples."""
        return checks.n_rows(self.samples)

    def __getitem__(self, i: Any) -> Any:
        """Return a sample, as a Dataset's item."""
        return self.samples[i]

    def _block(self, start: int, stop: int) -> Any:
        if checks.is_dataset(self.samples):
            return take_rows(self.samples, np.arange(start, stop))
        return np.asarray(self.samples[start:stop])

    def read(self, what: str, view: Any, compute: Callable[[Any], Tensor]) -> Tensor:
        """Return what a net says of every sample, from the file where it is there.

        Parameters
        ----------
        what : str
            Its name.
        view : NetView
            The net.
        compute : callable
            From some samples to one row for each.

        Returns
        -------
        Tensor (n, ...)
            A map of the file, private: changes stay in memory.
        """
        n = len(self)
        key = joblib.hash([self._fingerprint(view), what, n, row_digests(self._block(0, 1))])
        path = self.folder / f"{what if what.isidentifier() else 'layer'}-{key}.npy"
        if not path.exists():
            with replacing(path) as written:
                self._write(written, compute)
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    def _fingerprint(self, view: Any) -> str:
        # Once a query, not once a shard: the view is the query's, and weights that change count it.
        tensors = view.module.state_dict(keep_vars=True).values() if view.net is not None else ()
        settings = repr(getattr(view.net, "predict_nonlinearity", None))
        state = (id(view), settings, [(id(t), t._version) for t in tensors if isinstance(t, Tensor)])
        if view.net is None or self._known[0] != state:
            self._known = (state, fingerprint(view))
        return self._known[1]

    def _write(self, path: Path, compute: Callable[[Any], Tensor]) -> None:
        n = len(self)
        with progress.stage("cache", n, "row"):
            for start in range(0, n, BLOCK):
                stop = min(start + BLOCK, n)
                values = compute(self._block(start, stop)).numpy()
                if start == 0:
                    found = np.lib.format.open_memmap(path, "w+", values.dtype, (n, *values.shape[1:]))
                found[start:stop] = values
        found.flush()


def fingerprint(view: Any) -> str:
    """Return what changes when the answers of an estimator may.

    Parameters
    ----------
    view : NetView
        The estimator.

    Returns
    -------
    str
        Of a net's weights, buffers, layers and settings, or of a classifier's attributes.
    """
    if view.net is None:
        return str(joblib.hash(view.estimator))
    net = view.net
    state = {
        name: tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for name, tensor in view.module.state_dict().items()
        if isinstance(tensor, Tensor)
    }
    settings = [repr(view.module), repr(net.predict_nonlinearity), type(net.criterion_).__name__]
    return str(joblib.hash([settings, state, [joblib.hash(step) for _, step in view._earlier]]))


def held(X: Any, what: str, view: Any, compute: Callable[[Any], Tensor]) -> Tensor | None:
    """Return what a `CachedPool`, or a part of one, holds; None of other samples.

    Parameters
    ----------
    X : samples (n, ...)
        Whatever was passed.
    what, view, compute
        As for `CachedPool.read`.

    Returns
    -------
    Tensor (n, ...) or None
        Rows of the cache.
    """
    rows = None
    while isinstance(X, Subset):
        indices = np.asarray(X.indices)
        rows, X = indices if rows is None else indices[rows], X.dataset
    if not isinstance(X, CachedPool):
        return None
    whole = X.read(what, view, compute)
    return whole if rows is None else whole[torch.from_numpy(rows)]
