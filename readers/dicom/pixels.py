"""One frame's pixels. Runs in the limited process.

Grey frames come as modality values in float32 with NaN where they are padding; colour frames as uint8 red, green, blue.
Other frames' pixels are not touched.
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

from .codecs import plugins
from .faults import FaultError
from .header import check_growth, groups, macro, parse, syntax_of, whole
from .source import inflated
from .voi_lut import Modality, Table, Voi, padded

_PALETTES = ("RedPaletteColorLookupTable", "GreenPaletteColorLookupTable", "BluePaletteColorLookupTable")
_BYTE = 8


class Frames:
    """An open file's frames; keeps its parsed header from one frame to the next."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = inflated(file)
        self.dataset, pixels = parse(self._file)
        if pixels is None:
            raise FaultError("no-pixels")
        self._syntax = syntax_of(self.dataset)
        self._count = max(1, whole(self.dataset, "NumberOfFrames") or 1)
        self._places = groups(self.dataset, self._count)
        check_growth(self.dataset, self._syntax, self._file.seek(0, 2))

    def read(self, index: int) -> npt.NDArray[Any]:
        """Frame `index` (from 0): (rows, columns) float32, NaN; or (rows, columns, 3) uint8. Raises `FaultError`."""
        if not 0 <= index < self._count:
            raise FaultError("damaged", f"frame {index + 1} of {self._count}")
        stored = self._decode(index)
        shape = (whole(self.dataset, "Rows") or 0, whole(self.dataset, "Columns") or 0)
        if stored.shape[:2] != shape:
            raise FaultError("decode", f"{stored.shape[1]} × {stored.shape[0]} pixels, not {shape[1]} × {shape[0]}")
        if self.dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            return self._colours(stored)
        if stored.ndim > 2:
            return _eight_bits(stored[..., :3], whole(self.dataset, "BitsStored") or _BYTE)
        padding = padded(stored, *self._padding())
        values = self.modality(index)(stored)
        values[padding] = math.nan
        return values.astype(np.float32)

    def modality(self, index: int) -> Modality:
        """How frame `index` goes from stored to modality values: by its own group where it has one."""
        within = self._macro(index, "PixelValueTransformationSequence")
        if tables := list(within.get("ModalityLUTSequence") or []):
            return Modality(table=_table(tables[0], self.dataset, signed=self._stored_range()[0] < 0))
        slope, intercept = within.get("RescaleSlope"), within.get("RescaleIntercept")
        return Modality(
            1.0 if slope in {None, ""} else float(slope), 0.0 if intercept in {None, ""} else float(intercept)
        )

    def voi(self, index: int, choice: int = 0) -> Voi | None:
        """The VOI that the file states for frame `index`: its table, else window number `choice`; None without one."""
        within = self._macro(index, "FrameVOILUTSequence")
        if tables := list(within.get("VOILUTSequence") or []):
            lowest = self.modality(index).lowest(*self._stored_range())
            table = _table(tables[min(choice, len(tables) - 1)], self.dataset, signed=lowest < 0)
            return Voi(0.0, 0.0, "LUT", table)
        centres, widths = _numbers(within.get("WindowCenter")), _numbers(within.get("WindowWidth"))
        if choice >= min(len(centres), len(widths)) or widths[choice] <= 0:
            return None
        function = within.get("VOILUTFunction") or "LINEAR"
        if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
            function = "LINEAR"
        return Voi(centres[choice], widths[choice], function)

    def _macro(self, index: int, name: str) -> Dataset:
        return macro(self._places[index] if self._places else [], name, self.dataset)

    def _stored_range(self) -> tuple[int, int]:
        """The least and the greatest number that can be stored."""
        bits = whole(self.dataset, "BitsStored") or whole(self.dataset, "BitsAllocated") or 16
        signed = self.dataset.get("PixelRepresentation") == 1
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def _padding(self) -> tuple[float | None, float | None]:
        """PixelPaddingValue and its range's limit as stored numbers, whatever sign their own tags were read with."""
        bits = whole(self.dataset, "BitsAllocated") or 16
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
            except Exception as error:  # noqa: BLE001 - a codec may raise anything; its words may hold anything
                failures.append(f"{name or 'native'}: {type(error).__name__}")
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


def _table(item: Dataset, dataset: Dataset, *, signed: bool) -> Table:
    """A LUT sequence's item (PS3.3 C.11.1.1): number of entries (0 for 65536), first input, bits an entry.

    `signed` says whether the inputs can be negative: the tag's own sign depends on them.
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
    return Table(float(first), entries[:count].astype(np.float64), bits)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(one) for one in value] if isinstance(value, MultiValue | list | tuple) else [float(value)]
