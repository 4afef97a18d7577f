"""The overview of an image, which is the whole image reduced, and operations on its pixels and on masks of its size."""
# scipy has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from itertools import chain, pairwise, product
from threading import Event
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .geometry import Box
from .image import Image, ImageInfo, Mask, Pixels, StoredLevel, SupportsLevels
from .processors import cores

Values = npt.NDArray[np.float64]

MAX_MONTAGE_PLANES: Final = 25
OVERVIEW_SIDE: Final = 2048
"""Pixels on the long side of an overview, unless something else is asked for."""
_BYTES: Final = 64 << 20  # native pixels read at a time
_STREAMED_BYTES: Final = (
    1 << 30
)  # the same of an image that does not hold them all: a block on an edge is decoded twice
WHOLE_BYTES: Final = 4 << 30
"""Most bytes of native pixels of a map that are read for an overview; of a larger one blocks are sampled."""
SAMPLED_BYTES: Final = 512 << 20
"""Bytes of native pixels of such samples."""
_STRIP: Final = 1 << 20  # pixels
_MOST_BANDS: Final = 4  # each has decoded tiles of its own
_BAND_BYTES: Final = 32 << 20  # native pixels for which another band is worth opening the file once more
_SAMPLES: Final = 4096  # at most
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
    sampled: Mask | None = None
    """Of a map that is too large to be read whole: where it was read (H, W). Other pixels repeat the nearest of these.
    None where all was read."""


Progress = Callable[[float], None]
"""Called with the share (0 to 1) of an overview that is read."""
Reopen = Callable[[ImageInfo, Sequence[str]], Image]
"""Opens an image to read the named channels."""


def read_overview(
    image: Image,
    *,
    limit: int = OVERVIEW_SIDE,
    montage: Montage | None = None,
    aspect: tuple[float, float] = (1.0, 1.0),
    enlarge: bool = False,
    on_progress: Progress = lambda _: None,
    reopen: Reopen | None = None,
) -> ReducedImage:
    """Read the whole image, or a montage of a stack, at no more than `limit` pixels on its long side, never enlarged.

    aspect: proportions (x, y) of the level-0 pixels behind a reduced pixel, to make the reduced ones square.
    enlarge: whether to enlarge along the axis with the longer level-0 pixels, rather than reduce along the other one.
    reopen: opens an image; with it bands of one that has much to decode are read at the same time.

    Parts that an image knows to hold nothing (`SupportsLevels`) are not read. Of a map of which more than `WHOLE_BYTES`
    would have to be decoded, blocks on a regular lattice are, so that the time is bounded. At most 64 MiB of native
    pixels are read at a time, so that memory is bounded, and 1 GiB of an image that streams (`BaseImage.streams`). A
    part that raises `ReadError` is halved down to 32 reduced pixels, so that little of a damaged file is lost. Raises
    nothing but what `reopen` raises.
    """
    montage = montage or Montage.of(image.info)
    width, height = image.info.size
    across, down = width / aspect[0], height / aspect[1]
    finest = max(aspect) if enlarge else min(aspect)
    reduction = max(1.0 / finest, max(montage.columns * across, montage.rows * down) / limit)
    columns, rows = max(1, round(across / reduction)), max(1, round(down / reduction))
    scale = (width / columns, height / rows)
    dtype = np.result_type(*(np.dtype(channel.dtype) for channel in image.channels))
    shape = (rows * montage.rows, columns * montage.columns)
    pixels = np.zeros((*shape, len(image.channels)), dtype=dtype)
    result = ReducedImage(pixels, np.zeros(shape, np.bool_), np.ones(shape, np.bool_), scale)
    pixel_bytes = scale[0] * scale[1] * len(image.channels) * dtype.itemsize
    possible = np.ones((rows, columns), np.bool_)
    if isinstance(image, SupportsLevels) and image.info.kind == "map" and len(montage.planes) == 1:
        stored = image.may_hold((rows, columns)) if pixel_bytes * rows * columns > _BYTES else None
        possible = possible if stored is None else stored
        level = image.stored_level(scale)
        stored_bytes = pixel_bytes / (level.scale[0] * level.scale[1])
        if stored_bytes * np.count_nonzero(possible) > WHOLE_BYTES:
            return _sample(result, image, level, possible, on_progress)
    streamed = bool(getattr(image, "streams", False)) and bool(possible.all())
    most = _STREAMED_BYTES if streamed else _BYTES
    wide = max(1, min(columns, int(most / pixel_bytes)))
    high = max(1, min(rows, int(most / (pixel_bytes * wide))))
    bands = [range(rows)]
    if isinstance(image, SupportsLevels) and len(montage.planes) == 1:
        native = pixel_bytes * np.count_nonzero(possible)
        bands = _bands(image.stored_level(scale), scale, (columns, rows), native)
    work: list[list[_Work]] = [[] for _ in bands]
    for number, plane in enumerate(montage.planes):
        row, column = divmod(number, montage.columns)
        part = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        of_plane = ReducedImage(result.pixels[part], result.valid[part], result.readable[part], scale)
        of_plane.readable[...] = ~possible
        for band, pieces in zip(bands, work, strict=True):
            for top, left in product(band[::high], range(0, columns, wide)):
                bottom = min(band.stop, top + high)
                here = possible[top:bottom, left : left + wide]
                if here.any():
                    first, last = (int(one) for one in np.flatnonzero(here.any(axis=0))[[0, -1]])
                    pieces.append((of_plane, (left + first, top, left + last + 1, bottom), plane))
    names, more = [channel.name for channel in image.channels], min(len(bands), cores()) - 1
    with ExitStack() as stack:
        others = [stack.enter_context(reopen(image.info, names)) for _ in range(more)] if reopen is not None else []
        for other in others:
            if isinstance(other, SupportsLevels):
                other.stored_level(scale)  # opens that level here: not in the threads, which share filters of warnings
        _read_bands([image, *others], work, on_progress)
    return result


