"""Open images that are stored as pyramids of tiles, whatever the format."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..geometry import Box
from ..image import BaseImage, Mask, Pixels, StoredLevel
from .padding import SlideOptions
from .tiled_pyramid import Level, Tile, TiledPyramid


class TiledImage(BaseImage):
    """Base class of open images that are read tile by tile.

    A reader implements `_prepare`, which opens the file and ends with `_set_levels`, and `_fetch`. What it enters into
    `_opened` is closed with the image, also after a `_prepare` that failed half way.
    """

    _pyramid: TiledPyramid
    _levels: Sequence[Level]
    _dtype: np.dtype[Any]

    def _open(self) -> None:
        self._opened = ExitStack()
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Open the file. Raises `ReadError`."""

    @abstractmethod
    def _fetch(self, number: int, column: int, row: int) -> Tile:
        """One tile of a level, the chosen channels, whole or cut at the edge of the level. Raises `ReadError`."""

    def _set_levels(self, levels: Sequence[Level], dtype: np.dtype[Any], options: SlideOptions) -> None:
        """The levels, finest first, whose tiles `_fetch` returns with values of `dtype`."""
        padding = options.padding_of(len(self._info.channels), f"reader {self._info.reader!r}")
        padding = None if padding is None else padding[self._channel_indices]
        self._levels, self._dtype = levels, dtype
        self._pyramid = TiledPyramid(levels, len(self._channel_indices), dtype, self._fetch, padding)
        self._opened.callback(self._pyramid.forget)

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._pyramid.read(box, size)

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """See `SupportsLevels`."""
        return self._pyramid.stored_level(step)

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:  # noqa: ARG002 - a reader that knows more overrides it
        """See `SupportsLevels`: None, since what is blank is known only when it is decoded."""
        return None

    def _close(self) -> None:
        self._opened.close()
