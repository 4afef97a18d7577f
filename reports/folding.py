"""A long sheet of slices, folded for a picture: its strips stand side by side, read from left to right.

Only pictures fold. Numbers, and places of findings in all other reports, are those of the sheet as it was analysed.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ..model.finding import Finding
from ..readers.geometry import Box, Points
from ..readers.image import ImageInfo
from .writer import ImageRecord, Overview, Patch


@dataclass(frozen=True, slots=True)
class Fold:
    """`count` strips of `width` × `height` level-0 pixels; one strip leaves the picture as it is."""

    count: int
    width: float
    height: float

    @classmethod
    def of(cls, info: ImageInfo) -> Self:
        """The fold that makes a sheet about square, in strips of as many rows as keep regions whole."""
        width, height = info.size
        if len(info.cells) < 2:  # noqa: PLR2004 - one picture is no sheet
            return cls(1, width, height)
        side = info.cells[0].box.width
        columns, rows = round(width / side), round(height / side)
        wanted = max(1, round(math.sqrt(rows / columns)))
        block = math.ceil(math.ceil(rows / wanted) / columns) * columns
        count = math.ceil(rows / block)
        return cls(count, width, block * side if count > 1 else height)

    def record(self, image: ImageRecord) -> ImageRecord:
        """The image as its picture shows it."""
        if self.count == 1:
            return image
        return replace(
            image,
            info=replace(image.info, size=(round(self.count * self.width), round(self.height))),
            findings=lambda: [piece for finding in image.findings() for piece in self._finding(finding)],
            overview=lambda: self._overview(image.overview()),
            patches=tuple(piece for patch in image.patches for piece in self._patch(patch)),
            interest=None if image.interest is None else self._moved(image.interest),
        )

    def _pieces(self, geometry: BaseGeometry) -> Sequence[BaseGeometry]:
        """A geometry's parts on each strip, moved to where that stands."""
        _, top, _, bottom = geometry.bounds
        first = min(self.count - 1, int(top // self.height))
        last = max(first, min(self.count - 1, math.ceil(bottom / self.height) - 1))
        pieces: list[BaseGeometry] = []
        for strip in range(first, last + 1):
            part = geometry
            if last > first:
                part = geometry.intersection(shapely.box(0, strip * self.height, self.width, (strip + 1) * self.height))
            pieces.append(_shifted(part, strip * self.width, -strip * self.height))
        return [piece for piece in pieces if not piece.is_empty]

    def _moved(self, geometry: BaseGeometry) -> BaseGeometry:
        return shapely.union_all(
            [piece for part in shapely.get_parts(geometry, return_index=False) for piece in self._pieces(part)]
        )

    def _finding(self, finding: Finding) -> Sequence[Finding]:
        return [replace(finding, geometry=piece) for piece in self._pieces(finding.geometry)]

    def _patch(self, patch: Patch) -> Sequence[Patch]:
        box = shapely.box(patch.box.x0, patch.box.y0, patch.box.x1, patch.box.y1)
        return [replace(patch, box=Box(*piece.bounds)) for piece in self._pieces(box)]

    def _overview(self, whole: Overview | None) -> Overview | None:
        if whole is None:
            return None
        high, wide = round(self.height / whole.scale[1]), whole.valid.shape[1]
        pixels = np.full((high, self.count * wide, 3), 255, dtype=np.uint8)
        valid = np.zeros(pixels.shape[:2], dtype=np.bool_)
        readable = np.ones(pixels.shape[:2], dtype=np.bool_)
        for strip in range(self.count):
            top = round(strip * self.height / whole.scale[1])
            here = np.s_[: len(whole.valid[top : top + high]), strip * wide : (strip + 1) * wide]
            pixels[here] = whole.pixels[top : top + high]
            valid[here] = whole.valid[top : top + high]
            readable[here] = whole.readable[top : top + high]
        return Overview(pixels, valid, readable, (whole.scale[0], self.height / high))


def _shifted(geometry: BaseGeometry, x: float, y: float) -> BaseGeometry:
    def shift(xy: Points) -> Points:
        return xy + np.array([x, y])

    return shapely.transform(geometry, shift)
