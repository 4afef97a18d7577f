"""Arrays in files without a name, for what may be too large for memory."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt


def scratch_array(shape: tuple[int, ...], folder: Path | None = None, *, fill: int = 0) -> npt.NDArray[np.uint8]:
    """Bytes of this shape in a file of `folder`, or of the system's temporary folder, which is gone with the array.

    The disk is reserved at once where the system can: to write into the map of a file that a full disk has no room for
    ends a process without an error. Raises `OSError`.
    """
    size = math.prod(shape)
    with tempfile.TemporaryFile(prefix=".limner-", dir=folder) as file:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        array = np.memmap(file, np.uint8, "r+", shape=shape)
    for part in array if fill else ():  # row by row
        part[...] = fill
    return array
