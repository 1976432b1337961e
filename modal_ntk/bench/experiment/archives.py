"""Arrays from .npz files that may come from anywhere: plain ones only, no larger than the file says, or an error."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from modal_ntk import checks
from modal_ntk.checks.files import reading


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an archive; nothing that it holds is run, and no more is allocated than it holds.

    Parameters
    ----------
    path : Path
        The archive.
    keys : sequence of str
        Names of the arrays.

    Returns
    -------
    dict of str to numpy.ndarray
        The arrays, by name.

    Raises
    ------
    InvalidInputError
        If the file is damaged, lacks one of them, or holds anything but plain arrays under their names; says where.
    """
    found = {}
    what, remedy = f"{path} to be an .npz of plain arrays", "Write one with numpy.savez_compressed."
    with reading(what, remedy), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if missing := [key for key in keys if key not in members]:
            got = f"{sorted(members)}, without {', '.join(missing)}"
            raise checks.expected(f"the keys {', '.join(keys)} in {path}", got, "Rename its arrays.")
        for key in keys:
            with reading(f"{key} of {what}", remedy):
                with archive.open(members[key]) as file:
                    _check_size(file, members[key].file_size)
                with archive.open(members[key]) as file:
                    # Pickled objects stay closed: reading a file must never run what it holds.
                    found[key] = npy.read_array(file, allow_pickle=False)
    return found


def _check_size(file: IO[bytes], size: int) -> None:
    # The header says how much is to be allocated: it is compared with what there is before anything is.
    version = npy.read_magic(file)
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (min(shape, default=0) < 0 or needed != size - file.tell()):
        raise ValueError(f"a header of shape {shape} and type {dtype}, which takes {needed} bytes of {size}")
