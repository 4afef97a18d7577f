"""Box formats: the coordinates in which a model was trained to name boxes, converted to the canvas."""

import json
import math
import re
from dataclasses import dataclass
from typing import Literal

from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

Unit = Literal["pixels", "thousandths", "unit"]
"""Pixels of the picture as the network gets it, thousandths of its sides, or 0 to 1."""

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]")
_LIST = re.compile(rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]")
_EMPTY = re.compile(r"^\s*\[?\s*\[\s*\]\s*\]?\s*$")


@dataclass(frozen=True, slots=True)
class BoxFormat:
    """How a model's coordinates lie on the canvas. Corners x0, y0, x1, y1 are edges, the first upper left.

    ::

        ┌─ span ──────────┐   span: the picture that the model gets, in canvas pixels, `size` units wide and high
        │ ┌─ canvas ────┐ │   margin: between the two, for a letterboxed picture
        │ └─────────────┘ │
        └─────────────────┘
    """

    span: tuple[float, float, float, float]
    size: tuple[float, float]
    unit: Unit
    canvas: tuple[float, float] | None = None
    """(width, height) where the picture has a margin, in which no box may lie; else None."""

    @classmethod
    def of(
        cls,
        unit: Unit,
        span: tuple[float, float, float, float],
        pixels: tuple[int, int],
        *,
        canvas: tuple[float, float] | None = None,
    ) -> "BoxFormat":
        """The format of a unit over `span` of the canvas, which the model gets as `pixels` (width, height)."""
        sizes = {"pixels": (float(pixels[0]), float(pixels[1])), "thousandths": (1000.0, 1000.0), "unit": (1.0, 1.0)}
        return cls(span, sizes[unit], unit, canvas)

    @property
    def description(self) -> str:
        """The coordinates in words, for a prompt."""
        if self.unit == "pixels":
            return f"in pixels of the image, which is {self.size[0]:.0f} wide and {self.size[1]:.0f} high"
        top = "1000" if self.unit == "thousandths" else "1"
        return f"in coordinates from 0 to {top} across and from 0 to {top} down"

    @property
    def schema(self) -> str:
        """The JSON schema of an answer: a list of boxes of four coordinates."""
        number: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": int(max(self.size))}
        if self.unit == "unit":
            number = {"type": "number", "minimum": 0, "maximum": 1}
        one = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
        return json.dumps({"type": "array", "items": one, "maxItems": 100})

    def read(self, text: str) -> tuple[list[BaseGeometry], str]:
        """(boxes on the canvas, errors): every box that a text names, unchanged.

        Nothing is clipped, swapped or dropped silently. Errors are boxes without area, outside the picture or in its
        margin, lists of numbers that are no boxes, and a text without boxes that is not an empty list.
        """
        found: list[BaseGeometry] = []
        errors: list[str] = []
        matches = list(_BOX.finditer(text))
        for match in matches:
            x0, y0, x1, y1 = (float(number) for number in match.groups())
            if not all(math.isfinite(number) for number in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
                errors.append(f"{match.group()} has no area")
            elif x0 < 0 or y0 < 0 or x1 > self.size[0] or y1 > self.size[1]:
                errors.append(f"{match.group()} leaves the picture of {self.size[0]:g} × {self.size[1]:g}")
            elif self._in_margin(placed := self._to_canvas(x0, y0, x1, y1)):
                errors.append(f"{match.group()} lies in the margin of the picture")
            else:
                found.append(placed)
        errors += [f"{rest} is no box" for rest in _LIST.findall(_BOX.sub("", text))]
        if not matches and not errors and not _EMPTY.match(text):
            errors.append("no box could be read")
        return found, "; ".join(errors)

    def _in_margin(self, placed: BaseGeometry) -> bool:
        x0, y0, x1, y1 = placed.bounds
        return self.canvas is not None and (x1 <= 0 or y1 <= 0 or x0 >= self.canvas[0] or y0 >= self.canvas[1])

    def _to_canvas(self, x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
        left, top, right, bottom = self.span
        width, height = (right - left) / self.size[0], (bottom - top) / self.size[1]
        return box(left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height)
