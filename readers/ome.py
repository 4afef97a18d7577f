"""What an OME-XML header says of its first picture: physical sizes and channel names. Nothing else of it is read."""

import math
from dataclasses import dataclass
from typing import Final, Self
from xml.etree import ElementTree as ET

from .spacing import Spacing, in_micrometres

_LONGEST: Final = 64 << 20  # characters of XML


@dataclass(frozen=True, slots=True)
class OmeFacts:
    """`spacing` is None where the header states no length for it; `channels` are names, "" where it has none."""

    spacing: Spacing | None
    channels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The facts of the first `Image` in OME-XML; nothing where the text is not such XML.

        A document type declaration, which OME-XML never has and entity bombs need, counts as no XML at all.
        """
        nothing = cls(None, ())
        if len(text) > _LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
            return nothing
        try:
            root = ET.fromstring(text)  # noqa: S314 - entities are refused above
        except ET.ParseError:
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
