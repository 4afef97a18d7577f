"""Box formats: the coordinates in which a model was trained to name boxes, converted to the canvas.

A model is asked for a JSON list of boxes, and may answer in the form of its family:

=====================================  ===================================================  ==========================
form                                   coordinates                                          written by
=====================================  ===================================================  ==========================
`"bbox_2d": [x0, y0, x1, y1]`          those that were asked for                            Qwen2.5-VL, Qwen3-VL
`"box_2d": [y0, x0, y1, x1]`           thousandths                                          Gemini, MedGemma 1.5
`<box>(x0,y0),(x1,y1)</box>`           thousandths                                          Qwen-VL, Qwen2-VL, InternVL
`<loc0123>` four times: y0 x0 y1 x1    of 1024                                              PaliGemma
`<|det|>[[x0, y0, x1, y1]]<|/det|>`    of 999                                               DeepSeek-VL2
=====================================  ===================================================  ==========================
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

Unit = Literal["pixels", "thousandths", "unit", "thousandths-yx"]
"""Pixels of the picture as the network gets it, thousandths of its sides, or 0 to 1; or thousandths with y first."""
_Y_FIRST: Final[Unit] = "thousandths-yx"

MAX_BOXES: Final = 100  # of one answer: a model that names more repeats itself

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_QUAD = rf"[\[(]\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*[\])]"
_PAIRS = rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*,\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)"
_BOX = re.compile(
    rf"""(?P<loc>(?:<loc\d{{4}}>){{4}})
    |<\|det\|>(?P<det>[^<]*)<\|/det\|>
    |(?:<box>|<\|box_start\|>)(?P<box>[^<]*)(?:</box>|<\|box_end\|>)
    |"(?P<key>bbox_2d|box_2d)"\s*:\s*(?P<value>\[[^\[\]]*\])
    |(?P<plain>{_QUAD})""",
    re.VERBOSE,
)
_ONE = re.compile(rf"{_QUAD}|{_PAIRS}")
_LIST = re.compile(rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]")
_EMPTY = re.compile(r'^\s*(?:\{\s*"boxes"\s*:)?\s*\[?\s*\[\s*\]\s*\]?\s*\}?\s*$')
_NEAR = 300  # characters between a box and its name
_NAME = re.compile(r'"label"\s*:\s*"([^"]{0,200})"')
_REFERENCE = re.compile(r"<\|?(?:ref|object_ref_start)\|?>([^<]{0,200})<\|?/?(?:ref|object_ref_end)\|?>\s*$")

_FORM_NAMES: Final = {"loc": "<loc>", "det": "<|det|>", "box": "<box>", "plain": ""}
_OWN_UNITS: Final = {
    "<loc>": ((1024.0, 1024.0), True),
    "<|det|>": ((999.0, 999.0), False),
    "<box>": ((1000.0, 1000.0), False),
    "box_2d": ((1000.0, 1000.0), True),
}
"""Forms whose coordinates are the same in all families that write them: (units across and down, whether y is first)."""
_AGREES: Final = {"<box>": ("", "thousandths"), "box_2d": ("", _Y_FIRST), "bbox_2d": ("pixels", "thousandths", "unit")}
"""The units to ask for which do not contradict a form, which a model may also write with the numbers asked for."""


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box that a text names."""

    geometry: BaseGeometry
    """On the canvas."""
    form: str = ""
    """The family's form in which it was written, "" for a list of numbers as asked for."""
    name: str = ""
    """What the text itself says that it is; "" where it says nothing."""


