"""The pixel size at which images are analysed, as the setting `resolution` states it."""

import re
from dataclasses import dataclass
from typing import Self

from ..readers.errors import RequestError

_METRES = {"m": 1.0, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "mm": 1e-3, "cm": 1e-2, "km": 1e3}


@dataclass(frozen=True, slots=True)
class Resolution:
    """A pixel size to analyse images at."""

    metres: float | None
    """Size on the ground or on the glass; None for the image's own pixels ("native")."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read "10m", "0.5um" or "native"; "" → None, the annotator's own. Raises `RequestError`.

        >>> Resolution.parse("2cm"), Resolution.parse("native")
        (Resolution(metres=0.02), Resolution(metres=None))
        """
        if not text:
            return None
        if text.strip() == "native":
            return cls(None)
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(m|um|µm|μm|mm|cm|km)\s*", text)
        if not found or float(found[1]) == 0:
            raise RequestError(
                "resolution",
                "must be a positive number with a unit, or native",
                value=text,
                remedy="For example --resolution 10m, --resolution 0.5um or --resolution native",
            )
        return cls(float(found[1]) * _METRES[found[2]])
