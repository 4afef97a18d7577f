"""The pixels of single frames. Runs in the sandboxed process.

Grey frames are modality values in float32, NaN on padding; colour frames are uint8 RGB.
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGExtended12Bit

from .attributes import integer
from .codecs import plugins
from .faults import FaultError
from .frames import functional_group, functional_groups
from .header import check_compression_ratio, parse, transfer_syntax_of
from .mosaic import mosaic_of
from .source import inflate
from .suv import suv_factor
from .voi_lut import LookupTable, ModalityLut, padding_mask

_PALETTES = ("RedPaletteColorLookupTable", "GreenPaletteColorLookupTable", "BluePaletteColorLookupTable")
_BYTE = 8


class Frames:
    """The frames of an open file, whose header is parsed once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = inflate(file)
        self.dataset, pixels = parse(self._file)
        if pixels is None:
            raise FaultError("no-pixels")
        self._syntax = transfer_syntax_of(self.dataset)
        self._count = max(1, integer(self.dataset, "NumberOfFrames") or 1)
        self._groups = functional_groups(self.dataset, self._count)
        check_compression_ratio(self.dataset, self._syntax, self._file.seek(0, 2))
        self._mosaic = mosaic_of(self.dataset)

    def read(self, index: int, *, suv: bool = False) -> npt.NDArray[Any]:
        """Frame `index` (from 0): (rows, columns) float32, NaN; or (rows, columns, 3) uint8. Raises `FaultError`.

        The frames of a mosaic are its slices. `suv` gives PET as standardised uptake values.
        """
        if suv:
            return (self._read(index) * suv_factor(self.dataset).factor).astype(np.float32)
        if self._mosaic is not None:
            if not 0 <= index < self._mosaic.count:
                raise FaultError("damaged", f"slice {index + 1} of {self._mosaic.count}")
            return self._read(0)[self._mosaic.box(index)]
        return self._read(index)

    def _read(self, index: int) -> npt.NDArray[Any]:
        if not 0 <= index < self._count:
            raise FaultError("damaged", f"frame {index + 1} of {self._count}")
        stored = self._decode(index)
        shape = (integer(self.dataset, "Rows") or 0, integer(self.dataset, "Columns") or 0)
        if stored.shape[:2] != shape:
            raise FaultError("decode", f"{stored.shape[1]} × {stored.shape[0]} pixels, not {shape[1]} × {shape[0]}")
        if self.dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            return self._colours(stored)
        if stored.ndim > 2:
            return _eight_bits(stored[..., :3], integer(self.dataset, "BitsStored") or _BYTE)
        padding = padding_mask(stored, *self._padding())
        values = self.modality(index)(stored)
        values[padding] = math.nan
        return values.astype(np.float32)

    def modality(self, index: int) -> ModalityLut:
        """The modality LUT of frame `index`."""
        within = self._group(index, "PixelValueTransformationSequence")
        if tables := list(within.get("ModalityLUTSequence") or []):
            return ModalityLut(table=_table(tables[0], self.dataset, signed=self._stored_range()[0] < 0))
        slope, intercept = _numbers(within.get("RescaleSlope")), _numbers(within.get("RescaleIntercept"))
        return ModalityLut(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0)

    def voi_table(self, index: int) -> LookupTable | None:
        """The VOI lookup table of frame `index`; None without one."""
        tables = list(self._group(index, "FrameVOILUTSequence").get("VOILUTSequence") or [])
        minimum = self.modality(index).minimum(*self._stored_range())
        return _table(tables[0], self.dataset, signed=minimum < 0) if tables else None

    def _group(self, index: int, name: str) -> Dataset:
        return functional_group(self._groups[index] if self._groups else [], name, self.dataset)

    def _stored_range(self) -> tuple[int, int]:
        """The least and the greatest value that can be stored."""
        bits = integer(self.dataset, "BitsStored") or integer(self.dataset, "BitsAllocated") or 16
        signed = self.dataset.get("PixelRepresentation") == 1
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def _padding(self) -> tuple[float | None, float | None]:
        """PixelPaddingValue and PixelPaddingRangeLimit as stored values, whatever sign their tags were read with."""
        bits = integer(self.dataset, "BitsAllocated") or 16
        signed = self.dataset.get("PixelRepresentation") == 1
        found: list[float | None] = []
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            numbers = _numbers(self.dataset.get(name))
            if not numbers or bits > 16:
                found.append(None)
                continue
            value = int(numbers[0]) & 0xFFFF
            found.append(float(value - 0x10000 if signed and value & 0x8000 else value))
        return found[0], found[1]

    def _decode(self, index: int) -> npt.NDArray[Any]:
        names = plugins(self._syntax)
        if not names:
            raise FaultError("codec", self._syntax)
        failures: list[str] = []
        for name in names:
            try:
                return pixel_array(self._file, index=index, decoding_plugin=name, transfer_syntax_uid=self._syntax)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a codec may raise anything, and its message may hold anything
                failures.append(f"{name or 'native'}: {type(error).__name__}")
        if self._syntax == JPEGExtended12Bit and (integer(self.dataset, "BitsStored") or 0) > _BYTE:
            raise FaultError("codec", "12-bit lossy JPEG")
        raise FaultError("decode", ", ".join(failures))

    def _colours(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        if any(not self.dataset.get(f"{name}Descriptor") for name in _PALETTES):
            raise FaultError("palette")
        try:
            colours = apply_color_lut(stored, self.dataset)[..., :3]
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise FaultError("palette", type(error).__name__) from error
        if colours.dtype == np.uint8:
            return colours.astype(np.uint8)
        # a 16-bit palette's entries fill 16 bits, or repeat 8 bits in both bytes
        return (colours.astype(np.uint32) * 255 // 65535).astype(np.uint8)


def _eight_bits(colours: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    if colours.dtype == np.uint8 and bits == _BYTE:
        return colours.astype(np.uint8)
    return np.floor(colours.astype(np.float64) * (255.0 / (2.0**bits - 1.0)) + 0.5).clip(0, 255).astype(np.uint8)


def _table(item: Dataset, dataset: Dataset, *, signed: bool) -> LookupTable:
    """The item of a LUT sequence (PS3.3 C.11.1.1): number of entries (0 for 65536), first input, bits per entry.

    `signed`: inputs can be negative, on which the sign of the tag depends.
    """
    try:
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        data = item.LUTData
    except (AttributeError, TypeError, ValueError) as error:
        raise FaultError("damaged", "lookup table") from error
    count = count & 0xFFFF or 65536
    first = first & 0xFFFF
    if signed and first & 0x8000:
        first -= 0x10000
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] is not False else ">"
        kind = "u1" if len(data) < 2 * count else f"{order}u2"
        entries = np.frombuffer(data, dtype=kind)
    else:
        entries = np.asarray(data, dtype=np.int64) & 0xFFFF
    if len(entries) < count or not 1 <= bits <= 16:
        raise FaultError("damaged", "lookup table")
    return LookupTable(float(first), entries[:count].astype(np.float64), bits)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(one) for one in value] if isinstance(value, MultiValue | list | tuple) else [float(value)]
