"""The whole picture, reduced: what a stretch is fitted to, where the ground is empty, what a person sees first."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .errors import ReadError
from .geometry import Box
from .image import Image, ImageInfo, Mask, Pixels

_BYTES: Final = 64 << 20  # native pixels behind one piece
MAX_MONTAGE_PLANES: Final = 25
"""How many planes of a stack a montage shows at most."""
_SIDE: Final = 32  # overview pixels: a piece that cannot be read is halved until it is this small


@dataclass(frozen=True, slots=True)
class Montage:
    """Planes of an image side by side, `columns` a row: how a stack is shown at a glance, and a picture as itself.

    `size` is a plane's own, (width, height) in level-0 pixels.
    """

    size: tuple[int, int]
    planes: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, info: ImageInfo, first: Iterable[int] = ()) -> Self:
        """At most `MAX_MONTAGE_PLANES` planes: some of those that should come `first`, then others, evenly spread."""
        count = len(info.planes)
        wanted = sorted(set(first))
        shown = {wanted[at] for at in _spread(len(wanted), min(MAX_MONTAGE_PLANES, len(wanted)))}
        others = [plane for plane in range(count) if plane not in shown]
        shown |= {others[at] for at in _spread(len(others), min(MAX_MONTAGE_PLANES, count) - len(shown))}
        return cls(info.size, tuple(sorted(shown)))

    @property
    def columns(self) -> int:
        """Planes a row."""
        return math.ceil(math.sqrt(len(self.planes)))

    @property
    def rows(self) -> int:
        """Rows of planes."""
        return math.ceil(len(self.planes) / self.columns)

    def place(self, plane: int) -> tuple[int, int] | None:
        """(column, row) of a plane, None where it is not shown."""
        if plane not in self.planes:
            return None
        row, column = divmod(self.planes.index(plane), self.columns)
        return column, row


class ReducedImage(NamedTuple):
    """A whole picture reduced to (H, W): native `pixels` (H, W, C), where they are `valid`, and where `readable`.

    What is not readable is not valid either. `scale` is level-0 pixels a reduced pixel along (x, y).
    """

    pixels: Pixels
    valid: Mask
    readable: Mask
    scale: tuple[float, float]


def read_overview(
    image: Image, *, limit: int = 2048, montage: Montage | None = None, aspect: tuple[float, float] = (1.0, 1.0)
) -> ReducedImage:
    """The whole picture at no more than `limit` pixels on its long side, never enlarged; of a stack a montage.

    `aspect` is in proportion to the level-0 pixels (x, y) behind a reduced one, which makes pixels that are not square
    square. Read in pieces of whole reduced pixels with at most 64 MiB of native pixels behind each, so that memory is
    bounded whatever the file. A piece that raises `ReadError` is halved until it is 32 reduced pixels wide and high, so
    that a damaged file loses little; nothing is raised even where all is lost.
    """
    montage = montage or Montage.of(image.info)
    width, height = image.info.size
    across, down = width / aspect[0], height / aspect[1]
    reduction = max(1.0 / min(aspect), max(montage.columns * across, montage.rows * down) / limit)
    columns, rows = max(1, round(across / reduction)), max(1, round(down / reduction))
    scale = (width / columns, height / rows)
    dtype = np.result_type(*(np.dtype(channel.dtype) for channel in image.channels))
    shape = (rows * montage.rows, columns * montage.columns)
    result = ReducedImage(
        np.zeros((*shape, len(image.channels)), dtype=dtype), np.zeros(shape, np.bool_), np.ones(shape, np.bool_), scale
    )
    pixel_bytes = scale[0] * scale[1] * len(image.channels) * dtype.itemsize
    wide = max(1, min(columns, int(_BYTES / pixel_bytes)))
    high = max(1, min(rows, int(_BYTES / (pixel_bytes * wide))))
    for plane in montage.planes:
        column, row = montage.place(plane) or (0, 0)
        part = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        of_plane = ReducedImage(result.pixels[part], result.valid[part], result.readable[part], scale)
        of_plane.readable[...] = False
        for top in range(0, rows, high):
            for left in range(0, columns, wide):
                piece = (left, top, min(left + wide, columns), min(top + high, rows))
                _fill(of_plane, image, piece, plane)
    return result


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` places, evenly spread."""
    return [(2 * at + 1) * count // (2 * wanted) for at in range(wanted)]


def _fill(result: ReducedImage, image: Image, piece: tuple[int, int, int, int], plane: int) -> None:
    """Read a piece (x0, y0, x1, y1) in reduced pixels into the result, or halve it along its longer side."""
    x0, y0, x1, y1 = piece
    sx, sy = result.scale
    try:
        pixels, valid = image.read(Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy), (x1 - x0, y1 - y0), plane)
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
            _fill(result, image, half, plane)
        return
    here = np.s_[y0:y1, x0:x1]
    result.pixels[here], result.valid[here], result.readable[here] = pixels, valid, True


Values = npt.NDArray[np.float64]


def box_mean(values: npt.NDArray[np.floating | np.bool_], radius: tuple[int, int]) -> Values:
    """The mean of `values` (H, W) over the box of ±radius (x, y) pixels round each; only what lies inside counts."""
    result = values.astype(np.float64)
    for axis, reach in ((1, radius[0]), (0, radius[1])):
        length = result.shape[axis]
        total = np.concatenate([np.zeros_like(np.take(result, [0], axis)), np.cumsum(result, axis)], axis)
        low = np.maximum(np.arange(length) - reach, 0)
        high = np.minimum(np.arange(length) + reach + 1, length)
        shape = [1, 1]
        shape[axis] = length
        result = (np.take(total, high, axis) - np.take(total, low, axis)) / (high - low).reshape(shape)
    return result


def dilate(mask: Mask, radius: tuple[int, int]) -> Mask:
    """The mask (H, W) with all pixels that are within ±radius (x, y) of one of its own on both axes."""
    size = (2 * radius[1] + 1, 2 * radius[0] + 1)
    return np.asarray(ndimage.maximum_filter(mask, size, mode="constant", cval=0), dtype=bool)


def keep_components(mask: Mask, counted: Mask, least: int = 1) -> Mask:
    """The 4-connected patches of a mask that hold at least `least` of the `counted` pixels."""
    patches, count = _label(mask)
    held = np.bincount(patches[counted], minlength=count + 1)
    return mask & (held >= least)[patches]


def fill_holes(mask: Mask, limit: int) -> Mask:
    """The mask with its holes of fewer than `limit` pixels filled; what reaches the picture's rim is no hole."""
    patches, count = _label(~mask)
    small = np.bincount(patches.ravel(), minlength=count + 1) < limit
    for rim in (patches[0], patches[-1], patches[:, 0], patches[:, -1]):
        small[rim] = False
    return mask | small[patches]


def _label(mask: Mask) -> tuple[npt.NDArray[np.intp], int]:
    """The number (H, W) of the 4-connected patch that a pixel belongs to, from 1, and how many there are."""
    found: Any = ndimage.label(mask)
    return found
