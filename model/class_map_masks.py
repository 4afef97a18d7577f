"""What a mask, such as one of cloud, does to answers: boxes are left out, or each states how much of it is masked."""

# rasterio has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from shapely.affinity import translate

from ..readers.image import Mask
from .annotator import Answer, View
from .tiling import join_tiles
from .views import to_canvas_mask


def mask_answers(view: View, answers: Sequence[Answer]) -> list[Answer]:
    """A view's answers under its mask.

    Where that is excluded, boxes are left out whose centre is masked: areas and tiles keep to `View.keep_mask`. Else
    areas have the number "masked_pixels", which adds up when areas are merged, and other answers the share "masked".
    """
    if view.masked is None or not answers:
        return list(answers)
    masked = to_canvas_mask(view.masked.pixels, view)
    if view.masked.exclude:
        return [one for one in answers if one.kind != "box" or not _at_centre(one, masked)]
    counted = _counts(answers, masked, join_tiles(view.valid, view.grid), view.keep_mask)
    return [_flagged(one, *counts) for one, counts in zip(answers, counted, strict=True)]


def _at_centre(answer: Answer, masked: Mask) -> bool:
    """Whether the centre of an answer's bounds is masked."""
    if answer.geometry is None:
        return False
    x0, y0, x1, y1 = answer.geometry.bounds
    row, column = (
        min(max(0, math.floor(middle)), side - 1)
        for middle, side in zip(((y0 + y1) / 2, (x0 + x1) / 2), masked.shape, strict=True)
    )
    return bool(masked[row, column])


def _flagged(answer: Answer, pixels: int, whole: int) -> Answer:
    number = {"masked_pixels": float(pixels)}
    if answer.kind != "area":
        number = {"masked": round(pixels / whole, 6) if whole else 0.0}
    return replace(answer, numbers={**answer.numbers, **number})


def _counts(answers: Sequence[Answer], masked: Mask, valid: Mask, keep: Mask) -> Iterator[tuple[int, int]]:
    """(masked valid pixels, valid pixels) of each answer; one without a geometry stands for what a region keeps."""
    from rasterio.features import rasterize

    areas = [one.geometry if one.kind == "area" else None for one in answers]
    numbers = np.zeros(masked.shape, dtype=np.int32)
    shapes = [(shape, number) for number, shape in enumerate(areas, 1) if shape is not None]
    if shapes:  # areas of a class map do not overlap
        rasterize(shapes, out=numbers)
    under = np.bincount(numbers[masked & valid], minlength=len(answers) + 1)
    every = np.bincount(numbers[valid], minlength=len(answers) + 1)
    for number, (answer, area) in enumerate(zip(answers, areas, strict=True), 1):
        if area is not None:
            yield int(under[number]), int(every[number])
        elif answer.geometry is None:
            yield int((masked & keep).sum()), int(keep.sum())
        else:
            x0, y0, x1, y1 = answer.geometry.bounds
            (left, top), (right, bottom) = (math.floor(x0), math.floor(y0)), (math.ceil(x1), math.ceil(y1))
            window = np.s_[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
            part = masked[window]
            if not part.size:
                yield 0, 0
                continue
            moved = translate(answer.geometry, -max(0, left), -max(0, top))
            inside = np.zeros(part.shape, dtype=np.uint8)
            for narrow in (False, True):  # one that is narrower than a pixel is all the pixels that it touches
                if not inside.any():
                    rasterize([(moved, 1)], out=inside, all_touched=narrow)
            counted = (inside > 0) & valid[window]
            yield int((part & counted).sum()), int(counted.sum())
