"""Data sets by name: what scikit-learn ships, what MODAL_NTK_DATA holds, and any .npz."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split

from modal_ntk import checks
from modal_ntk.bench.experiment.archives import read_arrays
from modal_ntk.errors import InvalidInputError

DATA_VARIABLE = "MODAL_NTK_DATA"
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SHIPPED = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}


@dataclass(frozen=True)
class Dataset:
    """A data set split into pool and test set.

    Parameters
    ----------
    name : str
        Its name.
    x_train, x_test : numpy.ndarray (n, d) or (n, channels, height, width), float32
        Samples.
    y_train, y_test : numpy.ndarray (n,), int64
        Classes, 0 to C-1.
    classes : numpy.ndarray (C,)
        Their labels in the file.
    x_validation, y_validation : numpy.ndarray or None, default=None
        Samples and classes kept out of the pool, where a protocol asks for some.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: np.ndarray
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of all arrays, by which a store knows its data again."""
        digest = hashlib.sha256()
        arrays = (self.x_train, self.y_train, self.x_test, self.y_test, self.x_validation, self.y_validation)
        for array in (array for array in arrays if array is not None):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def load_dataset(name: str | os.PathLike[str]) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str or path
        "digits", "breast_cancer" or "wine", which scikit-learn ships; the name of an ``.npz`` file in the folder that
        the environment variable MODAL_NTK_DATA names; or the path of one. Such a file holds x_train, y_train, x_test
        and y_test; bytes are read as pixels and scaled to [0, 1], images of three or four dimensions get their channels
        first.

    Returns
    -------
    Dataset
        In float32; features of numbers keep their scale, but for the two tables, whose columns are standardised.

    Raises
    ------
    UnknownNameError
        If there is none of that name; says which there are.
    InvalidInputError
        If the file lacks keys, is no archive of plain arrays, or its arrays do not belong together.

    Examples
    --------
    >>> load_dataset("digits").x_train.shape
    (1257, 64)
    """
    if name in _SHIPPED:
        return _shipped(str(name))
    path = Path(name)
    if path.suffix != ".npz":
        return _from_npz(_named(str(name)))
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise checks.expected("the path of an .npz file", f"{name}, which {what}", "Check the path.")
    return _from_npz(path)


def _shipped(name: str) -> Dataset:
    X, y = _SHIPPED[name](return_X_y=True)
    parts = train_test_split(X, y.astype(np.int64), test_size=0.3, random_state=0, stratify=y)
    known = parts[0]
    # Pixels of digits go from 0 to 16; the columns of the tables have units of their own.
    shift, scale = (0.0, 16.0) if name == "digits" else (known.mean(axis=0), known.std(axis=0))
    x_train, x_test = (((part - shift) / scale).astype(np.float32) for part in parts[:2])
    return Dataset(name, x_train, parts[2], x_test, parts[3], np.unique(y))


def _named(name: str) -> Path:
    folder = os.environ.get(DATA_VARIABLE)
    files = {} if not folder else {path.stem: path for path in sorted(Path(folder).glob("*.npz"))}
    if name not in files:
        remedy = f"Or pass the path of an .npz file; {DATA_VARIABLE} "
        remedy += f"is {folder!r}." if folder else "may name a folder of such files and is not set."
        raise checks.unknown_name("data set", name, [*_SHIPPED, *files], remedy)
    return files[name]


def _from_npz(path: Path) -> Dataset:
    arrays = read_arrays(path, _KEYS)
    for part in ("train", "test"):
        _check_samples(path, f"x_{part}", arrays[f"x_{part}"])
        _check_classes(path, f"y_{part}", arrays[f"y_{part}"], len(arrays[f"x_{part}"]))
    checks.check_same_features(arrays["x_test"], arrays["x_train"])
    known, unseen = (arrays[key].ravel() for key in ("y_train", "y_test"))
    if (known.dtype.kind in "US") != (unseen.dtype.kind in "US"):
        got = f"{known.dtype} and {unseen.dtype}"
        raise checks.expected(f"y_train and y_test of one kind in {path}", got, "Write both as text or as numbers.")
    classes, y_train = np.unique(known, return_inverse=True)
    if len(classes) < 2:
        raise checks.expected(f"at least two classes in {path}", f"only {classes.tolist()}", "Check y_train.")
    if unknown := sorted(set(np.unique(unseen).tolist()) - set(classes.tolist())):
        raise checks.expected("classes of y_test that are in y_train", f"also {unknown}", "Check the split.")
    y_test = np.searchsorted(classes, unseen)
    x_train, x_test = (_as_inputs(path, key, arrays[key]) for key in ("x_train", "x_test"))
    return Dataset(path.stem, x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), classes)


def _check_samples(path: Path, key: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3, 4) or x.size == 0:
        remedy = "Write rows of features (n, d), or images (n, height, width) or (n, height, width, channels)."
        raise checks.expected(f"real numbers in {key} of {path}", f"{x.dtype} of shape {x.shape}", remedy)


def _check_classes(path: Path, key: str, y: np.ndarray, n: int) -> None:
    if y.dtype.kind not in "fiubUS" or y.ndim == 0:
        remedy = "Write a class for each sample, as a number or as text."
        raise checks.expected(f"classes in {key} of {path}", f"{y.dtype} of shape {y.shape}", remedy)
    try:
        checks.check_labels(y, n)
    except InvalidInputError as error:
        raise InvalidInputError(f"{key} of {path}: {error}") from error


def _as_inputs(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    checks.check_samples(f"{key} of {path}", x)
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    if not np.isfinite(scaled).all():
        got = f"{np.abs(x).max():.3g}"
        raise checks.expected(f"values in {key} of {path} that float32 can hold", got, "Scale the features.")
    if x.ndim < 3:
        return scaled
    if x.dtype == np.uint8:
        scaled /= 255
    return scaled[:, None] if x.ndim == 3 else np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
