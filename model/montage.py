"""Montages: slices of a stack side by side in one picture, each in a tile of its own, as a model is shown them.

┌───────┬───────┬───────┐
│1      │2      │3      │   Slices follow in the order of the stack, row by row, numbered from 1 at the upper left of
│R      │R      │R      │   each cell. The letter is the side of the patient at the left of a slice, where it lies in
├───────┼───────┼───────┤   the patient. A page has as many cells as a region may have tiles; those after the last slice
│4      │5      │       │   are empty. A cell is as high and wide as the longer side of a slice, and is shown in a tile.
│R      │R      │       │
└───────┴───────┴───────┘   page, in level-0 pixels: cells side by side from (0, 0)
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import shapely
from shapely.affinity import translate

from ..readers.geometry import Box, Placement
from ..readers.image import Channel, Image, ImageInfo, Mask, Pixels
from .finding import Finding

MAX_ENLARGEMENT = 16
_MOSTLY = 0.9  # of a geometry: the part in one slice from which it belongs to that slice alone
_LETTERS = ("R", "A", "I")  # sides of the patient towards which x, y and z of LPS decrease


@dataclass(frozen=True, slots=True)
class StackMontage:
    """How the slices of a stack are laid out on pages."""

    planes: tuple[int, ...]
    """The slices, from 0, in order."""
    columns: int
    """Cells in a row of a page."""
    rows: int
    cell: tuple[int, int]
    """(width, height) of a cell in level-0 pixels."""
    size: tuple[int, int]
    """(width, height) of a slice."""

    @classmethod
    def of(
        cls, planes: Sequence[int], size: tuple[int, int], pixel: tuple[float, float], *, tile: int, cells: int
    ) -> Self:
        """The layout of slices of `size` with pixels of `pixel` (x, y) in any unit, with at most `cells` to a page."""
        side = max(size[0] * pixel[0], size[1] * pixel[1], tile * min(pixel) / MAX_ENLARGEMENT)
        most = math.isqrt(cells)
        columns = min(most, math.ceil(math.sqrt(len(planes))))
        rows = min(most, math.ceil(len(planes) / columns))
        return cls(tuple(planes), columns, rows, (math.ceil(side / pixel[0]), math.ceil(side / pixel[1])), size)

    @property
    def pages(self) -> int:
        """Number of pages."""
        return math.ceil(len(self.planes) / (self.columns * self.rows))

    @property
    def page_size(self) -> tuple[int, int]:
        """(width, height) of a page in level-0 pixels."""
        return self.columns * self.cell[0], self.rows * self.cell[1]

    def scale(self, tile: int) -> tuple[float, float]:
        """Level-0 pixels (x, y) per pixel of the analysis, in which a cell is a tile."""
        return self.cell[0] / tile, self.cell[1] / tile

    def on_page(self, page: int) -> tuple[int, ...]:
        """The slices of a page, from 0."""
        cells = self.columns * self.rows
        return self.planes[page * cells : (page + 1) * cells]

    def corners(self, page: int) -> Iterator[tuple[int, int, int]]:
        """(slice, x, y) of each slice on a page: its upper left corner in level-0 pixels of the page."""
        for place, plane in enumerate(self.on_page(page)):
            row, column = divmod(place, self.columns)
            yield plane, column * self.cell[0], row * self.cell[1]

    def to_slices(self, finding: Finding) -> Finding:
        """A finding on a page as one on a slice, in level-0 pixels of the slice.

        It belongs to the slice that has most of it, and is cut to that slice. One that is about a whole page, or lies
        on no slice, belongs to the first slice of the page, of which it has all. A note `slices` lists the slices that
        it may be about where these are several.
        """
        width, height = self.size
        shares: list[tuple[float, int, Any]] = []
        for plane, x, y in self.corners(finding.plane) if finding.kind != "region" else ():
            part = translate(finding.geometry, -x, -y).intersection(shapely.box(0, 0, width, height))
            if part.area > 0:
                shares.append((part.area, plane, part))
        planes = self.on_page(finding.plane)
        if not shares:
            geometry, plane, several = shapely.box(0, 0, width, height), planes[0], planes
        else:
            area, plane, geometry = max(shares, key=lambda share: (share[0], -share[1]))
            several = () if area >= _MOSTLY * sum(share[0] for share in shares) else [share[1] for share in shares]
        numbers = dict(finding.numbers)
        if "valid" in numbers:  # of the cell, or of the page, of which parts lie in no slice
            count = len(planes) if not shares else 1
            numbers["valid"] = min(1.0, numbers["valid"] * finding.geometry.area / (geometry.area * count))
        notes = {**finding.notes, **({"slices": _numbers(several)} if len(several) > 1 else {})}
        return replace(finding, geometry=geometry, plane=plane, cut=False, window=None, numbers=numbers, notes=notes)


def _numbers(planes: Sequence[int]) -> str:
    """Slices, from 0, as numbers from 1: a range where they follow each other."""
    numbers = [plane + 1 for plane in planes]
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


class MontageImage:
    """An open image of a stack, whose planes are the pages of a montage."""

    def __init__(self, image: Image, montage: StackMontage) -> None:
        self._image, self.montage = image, montage

    @property
    def info(self) -> ImageInfo:
        """The stack's."""
        return self._image.info

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The stack's."""
        return self._image.channels

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> tuple[Pixels, Mask]:
        """See `Image.read`; `plane` is a page. What lies in no slice is invalid."""
        step = box.width / size[0], box.height / size[1]
        pixels = np.zeros((size[1], size[0], len(self.channels)), dtype=self.channels[0].dtype)
        valid = np.zeros((size[1], size[0]), dtype=np.bool_)
        for number, x, y in self.montage.corners(plane):
            left, right = _inside(box.x0, step[0], size[0], x, x + self.montage.cell[0])
            top, bottom = _inside(box.y0, step[1], size[1], y, y + self.montage.cell[1])
            if left < right and top < bottom:
                x0, x1 = (box.x0 + edge * step[0] - x for edge in (left, right))
                y0, y1 = (box.y0 + edge * step[1] - y for edge in (top, bottom))
                part = np.s_[top:bottom, left:right]
                pixels[part], valid[part] = self._image.read(Box(x0, y0, x1, y1), (right - left, bottom - top), number)
        return pixels, valid

    def draw_marks(self, canvas: npt.NDArray[np.uint8], box: Box, page: int) -> npt.NDArray[np.uint8]:
        """The rendering (H, W, 3) of a box of a page with the number of each slice, and the side at its left."""
        from PIL import Image as Picture
        from PIL import ImageDraw, ImageFont

        height, width = canvas.shape[:2]
        step = box.width / width, box.height / height
        tall = max(8, round(self.montage.cell[1] / step[1] / 18))
        picture = Picture.fromarray(canvas)
        pen, font = ImageDraw.Draw(picture), ImageFont.load_default(tall)
        for number, x, y in self.montage.corners(page):
            left, top = (x - box.x0) / step[0] + tall / 4, (y - box.y0) / step[1]
            middle = top + self.montage.size[1] / step[1] / 2
            texts = (str(number + 1), (left, top)), (left_side(self.info.planes[number].placement), (left, middle))
            for text, place in texts:
                pen.text(place, text, (255, 255, 255), font, stroke_width=1, stroke_fill=(0, 0, 0))
        return np.asarray(picture)

    def close(self) -> None:
        """Release the stack."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def left_side(placement: Placement) -> str:
    """The side of the patient at the left of a slice: L, R, A, P, S or I by the closest axis; "" where not known."""
    if placement.unit != "mm" or len(placement.matrix) != 3:
        return ""
    along = np.array(placement.matrix)[:, 0]
    axis = int(np.argmax(np.abs(along)))
    opposite = {"R": "L", "A": "P", "I": "S"}
    return _LETTERS[axis] if along[axis] > 0 else opposite[_LETTERS[axis]]


def _inside(start: float, step: float, count: int, low: float, high: float) -> tuple[int, int]:
    """Which of `count` pixels from `start` on have their centres in `low` to `high`: (first, after the last)."""
    first, last = (math.ceil((edge - start) / step - 0.5 - 1e-9) for edge in (low, high))
    return min(max(first, 0), count), min(max(last, 0), count)
