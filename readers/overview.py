"""The overview of an image, which is the whole image reduced, and operations on masks of its size."""
# scipy has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .geometry import Box
from .image import Image, ImageInfo, Mask, Pixels

Values = npt.NDArray[np.float64]

MAX_MONTAGE_PLANES: Final = 25
OVERVIEW_SIDE: Final = 2048
"""Pixels on the long side of an overview, unless something else is asked for."""
_BYTES: Final = 64 << 20  # native pixels read at a time
_SMALLEST: Final = 32  # overview pixels: a block that cannot be read is halved until it has this side


@dataclass(frozen=True, slots=True)
class Montage:
    """Planes of a stack side by side, `columns` per row; a single plane for any other image."""

    size: tuple[int, int]
    """(width, height) of a plane in level-0 pixels."""
    planes: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, info: ImageInfo, first: Iterable[int] = ()) -> Self:
        """Choose at most `MAX_MONTAGE_PLANES` planes: those in `first`, then others, both evenly spread."""
        count = len(info.planes)
        preferred = sorted(set(first))
        chosen = {preferred[at] for at in _spread(len(preferred), min(MAX_MONTAGE_PLANES, len(preferred)))}
        others = [plane for plane in range(count) if plane not in chosen]
        chosen |= {others[at] for at in _spread(len(others), min(MAX_MONTAGE_PLANES, count) - len(chosen))}
        return cls(info.size, tuple(sorted(chosen)))

    @property
    def columns(self) -> int:
        """Planes per row."""
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
    """A whole image reduced to (H, W)."""

    pixels: Pixels
    """Native values (H, W, C)."""
    valid: Mask
    """Validity (H, W)."""
    readable: Mask
    """False (H, W) where the file is damaged; such pixels are invalid, too."""
    scale: tuple[float, float]
    """Level-0 pixels (x, y) per reduced pixel."""


def read_overview(
    image: Image,
    *,
    limit: int = OVERVIEW_SIDE,
    montage: Montage | None = None,
    aspect: tuple[float, float] = (1.0, 1.0),
) -> ReducedImage:
    """Read the whole image, or a montage of a stack, at no more than `limit` pixels on its long side, never enlarged.

    aspect: proportions (x, y) of the level-0 pixels behind a reduced pixel, to make the reduced ones square.

    Reads blocks with at most 64 MiB of native pixels each, so that memory is bounded. A block that raises `ReadError`
    is halved down to 32 reduced pixels, so that little of a damaged file is lost. Raises nothing itself.
    """
    montage = montage or Montage.of(image.info)
    width, height = image.info.size
    across, down = width / aspect[0], height / aspect[1]
    reduction = max(1.0 / min(aspect), max(montage.columns * across, montage.rows * down) / limit)
    columns, rows = max(1, round(across / reduction)), max(1, round(down / reduction))
    scale = (width / columns, height / rows)
    dtype = np.result_type(*(np.dtype(channel.dtype) for channel in image.channels))
    shape = (rows * montage.rows, columns * montage.columns)
    pixels = np.zeros((*shape, len(image.channels)), dtype=dtype)
    result = ReducedImage(pixels, np.zeros(shape, np.bool_), np.ones(shape, np.bool_), scale)
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
                _read_block(of_plane, image, (left, top, min(left + wide, columns), min(top + high, rows)), plane)
    return result


def _spread(count: int, chosen: int) -> list[int]:
    """`chosen` of `count` indices, evenly spread."""
    return [(2 * at + 1) * count // (2 * chosen) for at in range(chosen)]


def _read_block(result: ReducedImage, image: Image, block: tuple[int, int, int, int], plane: int) -> None:
    """Read a block (x0, y0, x1, y1) of reduced pixels into the result, or halve it along its longer side."""
    x0, y0, x1, y1 = block
    sx, sy = result.scale
    try:
        pixels, valid = image.read(Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy), (x1 - x0, y1 - y0), plane)
    except ReadError:
        if max(x1 - x0, y1 - y0) <= _SMALLEST:
            return
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        tall = y1 - y0 >= x1 - x0
        for half in ((x0, y0, x1, y), (x0, y, x1, y1)) if tall else ((x0, y0, x, y1), (x, y0, x1, y1)):
            _read_block(result, image, half, plane)
        return
    here = np.s_[y0:y1, x0:x1]
    result.pixels[here], result.valid[here], result.readable[here] = pixels, valid, True


def box_mean(values: npt.NDArray[np.floating | np.bool_], radius: tuple[int, int]) -> Values:
    """The mean of `values` (H, W) in a window of ±radius (x, y) around each pixel, clipped at the border."""
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
    """Dilate a mask (H, W) by a rectangle of ±radius (x, y) pixels."""
    from scipy import ndimage

    size = (2 * radius[1] + 1, 2 * radius[0] + 1)
    return np.asarray(ndimage.maximum_filter(mask, size, mode="constant", cval=0), dtype=bool)


def keep_components(mask: Mask, counted: Mask, least: int = 1) -> Mask:
    """Keep the 4-connected components of a mask with at least `least` of the `counted` pixels."""
    components, count = _label(mask)
    inside = np.bincount(components[counted], minlength=count + 1)
    return mask & (inside >= least)[components]


def fill_holes(mask: Mask, limit: int) -> Mask:
    """Fill the holes of a mask that have fewer than `limit` pixels and do not touch the border of the image."""
    components, count = _label(~mask)
    small = np.bincount(components.ravel(), minlength=count + 1) < limit
    for border in (components[0], components[-1], components[:, 0], components[:, -1]):
        small[border] = False
    return mask | small[components]


def _label(mask: Mask) -> tuple[npt.NDArray[np.intp], int]:
    """Number the 4-connected components (H, W) from 1, and count them."""
    from scipy import ndimage

    found: Any = ndimage.label(mask)
    return found
