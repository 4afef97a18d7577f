"""An open stack of slices, whose frames the sandboxed process decodes."""

from collections import OrderedDict
from pathlib import Path
from typing import Final

import numpy as np

from ..geometry import Box
from ..image import BaseImage, Mask, Pixels
from ..resample import axis_weights, pixel_edges, resample
from .decoder import Decoder
from .faults import FaultError, as_error
from .source import split_member

_CACHE: Final = 128 * 2**20  # bytes of decoded frames that an open image keeps


class DicomImage(BaseImage):
    """An open image, with a cache of decoded frames."""

    def _open(self) -> None:
        info = self._info
        self._frames: OrderedDict[int, Pixels] = OrderedDict()
        self._dtype = np.dtype(info.channels[0].dtype)
        self._decoder = Decoder()
        self._suv = dict(info.options).get("values") == "suv"
        for path in sorted({str(split_member(plane.source)[0]) for plane in info.planes}):
            if not Path(path).is_file():
                raise as_error(info.id or info.uri, FaultError("missing"))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._read_plane(box, size, 0)

    def _read_plane(self, box: Box, size: tuple[int, int], plane: int) -> tuple[Pixels, Mask]:
        """See `Image.read`; only that slice is decoded."""
        width, height = self._info.size
        down = axis_weights(pixel_edges(box.y0, box.y1, size[1]), height)
        across = axis_weights(pixel_edges(box.x0, box.x1, size[0]), width)
        window = slice(across.start, across.stop)

        def rows(start: int, stop: int) -> tuple[Pixels, Mask | None]:
            native, valid = self._rows(plane, start, stop)
            return native[:, window], None if valid is None else valid[:, window]

        return resample(rows, down, across, len(self._channel_indices), self._dtype)

    def _close(self) -> None:
        self._frames.clear()

    def _rows(self, number: int, start: int, stop: int) -> tuple[Pixels, Mask | None]:
        """Native rows start:stop of slice `number` (from 0), and where they are valid."""
        frame = self._frame(number)[start:stop]
        if frame.ndim == 3:
            return frame[..., self._channel_indices], None
        valid = ~np.isnan(frame)
        return np.where(valid, frame, np.float32(0))[..., None], valid

    def _frame(self, number: int) -> Pixels:
        if number not in self._frames:
            plane, (width, height) = self._info.planes[number], self._info.size
            try:
                pixels = self._decoder.frame(plane.source, plane.frame - 1, 0, height, suv=self._suv)
            except FaultError as fault:
                raise as_error(f"{self._info.id}, slice {number + 1} of {len(self._info.planes)}", fault) from None
            colours = 1 if len(self._info.channels) == 1 else 3
            if pixels.shape[:2] != (height, width) or pixels.ndim != (2 if colours == 1 else 3):
                raise as_error(self._info.id, FaultError("decode", f"an array of {pixels.shape}"))
            while self._frames and sum(kept.nbytes for kept in self._frames.values()) + pixels.nbytes > _CACHE:
                self._frames.popitem(last=False)
            self._frames[number] = pixels
        self._frames.move_to_end(number)
        return self._frames[number]
