"""Tiles of slides that OpenSlide opens, decoded without it where their levels are plain tiles of a TIFF.

OpenSlide draws every tile into a picture with transparency, which takes most of its time, and it interpolates tiles of
coarse levels, whose places it rounds to level-0 pixels. So levels that are single pages of a TIFF (as in Aperio SVS and
generic tiled TIFF) are decoded here, after some tiles of each were compared with what OpenSlide reads.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self, cast

import numpy as np

from ..errors import ReadError
from ..image import Pixels
from .tiff import open_tiff, tiff_errors, tile_size
from .tiff_tiles import read_tile, unreadable
from .tiled_pyramid import Level

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

ReadRegion = Callable[[tuple[int, int], int, tuple[int, int]], Pixels | None]
"""OpenSlide's `read_region(level-0 position, level, size)`: (height, width, 4), None where it fails."""

_COMPRESSIONS: Final = frozenset({1, 5, 7, 8, 32946, 33003, 33005})  # none, LZW, JPEG, deflate, JPEG 2000 of Aperio
_MAX_PAGES: Final = 128
_COMPARED: Final = (3, 1)  # tiles that are compared of level 0, and of each other level
_MORE: Final = 3  # tiles of a level that are compared where others are damaged
_TOLERANCE: Final = 2  # levels of 255: rounding of colours, and of OpenSlide's interpolation


class DirectTiles:
    """The tiles of all levels of a slide, read from its TIFF."""

    def __init__(self, tiff: "TiffFile", pages: "Sequence[TiffPage]", levels: Sequence[Level]) -> None:
        self._tiff = tiff
        self._pages = pages
        self._levels = levels

    @classmethod
    def open(cls, uri: str, levels: Sequence[Level], steps: Sequence[float], read_region: ReadRegion) -> Self | None:
        """The tiles of a slide with these levels, None where they are not plain or differ from what OpenSlide reads.

        steps: OpenSlide's downsample of each level.
        """
        with ExitStack() as handles:
            try:
                tiff = handles.enter_context(open_tiff(uri))
                with tiff_errors(uri):
                    found = cls(tiff, _find_pages(tiff, levels), levels)
            except ReadError:
                return None
            if not found._pages or not all(found._agrees(i, step, read_region) for i, step in enumerate(steps)):
                return None
            handles.pop_all()
        return found

    def read(self, number: int, column: int, row: int) -> Pixels:
        """One tile of a level (height, width, 3), cut at the level's edge. Raises `ReadError`."""
        level = self._levels[number]
        where = f"level {number}, tile {column}, {row},"
        pixels = read_tile(self._tiff, self._pages[number], row * level.tiles[0] + column, where)
        if pixels is None or pixels.shape != (level.tile[1], level.tile[0], 3):
            raise unreadable(where, "no tile" if pixels is None else f"an array of shape {pixels.shape}")
        _, _, width, height = level.place(column, row)
        return pixels[:height, :width]

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _agrees(self, number: int, step: float, read_region: ReadRegion) -> bool:
        """Whether some tiles of a level are what OpenSlide reads; one that neither can read is passed over."""
        level, left = self._levels[number], _COMPARED[min(number, 1)]
        for index in _choose_tiles(self._pages[number].databytecounts, left):
            row, column = divmod(index, level.tiles[0])
            x, y, *size = level.place(column, row)
            at = round(x * step), round(y * step)
            there = read_region(at, number, (size[0], size[1]))
            try:
                here = self.read(number, column, row)
            except ReadError:
                here = None
            if here is None and there is None:
                continue
            if here is None or there is None or not _alike(here, there, (at[0] / step - x, at[1] / step - y)):
                return False
            left -= 1
            if not left:
                return True
        return False


def _find_pages(tiff: "TiffFile", levels: Sequence[Level]) -> "list[TiffPage]":
    """The page of each level: the only one of its size and tiles. Empty where one is missing or ambiguous."""
    if len(tiff.pages) > _MAX_PAGES:
        return []
    plain = [page for page in cast("Sequence[TiffPage]", tiff.pages) if page.keyframe is page and _is_plain(page)]
    found: list[TiffPage] = []
    for level in levels:
        fits = [page for page in plain if (page.imagewidth, page.imagelength) == level.size]
        if len(fits) != 1 or tile_size(fits[0]) != level.tile:
            return []
        if len(fits[0].dataoffsets) != level.tiles[0] * level.tiles[1]:
            return []
        found += fits
    return found


def _is_plain(page: "TiffPage") -> bool:
    """Whether a page has 8-bit red, green and blue in tiles, all of which are there."""
    return (
        page.is_tiled
        and page.dtype == np.uint8
        and (page.samplesperpixel, page.planarconfig, page.imagedepth) == (3, 1, 1)
        and int(page.photometric) in {2, 6}
        and int(page.compression) in _COMPRESSIONS
        and len(page.databytecounts) == len(page.dataoffsets)
        and min(page.databytecounts, default=0) > 0
    )


def _choose_tiles(counts: Sequence[int], first: int) -> list[int]:
    """The tile of the most bytes, which shows the most; for `first` tiles the one amid and the last, too; then more."""
    order = np.argsort(-np.asarray(counts), kind="stable")[: first + _MORE].tolist()
    return list(dict.fromkeys([order[0], len(counts) // 2, len(counts) - 1, *order] if first > 1 else order))


def _alike(here: Pixels, there: Pixels, shift: tuple[float, float]) -> bool:
    """Whether a tile is what OpenSlide read at a place that is off by `shift` (x, y) pixels, except at the border."""
    if np.array_equal(here, there[..., :3]):
        return bool((there[..., 3] == 255).all())
    expected = here.astype(np.float32)
    for axis, part in ((1, shift[0]), (0, shift[1])):
        expected += abs(part) * (np.roll(expected, -1 if part > 0 else 1, axis) - expected)
    inside = np.s_[1:-1, 1:-1] if any(shift) else np.s_[:, :]
    same = np.abs(there[inside][..., :3] - expected[inside]) <= _TOLERANCE
    return bool(same.all() and (there[inside][..., 3] == 255).all())