_Work = tuple[ReducedImage, tuple[int, int, int, int], int]
"""Where to put a block (x0, y0, x1, y1) of reduced pixels, and its plane."""


def _bands(level: StoredLevel, scale: tuple[float, float], size: tuple[int, int], native: float) -> list[range]:
    """Rows of the reduced image of that (width, height) that may be read at the same time, in whole rows of blocks.

    native: bytes to read at level 0. One band where that is little, and where a file may have to be decoded from its
    beginning for each, as it is not in tiles. What is lost of a damaged file depends on the bands, and these on no
    machine.
    """
    across, down = (side * step / one for side, step, one in zip(level.block, level.scale, scale, strict=True))
    stored = native / (level.scale[0] * level.scale[1])
    most = min(_MOST_BANDS, int(stored / _BAND_BYTES)) if across < size[0] else 1
    high = max(1, math.ceil(size[1] / max(1, most) / down) * down)
    starts = [round(number * high) for number in range(math.ceil(size[1] / high))]
    return [range(*band) for band in pairwise([*starts, size[1]])]


def _read_bands(handles: Sequence[Image], bands: Sequence[Sequence[_Work]], on_progress: Progress) -> None:
    """Read the blocks of bands, with each handle of bands that follow each other."""
    ends = [len(bands) * number // len(handles) for number in range(len(handles) + 1)]
    parts = [list(chain(*bands[start:end])) for start, end in pairwise(ends)]
    stopped = Event()

    def read(handle: Image, part: Sequence[_Work], on_progress: Progress = lambda _: None) -> None:
        for number, (result, block, plane) in enumerate(part, 1):
            if not stopped.is_set():
                _read_block(result, handle, block, plane)
                on_progress(number / len(part))

    with ThreadPoolExecutor(len(handles)) as threads:
        try:
            others = [threads.submit(read, *one) for one in zip(handles[1:], parts[1:], strict=True)]
            read(handles[0], parts[0], on_progress)
            for other in others:
                other.result()
        finally:
            stopped.set()


def overview_bytes(image: Image, limit: int) -> float:
    """Bytes of native pixels that the overview of a plane reads; 0 where the image does not tell."""
    if not isinstance(image, SupportsLevels):
        return 0.0
    (width, height), step = image.info.size, max(1.0, max(image.info.size) / limit)
    across, down = image.stored_level((step, step)).scale
    itemsize = np.result_type(*(np.dtype(channel.dtype) for channel in image.channels)).itemsize
    return width / across * (height / down) * len(image.channels) * itemsize


def _sample(
    result: ReducedImage, image: Image, level: StoredLevel, possible: Mask, on_progress: Progress
) -> ReducedImage:
    """Read stored blocks on a regular lattice, as many as `SAMPLED_BYTES` allow; the nearest stands for the others."""
    rows, columns = possible.shape
    itemsize = result.pixels.dtype.itemsize * result.pixels.shape[2]
    block = [side * step for side, step in zip(level.block, level.scale, strict=True)]  # level-0 pixels
    counts = [math.ceil(side / length) for side, length in zip(image.info.size, block, strict=True)]
    share = float(np.count_nonzero(possible)) / possible.size
    most = max(1, min(_SAMPLES, int(SAMPLED_BYTES / (level.block[0] * level.block[1] * itemsize * share))))
    across = min(counts[0], max(1, math.isqrt(most * counts[0] // counts[1])))
    down = min(counts[1], max(1, most // across))
    x, y = (
        [_cells(number * length, min((number + 1) * length, side), step, cells) for number in _spread(count, chosen)]
        for length, side, step, cells, count, chosen in zip(
            block, image.info.size, result.scale, (columns, rows), counts, (across, down), strict=True
        )
    )
    result.readable[...] = ~possible
    sampled = np.zeros((rows, columns), np.bool_)
    for number, (top, bottom, y0, y1) in enumerate(y):
        for left, right, x0, x1 in x:
            here = np.s_[top:bottom, left:right]
            sampled[here] = True
            if not possible[here].any():
                continue
            try:
                pixels, valid = image.read(Box(x0, y0, x1, y1), (right - left, bottom - top))
            except ReadError:
                continue
            result.pixels[here], result.valid[here], result.readable[here] = pixels, valid, True
        on_progress((number + 1) / len(y))
    nearest = np.ix_(_nearest(np.any(sampled, axis=1)), _nearest(np.any(sampled, axis=0)))
    return ReducedImage(
        result.pixels[nearest], result.valid[nearest] & possible, result.readable[nearest], result.scale, sampled
    )


def _cells(start: float, stop: float, step: float, count: int) -> tuple[int, int, float, float]:
    """The cells of `step` that a block fills, and where they begin and end; a block within one cell stands for it."""
    first, last = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    if first < last:
        return first, last, first * step, last * step
    middle = min(count - 1, math.floor((start + stop) / 2 / step))
    return middle, middle + 1, start, stop


def _nearest(sampled: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """The index of the nearest True of each place (N,)."""
    marks = np.asarray(sampled)
    places = np.flatnonzero(marks)
    middles = (places[1:] + places[:-1]) / 2
    return places[np.searchsorted(middles, np.arange(len(marks)))]


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


def across_channels(function: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`function` of the channels of (…, C), one after the other: ten times as fast as `function.reduce` for a few."""
    return reduce(function, (values[..., channel] for channel in range(values.shape[-1])))


def percentiles(values: npt.NDArray[Any], share: float) -> Values:
    """A percentile of each channel of (N, C), as `np.percentile` computes it; of 8 bits from their histogram."""
    if values.dtype != np.uint8:
        return np.asarray(np.percentile(values, share, axis=0), dtype=np.float64)
    place = share / 100 * (len(values) - 1)
    below, part = math.floor(place), place - math.floor(place)
    found: list[float] = []
    for channel in range(values.shape[1]):
        parts = [np.bincount(values[rows, channel], minlength=256) for rows in strips(values.shape)]  # as 8 bytes each
        count = np.cumsum(np.sum(parts, axis=0))
        low, high = (int(np.searchsorted(count, at, side="right")) for at in (below, min(below + 1, len(values) - 1)))
        found.append(high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part)
    return np.asarray(found, dtype=np.float64)


def box_mean(
    values: npt.NDArray[np.floating | np.bool_], radius: tuple[int, int], *, overwrite: bool = False
) -> Values:
    """The mean of `values` (H, W) in a window of ±radius (x, y) around each pixel, clipped at the border.

    With `overwrite`, it is where the values were, which are float64 then.
    """
    result = values.astype(np.float64, copy=not overwrite)
    for axis, reach in ((1, radius[0]), (0, radius[1])):
        lines = np.moveaxis(result, axis, 0)
        length = len(lines)
        first, behind = np.maximum(np.arange(length) - reach, 0), np.minimum(np.arange(length) + reach + 1, length)
        for part in strips(lines.shape[::-1]):
            moved = lines[:, part]
            sums = (length + 1 + 2 * reach, moved.shape[1])
            total = np.zeros(sums[:: 1 if axis == 0 else -1])  # from the border, beyond which they stay the same
            total = total if axis == 0 else total.T
            np.cumsum(moved, 0, out=total[reach + 1 : reach + 1 + length])
            total[reach + 1 + length :] = total[reach + length]
            np.subtract(total[2 * reach + 1 :], total[:length], out=moved)
            moved /= (behind - first)[:, None]
    return result


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of an array of (H, W), some million pixels at a time."""
    rows = max(1, _STRIP // max(1, shape[1]))
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def dilate(mask: Mask, radius: tuple[int, int]) -> Mask:
    """Dilate a mask (H, W) by a rectangle of ±radius (x, y) pixels."""
    result = mask.copy()
    if result.all():
        return result
    for rows, reach in ((result.T, radius[0]), (result, radius[1])):
        for one in (rows, rows[::-1]):
            done = 0  # each pixel has what the next `done` ones had
            while done < reach:
                step = min(done + 1, reach - done)
                one[:-step] |= one[step:]
                done += step
    return result


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
