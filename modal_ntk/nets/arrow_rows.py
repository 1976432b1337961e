"""Numbers in Parquet, Feather and Arrow files, read by slices as an array is, one row group at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from modal_ntk import checks


class ArrowRows:
    """Samples in Parquet, Feather or Arrow files, for a `CachedPool`.

    Parameters
    ----------
    source : str, path, list of these, or pyarrow.dataset.Dataset
        A file, a folder of files in the order of their names, or a data set that pyarrow has opened, such as one of
        other formats or on another file system.
    columns : sequence of str, optional
        Which make a sample, side by side in this order; all by default. Each holds numbers, or lists of numbers of
        one length.

    Raises
    ------
    InvalidInputError
        If a column is not there, holds no numbers, or, as it is read, misses one or has lists of several lengths.
    MissingExtraError
        Without pyarrow (extra ``arrow``).

    Notes
    -----
    The row group read last stays in memory, so rows in the order of the files are decoded once; rows drawn here and
    there are asked for together, by an array of numbers. A Feather or Arrow file counts as one group: let a large pool
    be several files. Row groups of some 50,000 samples serve well.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow
    >>> from pyarrow import parquet
    >>> table = pyarrow.table({"height": [1.0, 2.0, 3.0], "width": [4, 5, 6], "name": ["a", "b", "c"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parquet.write_table(table, f"{folder}/pool.parquet", row_group_size=2)
    ...     rows = ArrowRows(folder, ["height", "width"])
    ...     print(len(rows), rows[1:].tolist())
    3 [[2.0, 5.0], [3.0, 6.0]]
    """

    def __init__(self, source: Any, columns: Sequence[str] | None = None) -> None:
        checks.check_installed("ArrowRows", ["pyarrow"], extra="arrow")
        from pyarrow import dataset

        if isinstance(source, (str, os.PathLike)):
            source = _opened(os.fspath(source))
        elif isinstance(source, (list, tuple)):
            source = _opened([os.fspath(path) for path in source])
        elif not isinstance(source, dataset.Dataset):
            remedy = "Pass a file, a folder, a list of files or a pyarrow.dataset.Dataset."
            raise checks.expected("source to name files", type(source).__name__, remedy)
        if isinstance(columns, str) or (columns is not None and not len(columns)):
            remedy = 'Put it in a list: ArrowRows(source, columns=["height"]).'
            raise checks.expected("columns to be names, one at least", f"{columns!r}", remedy)
        self.columns = list(source.schema.names if columns is None else columns)
        _check_columns(source.schema, self.columns)
        found = [part for file in source.get_fragments() for part in _groups_of(file) if part[1]]
        self._groups, self._ends = [group for group, _ in found], np.cumsum([0, *(n for _, n in found)])
        if not len(self):
            raise checks.expected("source to hold samples", "none", "Name files that do.")
        self._held: tuple[int, Any] = (-1, None)
        self._width: int | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._ends[-1])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return samples by a number, a slice or an array of numbers."""
        if isinstance(rows, slice):
            return self._taken(np.arange(*rows.indices(len(self))))
        if np.ndim(rows) == 0:
            return self._taken(np.array([range(len(self))[rows]]))[0]  # an IndexError past the end ends an iteration
        return self._taken(checks.check_rows("rows", rows, len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all samples in memory."""
        return np.asarray(self[:], dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the group in memory behind, for workers."""
        return {**vars(self), "_held": (-1, None)}

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        of = np.searchsorted(self._ends, rows, side="right") - 1
        # Without rows the first group tells their length and type.
        numbers = np.unique(of).tolist() or [0]
        parts = [self._group(number)[rows[of == number] - self._ends[number]] for number in numbers]
        found = np.empty((len(rows), *parts[0].shape[1:]), np.result_type(*parts))
        for number, part in zip(numbers, parts, strict=True):
            found[of == number] = part
        return found

    def _group(self, number: int) -> np.ndarray:
        if self._held[0] != number:
            table = self._groups[number].to_table(columns=self.columns)
            group = np.concatenate([_numbers(name, table.column(name)) for name in self.columns], axis=1)
            if self._width not in (None, group.shape[1]):
                remedy = "Pad or cut lists before."
                raise checks.expected(f"{self._width} numbers in every sample", f"{group.shape[1]}", remedy)
            self._held, self._width = (number, group), group.shape[1]
        return self._held[1]


def _groups_of(file: Any) -> list[tuple[Any, int]]:
    if not hasattr(file, "split_by_row_group"):
        return [(file, file.count_rows())]
    # A group's own count_rows counts the file.
    return [(group, group.row_groups[0].num_rows) for group in file.split_by_row_group()]


def _opened(paths: Any) -> Any:
    from pyarrow import ArrowInvalid, dataset

    folder = isinstance(paths, str) and os.path.isdir(paths)
    names = os.listdir(paths) if folder else [paths] if isinstance(paths, str) else paths
    kind = "ipc" if any(name.endswith((".feather", ".arrow", ".ipc")) for name in names) else "parquet"
    try:
        return dataset.dataset(paths, format=kind)
    except (OSError, ArrowInvalid) as error:
        remedy = "Name a Parquet, Feather or Arrow file, or pass what pyarrow.dataset.dataset opened."
        raise checks.expected("files that pyarrow reads", checks.one_line(str(error)), remedy) from error


def _check_columns(schema: Any, names: list[str]) -> None:
    from pyarrow import types

    for name in names:
        if name not in schema.names:
            raise checks.unknown_name("column", name, schema.names)
        kind = schema.field(name).type
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = kind.value_type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            remedy = "Name those that do: ArrowRows(source, columns=[...])."
            raise checks.expected("columns that hold numbers, or lists of numbers", f"{name!r} of {kind}", remedy)


def _numbers(name: str, column: Any) -> np.ndarray:
    # (n, 1) of numbers, (n, length) of lists.
    from pyarrow import compute

    n, values, missing = len(column), column.combine_chunks(), column.null_count
    if hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        lengths = set(compute.unique(compute.list_value_length(values)).to_pylist()) - {None}
        if len(lengths) > 1:
            got = f"{min(lengths)} to {max(lengths)} numbers"
            raise checks.expected(f"lists of one length in column {name!r}", got, "Pad or cut them before.")
        values = values.flatten()
        missing += values.null_count
    if missing:
        remedy = "Fill them, or drop these rows, before."
        raise checks.expected(f"a number in every row of column {name!r}", f"{missing} missing", remedy)
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(n, -1)
