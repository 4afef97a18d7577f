"""The whole picture, reduced: what a stretch is fitted to, where the ground is empty, what a person sees first."""

from typing import Final, NamedTuple

import numpy as np

from .errors import ReadError
from .geometry import Box
from .image import Image, Mask, Pixels

_BYTES: Final = 64 << 20  # native pixels behind one piece
_SIDE: Final = 32  # overview pixels: a piece that cannot be read is halved until it is this small


class ReducedPicture(NamedTuple):
    """A whole picture reduced to (H, W): native `pixels` (H, W, C), where they are `valid`, and where `readable`.

    What is not readable is not valid either. `scale` is level-0 pixels a reduced pixel along (x, y).
    """

    pixels: Pixels
    valid: Mask
    readable: Mask
    scale: tuple[float, float]


def read_overview(image: Image, *, limit: int = 2048) -> ReducedPicture:
    """The whole picture at no more than `limit` pixels on its long side, never enlarged.

    Read in pieces of whole reduced pixels with at most 64 MiB of native pixels behind each, so that memory is bounded
    whatever the file. A piece that raises `ReadError` is halved until it is 32 reduced pixels wide and high, so that a
    damaged file loses little; nothing is raised even where all is lost.
    """
    width, height = image.info.size
    reduction = max(1.0, max(width, height) / limit)
    columns, rows = max(1, round(width / reduction)), max(1, round(height / reduction))
    scale = (width / columns, height / rows)
    dtype = np.result_type(*(np.dtype(channel.dtype) for channel in image.channels))
    result = ReducedPicture(
        np.zeros((rows, columns, len(image.channels)), dtype=dtype),
        np.zeros((rows, columns), dtype=np.bool_),
        np.zeros((rows, columns), dtype=np.bool_),
        scale,
    )
    pixel_bytes = scale[0] * scale[1] * len(image.channels) * dtype.itemsize
    wide = max(1, min(columns, int(_BYTES / pixel_bytes)))
    high = max(1, min(rows, int(_BYTES / (pixel_bytes * wide))))
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            _fill(result, image, (left, top, min(left + wide, columns), min(top + high, rows)))
    return result


def _fill(result: ReducedPicture, image: Image, piece: tuple[int, int, int, int]) -> None:
    """Read a piece (x0, y0, x1, y1) in reduced pixels into the result, or halve it along its longer side."""
    x0, y0, x1, y1 = piece
    sx, sy = result.scale
    try:
        pixels, valid = image.read(Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy), (x1 - x0, y1 - y0))
    except ReadError:
        if max(x1 - x0, y1 - y0) <= _SIDE:
            return
        if y1 - y0 >= x1 - x0:
            middle = (y0 + y1) // 2
            halves = ((x0, y0, x1, middle), (x0, middle, x1, y1))
        else:
            middle = (x0 + x1) // 2
            halves = ((x0, y0, middle, y1), (middle, y0, x1, y1))
        for half in halves:
            _fill(result, image, half)
        return
    here = np.s_[y0:y1, x0:x1]
    result.pixels[here], result.valid[here], result.readable[here] = pixels, valid, True
