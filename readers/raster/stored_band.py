"""The stored numbers of one band of a raster, as they are: no palette, no scale, no resampling."""

# rasterio has no type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..image import Mask
from .gdal import gdal_env, gdal_errors, open_raster
from .metadata import band_dtype

_PIXELS = ("must have readable pixels", "The file may be truncated or damaged: fetch it again")


class StoredBand(AbstractContextManager["StoredBand", None]):
    """One open band of whole numbers. Raises `ReadError` where the file cannot be opened or has no such band."""

    size: tuple[int, int]
    """(width, height)."""

    def __init__(self, uri: str, part: str = "", band: str = "") -> None:
        """Open the band of a description, or the only one beside an alpha channel."""
        self._uri = uri
        with gdal_env(uri):
            self._raster: Any = open_raster(uri, part)
        try:
            self.size = self._raster.width, self._raster.height
            self._band = self._find(band)
            kind = band_dtype(self._raster.dtypes[self._band - 1])
            if kind.kind not in "biu":
                rule, remedy = "must hold whole numbers", "Write it as bytes, for example with gdal_translate -ot Byte"
                raise ReadError(uri, rule, value=kind.name, remedy=remedy)  # noqa: TRY301 - to close it
        except BaseException:
            self._raster.close()
            raise

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[npt.NDArray[Any], Mask]:
        """The numbers (H, W) of a window, each from and to, and where they are no nodata. Raises `ReadError`."""
        window = (rows, columns)
        with gdal_env(self._uri), gdal_errors(self._uri, *_PIXELS):
            numbers = self._raster.read(self._band, window=window)
            return numbers, self._raster.read_masks(self._band, window=window) != 0

    def sample(self, rows: int = 64) -> npt.NDArray[Any]:
        """The numbers (N, W) of some rows, spread over the band, that are no nodata. Raises `ReadError`."""
        width, height = self.size
        places = np.unique(np.linspace(0, height - 1, rows).round().astype(int)).tolist()
        read = [self.read((row, row + 1), (0, width)) for row in places]
        return np.concatenate([numbers[known] for numbers, known in read])

    def close(self) -> None:
        """Close the file."""
        self._raster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, name: str) -> int:
        """The number of a band, from 1."""
        names = [text or "" for text in self._raster.descriptions]
        if name:
            found = [number for number, text in enumerate(names, 1) if text.upper() == name.upper()]
        else:
            colours = [colour.name for colour in self._raster.colorinterp]
            found = [number for number, colour in enumerate(colours, 1) if colour != "alpha" or len(colours) == 1]
        if len(found) != 1:
            rule = f"must have one band {name}".rstrip()
            remedy = "Write that band into a file of its own, for example with gdal_translate -b"
            raise ReadError(self._uri, rule, value=f"{len(found)} of {len(names)} bands", remedy=remedy)
        return found[0]
