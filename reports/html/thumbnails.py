"""Parts of an image that a model's words are about: read from the image where its picture on the page is too coarse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ...readers.geometry import Box
from ..overview.painting import Canvas, draw_base
from ..writer import ImageRecord
from .pictures import PagePicture, embed

LONGEST: Final = 480
"""Pixels on the long side of a part, which a page shows at half of that."""
MOST_PARTS: Final = 1000
_MOST_BYTES: Final = 40 << 10
_ENOUGH: Final = 0.75  # of what the image could show at `LONGEST`: then the picture is not read again


@dataclass(frozen=True, slots=True)
class Worded:
    """A part of an image, with the findings that have its bounds and a model's words."""

    plane: int
    box: Box
    """In level-0 pixels."""
    rows: tuple[int, ...]
    """Places of the findings among those of the page."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part as the template takes it."""

    rows: str
    """Places of the findings among those of the page, separated by blanks."""
    picture: PagePicture


def coarse_parts(worded: Sequence[Worded], coarseness: float) -> list[Worded]:
    """Those that a picture with `coarseness` level-0 pixels per pixel shows less of than the image has."""
    return [
        one
        for one in worded
        if max(one.box.width, one.box.height) / coarseness < _ENOUGH * min(LONGEST, max(one.box.width, one.box.height))
    ]


def read_parts(image: ImageRecord, parts: Sequence[Worded]) -> Iterator[Part]:
    """Each part, read from the image and embedded; without those that cannot be read any more."""
    if image.part_pictures is None or not parts:
        return
    pictures = image.part_pictures([(one.plane, one.box) for one in parts], LONGEST)
    for one, found in zip(parts, pictures, strict=True):
        if found is not None:
            height, width = found.valid.shape
            painted = draw_base(replace(found, montage=None), Canvas((width, height), (1.0, 1.0)))
            yield Part(" ".join(map(str, one.rows)), embed(painted, "", _MOST_BYTES))
