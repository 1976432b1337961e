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
from modal_ntk.errors import InvalidInputError

_REMEDY = "Write one with numpy.savez_compressed."


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
    place = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [key for key in keys if key not in members]:
                got = f"{sorted(members)}, without {', '.join(missing)}"
                raise checks.expected(f"the keys {', '.join(keys)} in {path}", got, "Rename its arrays.")
            for key in keys:
                place = f"{key} of {path}"
                with archive.open(members[key]) as file:
                    _check_size(file, members[key].file_size)
                with archive.open(members[key]) as file:
                    # Pickled objects stay closed: reading a file must never run what it holds.
                    found[key] = npy.read_array(file, allow_pickle=False)
    except InvalidInputError:
        raise
    except Exception as error:
        # Whatever is damaged, the decoder in charge has an error of its own for it.
        got = checks.one_line(f"{error}" or type(error).__name__)
        raise checks.expected(f"{place} to be an .npz of plain arrays", got, _REMEDY) from error
    return found


def _check_size(file: IO[bytes], size: int) -> None:
    # The header says how much is to be allocated: it is compared with what there is before anything is.
    version = npy.read_magic(file)
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (min(shape, default=0) < 0 or needed != size - file.tell()):
        raise ValueError(f"a header of shape {shape} and type {dtype}, which takes {needed} bytes of {size}")