@dataclass(frozen=True, slots=True)
class BoxFormat:
    """How a model's coordinates lie on the canvas. Corners are edges, the first upper left.

    ::

        ┌─ span ──────────┐   span: the picture that the model gets, in canvas pixels, `size` units wide and high
        │ ┌─ canvas ────┐ │   margin: between the two, for a letterboxed picture
        │ └─────────────┘ │
        └─────────────────┘
    """

    span: tuple[float, float, float, float]
    size: tuple[float, float]
    unit: Unit | Literal[""]
    """"" where it is not known: then only forms that state their own coordinates are placed."""
    canvas: tuple[float, float] | None = None
    """(width, height) where the picture has a margin, in which no box may lie; else None."""

    @classmethod
    def of(
        cls,
        unit: Unit | Literal[""],
        span: tuple[float, float, float, float],
        pixels: tuple[int, int],
        *,
        canvas: tuple[float, float] | None = None,
    ) -> "BoxFormat":
        """The format of a unit over `span` of the canvas, which the model gets as `pixels` (width, height)."""
        sizes = {"pixels": (float(pixels[0]), float(pixels[1])), "unit": (1.0, 1.0)}
        return cls(span, sizes.get(unit, (1000.0, 1000.0)), unit, canvas)

    @property
    def request(self) -> str:
        """What a prompt says of the form of the answer."""
        if not self.unit:
            return "Answer with the bounding box of each in the form that you were trained to write"
        if self.unit == "pixels":
            where = f"in pixels of the image, which is {self.size[0]:.0f} wide and {self.size[1]:.0f} high"
        else:
            top = f"{self.size[0]:.0f}"
            where = f"in coordinates from 0 to {top} across and from 0 to {top} down"
        corners = "[y0, x0, y1, x1]" if self.unit == _Y_FIRST else "[x0, y0, x1, y1]"
        return f"Answer with a JSON list of boxes {corners}, {where}"

    @property
    def schema(self) -> str:
        """The JSON schema of an answer, a list of boxes of four coordinates; "" where the unit is not known."""
        if not self.unit:
            return ""
        number: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": int(max(self.size))}
        if self.unit == "unit":
            number = {"type": "number", "minimum": 0, "maximum": 1}
        one = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
        return json.dumps({"type": "array", "items": one, "maxItems": MAX_BOXES})

    def read(self, text: str) -> tuple[list[PlacedBox], str]:
        """(boxes, errors): every box that a text names, unchanged, in any form.

        Nothing is clipped, swapped or dropped silently. Errors are boxes without area, outside the picture or in its
        margin, in coordinates that are not known or contradict those that were asked for, lists of numbers that are no
        boxes, a text without boxes that is not an empty list, and more than `MAX_BOXES`.
        """
        found: list[PlacedBox] = []
        errors: list[str] = []
        matches = list(_BOX.finditer(text))
        count = sum(1 for _ in _ONE.finditer(text))
        if max(count, len(matches)) > MAX_BOXES:
            return [], f"{max(count, len(matches))} boxes are more than {MAX_BOXES}"
        for match in matches:
            kind = match.lastgroup or ""
            form = match["key"] if kind == "value" else _FORM_NAMES[kind]
            parts = [one.group() for one in _ONE.finditer(match.group())] if kind != "loc" else [match.group()]
            if not parts:
                errors.append(f"a {form} holds no box")
            name = _named(text, match)
            for part in parts:
                placed = self._place(part, form)
                if isinstance(placed, str):
                    errors.append(f"{part} {placed}")
                else:
                    found.append(PlacedBox(placed, form, name))
        errors += [f"{rest} is no box" for rest in _LIST.findall(_BOX.sub("", text))]
        if not matches and not errors and not _EMPTY.match(text):
            errors.append("no box could be read")
        return found, "; ".join(errors)

    def _place(self, part: str, form: str) -> BaseGeometry | str:
        """A box on the canvas, or why it has no place there."""
        numbers = [float(number) for number in re.findall(_NUMBER, part)]
        size, y_first = _OWN_UNITS.get(form, (self.size, self.unit == _Y_FIRST))
        if self.unit not in _AGREES.get(form, (self.unit,)) or (not self.unit and form not in _OWN_UNITS):
            return self._unit_error(form)
        y0, x0, y1, x1 = numbers if y_first else (numbers[1], numbers[0], numbers[3], numbers[2])
        if not all(math.isfinite(number) for number in numbers) or x1 <= x0 or y1 <= y0:
            return "has no area"
        if x0 < 0 or y0 < 0 or x1 > size[0] or y1 > size[1]:
            return f"leaves the picture of {size[0]:g} × {size[1]:g}"
        placed = self._to_canvas((x0, y0, x1, y1), size)
        return "lies in the margin of the picture" if self._in_margin(placed) else placed

    def _unit_error(self, form: str) -> str:
        """Why a form's coordinates are not known: nothing states them, or they contradict those that were asked for."""
        options = "--set model_options.boxes="
        if not self.unit:
            return (
                f"has coordinates that nothing states: {options}pixels for Qwen2.5-VL, thousandths for Qwen3-VL and "
                f"InternVL, {_Y_FIRST} for Gemini and MedGemma, or as the model's own page says"
            )
        own = "y first, in thousandths" if form == "box_2d" else "thousandths" if form == "<box>" else "x first"
        remedy = f"{options}{_Y_FIRST if form == 'box_2d' else 'thousandths'}" if form in _OWN_UNITS else "leave it out"
        return f"is {form}, whose coordinates are {own}, but {self.unit} were asked for: {remedy}"

    def _in_margin(self, placed: BaseGeometry) -> bool:
        x0, y0, x1, y1 = placed.bounds
        return self.canvas is not None and (x1 <= 0 or y1 <= 0 or x0 >= self.canvas[0] or y0 >= self.canvas[1])

    def _to_canvas(self, corners: tuple[float, float, float, float], size: tuple[float, float]) -> BaseGeometry:
        left, top, right, bottom = self.span
        width, height = (right - left) / size[0], (bottom - top) / size[1]
        x0, y0, x1, y1 = corners
        return box(left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height)


def _named(text: str, match: re.Match[str]) -> str:
    """What a text says that a box is: the label beside it in its JSON object, or the reference before it."""
    reference = _REFERENCE.search(text, max(0, match.start() - _NEAR), match.start())
    if reference:
        return reference[1].strip()
    if match.lastgroup != "value":
        return ""
    start = text.rfind("{", max(0, match.start() - _NEAR), match.start())
    end = text.find("}", match.end(), match.end() + _NEAR)
    label = _NAME.search(text, start, end) if 0 <= start < end else None
    return label[1].strip() if label else ""
