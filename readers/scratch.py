"""Arrays in files without a name, for what may be too large for memory."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import LimnerError


class ScratchError(LimnerError):
    """There is no room for a scratch array."""


def scratch_array(
    shape: tuple[int, ...], folder: Path | None = None, *, dtype: npt.DTypeLike = np.uint8, fill: int = 0
) -> npt.NDArray[Any]:
    """Numbers of this shape in a file of `folder`, or of the system's temporary folder, which is gone with the array.

    They take memory only as far as there is some to spare. The disk is reserved at once where the system can: to write
    into the map of a file that a full disk has no room for ends a process without an error. Raises `ScratchError`.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    where = Path(tempfile.gettempdir()) if folder is None else folder
    try:
        with tempfile.TemporaryFile(prefix=".limner-", dir=where) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            array = np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        rule, value = f"must have room for {size / 1e9:.2g} GB", error.strerror or str(error)
        remedy = "Free disk space there" + ("" if folder else ", or name another folder in TMPDIR")
        raise ScratchError(f"the folder {where}", rule, value=value, remedy=remedy) from error
    for part in array if fill else ():  # row by row
        part[...] = fill
    return array
