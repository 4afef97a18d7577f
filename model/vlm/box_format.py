"""Rulers: the coordinates in which a model was trained to name boxes, and their way to the canvas."""

import json
import math
import re
from dataclasses import dataclass
from typing import Literal

from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

Unit = Literal["pixels", "thousandths", "unit"]

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]")
_LIST = re.compile(rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]")
_EMPTY = re.compile(r"^\s*\[?\s*\[\s*\]\s*\]?\s*$")


@dataclass(frozen=True, slots=True)
class BoxFormat:
    """How a model's numbers lie on the canvas: `span` (x0, y0, x1, y1) of the canvas is `size` (width, height) units.

    `unit` says what they are: "pixels" of the picture that the model was shown, "thousandths" of its sides, or
    "unit" for 0 to 1. The first corner is upper left; edges, not centres. `within` (width, height) is the canvas, where
    the picture that was shown has a margin around it: nothing can lie in the margin alone.
    """

    span: tuple[float, float, float, float]
    size: tuple[float, float]
    unit: Unit
    within: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        unit: Unit,
        span: tuple[float, float, float, float],
        pixels: tuple[int, int],
        *,
        within: tuple[float, float] | None = None,
    ) -> "BoxFormat":
        """The ruler of a unit over `span` of the canvas, which the model sees as `pixels` (width, height)."""
        sizes = {"pixels": (float(pixels[0]), float(pixels[1])), "thousandths": (1000.0, 1000.0), "unit": (1.0, 1.0)}
        return cls(span, sizes[unit], unit, within)

    @property
    def words(self) -> str:
        """What a prompt says of the coordinates."""
        if self.unit == "pixels":
            return f"in pixels of the image, which is {self.size[0]:.0f} wide and {self.size[1]:.0f} high"
        top = "1000" if self.unit == "thousandths" else "1"
        return f"in coordinates from 0 to {top} across and from 0 to {top} down"

    @property
    def schema(self) -> str:
        """The JSON schema of an answer: a list of boxes, each four numbers within the ruler."""
        limit: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": int(max(self.size))}
        if self.unit == "unit":
            limit = {"type": "number", "minimum": 0, "maximum": 1}
        one = {"type": "array", "items": limit, "minItems": 4, "maxItems": 4}
        return json.dumps({"type": "array", "items": one, "maxItems": 100})

    def read(self, text: str) -> tuple[list[BaseGeometry], str]:
        """(boxes on the canvas, what is wrong): every box that a text names, exactly where it says.

        Nothing is clipped, swapped or dropped in silence: where a box has no area, leaves the picture or lies in its
        margin, where a list of numbers is no box, or the text names none and is not an empty list, the second part says
        so.
        """
        found: list[BaseGeometry] = []
        wrong: list[str] = []
        matches = list(_BOX.finditer(text))
        for match in matches:
            x0, y0, x1, y1 = (float(number) for number in match.groups())
            if not all(math.isfinite(number) for number in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
                wrong.append(f"{match.group()} has no area")
            elif x0 < 0 or y0 < 0 or x1 > self.size[0] or y1 > self.size[1]:
                wrong.append(f"{match.group()} leaves the picture of {self.size[0]:g} × {self.size[1]:g}")
            elif (laid := self._lay(x0, y0, x1, y1)) and self._in_margin(laid):
                wrong.append(f"{match.group()} lies in the margin of the picture")
            else:
                found.append(laid)
        wrong += [f"{rest} is no box" for rest in _LIST.findall(_BOX.sub("", text))]
        if not matches and not wrong and not _EMPTY.match(text):
            wrong.append("no box could be read")
        return found, "; ".join(wrong)

    def _in_margin(self, laid: BaseGeometry) -> bool:
        x0, y0, x1, y1 = laid.bounds
        return self.within is not None and (x1 <= 0 or y1 <= 0 or x0 >= self.within[0] or y0 >= self.within[1])

    def _lay(self, x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
        left, top, right, bottom = self.span
        width, height = (right - left) / self.size[0], (bottom - top) / self.size[1]
        return box(left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height)
