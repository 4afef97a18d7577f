"""What the XML of OME-TIFF and QPTIFF says of the first picture: physical sizes and channel names, and no more."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self
from xml.etree import ElementTree as ET
from xml.parsers import expat

from .spacing import Spacing, in_micrometres

LONGEST: Final = 16 << 20  # bytes of XML
_DEEPEST: Final = 64  # elements within each other
_MOST: Final = 1_000_000  # elements, and planes that they count


@dataclass(frozen=True, slots=True)
class OmeMetadata:
    """`spacing` is None where the header states no length for it; `channels` are names, "" where it has none."""

    spacing: Spacing | None
    channels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The facts of the first `Image` in OME-XML; nothing where the text is not such XML.

        A document type declaration, which OME-XML never has and entity bombs need, counts as no XML at all, and so
        does what `bomb` refuses.
        """
        nothing = cls(None, ())
        if bomb(text):
            return nothing
        try:
            root = ET.fromstring(text)  # noqa: S314 - entities are refused above
        except (ET.ParseError, ValueError):  # a lone surrogate is the latter
            return nothing
        pixels = root.find("{*}Image/{*}Pixels")
        if pixels is None:
            return nothing
        x, y = (in_micrometres(pixels.get(f"PhysicalSize{axis}"), _unit(pixels, axis)) for axis in "XY")
        known = x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
        names = tuple(channel.get("Name", "") for channel in pixels.iterfind("{*}Channel"))
        return cls(Spacing(x, y, "OME-XML PhysicalSize") if known and x is not None and y is not None else None, names)


def _unit(pixels: ET.Element, axis: str) -> str:
    return pixels.get(f"PhysicalSize{axis}Unit", "µm")  # the default of the OME schema


def bomb(text: str) -> str:
    """Why XML would take no end of memory or time; "" where it would not. XML that is damaged is none."""
    if len(text) > LONGEST:
        return f"{len(text)} characters of XML, at most {LONGEST} are read"
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return "XML with a document type declaration"
    count = _Count()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = count.start, count.end
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError, ValueError, OverflowError):
        return ""
    except _BombError as error:
        return str(error)
    return ""


class _BombError(Exception):
    pass


class _Count:
    """Counts elements, how deep they lie, and the planes that OME-XML says there are."""

    def __init__(self) -> None:
        self.depth = self.elements = self.planes = 0

    def start(self, name: str, values: Mapping[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        kind = name.rpartition(":")[2]
        if kind == "Pixels":
            self.planes += math.prod(max(1, _whole(values.get(f"Size{axis}"))) for axis in "ZCT")
        elif kind == "TiffData":
            self.planes += _whole(values.get("PlaneCount", values.get("NumPlanes", "1")))
            self.planes += max(_whole(values.get(key)) for key in ("IFD", "FirstZ", "FirstC", "FirstT"))
        elif kind.startswith("ModuloAlong"):
            self.planes += _steps(values)
        if self.depth > _DEEPEST:
            raise _BombError(f"XML of more than {_DEEPEST} elements within each other")
        if max(self.elements, self.planes) > _MOST:
            raise _BombError(f"XML of more than {_MOST} elements or planes")

    def end(self, name: str) -> None:
        del name
        self.depth -= 1


def _whole(text: str | None) -> int:
    """A whole number, 0 where there is none; one of many digits counts as too large."""
    found = re.fullmatch(r"\s*\+?([0-9]+)\s*", text or "")
    return 0 if found is None else int(found[1]) if len(found[1]) < 10 else _MOST + 1


def _steps(values: Mapping[str, str]) -> int:
    try:
        start, end, step = (float(values.get(key, default)) for key, default in (("Start", 0), ("End", 0), ("Step", 1)))
        return math.ceil(abs((end - start) / step))
    except (ValueError, ZeroDivisionError, OverflowError):
        return _MOST + 1


def qptiff_names(descriptions: Sequence[str]) -> tuple[str, ...]:
    """The names of QPTIFF's channels, from the description of each channel's page: the biomarker, else the filter's."""
    return tuple(_qptiff_name(text) for text in descriptions)


def _qptiff_name(text: str) -> str:
    if bomb(text):
        return ""
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities are refused above
    except (ET.ParseError, ValueError):
        return ""
    return (root.findtext("Biomarker") or root.findtext("Name") or "").strip()
