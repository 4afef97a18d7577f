"""The picture with its findings: fills and outlines by label, and hatching on what was not analysed.

Findings are drawn at twice the size and reduced, which makes edges smooth; masks are exact to the pixel.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from shapely import Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from ...model.finding import Finding
from ...readers.geometry import Box, Points
from ...readers.image import Mask
from ...readers.orientation import UPRIGHT, Orientation
from ...readers.overview import Montage
from ..measures import Shapes, shapes
from ..palette import Palette, rgb
from ..writer import ImageRecord, Overview

Bytes = npt.NDArray[np.uint8]

LONGEST = 1600
"""The long side of a shown picture is at most this many px."""
SHORTEST = 1200
"""A picture whose long side is shorter is enlarged by a whole factor."""
NODATA = ((236, 236, 236), (216, 216, 216))
"""The two greys of the checkerboard on nodata."""
UNREADABLE = (205, 30, 45)
SKIPPED = (130, 134, 140)
"""Colours of the hatching on what could not be read and on what was skipped."""

_SUPERSAMPLING = 2  # drawn pixels per shown pixel
_OUTLINE = 3  # drawn pixels: width of an area's outline, on its inner side
_FILL_ALPHA = 105  # of 255
_SMALLEST = 7.0  # px: boxes and tiles are drawn at least this large
_CODES = 255  # labels that an 8-bit image can tell apart, beside 0


@dataclass(frozen=True, slots=True)
class Canvas:
    """How level-0 pixels map to the shown picture."""

    size: tuple[int, int]
    """(width, height) in px."""
    scale: tuple[float, float]
    """Shown px per level-0 pixel (x, y)."""

    @classmethod
    def of(cls, image: ImageRecord, overview: Overview | None) -> Self:
        """The canvas of an image: its overview's size, reduced to `LONGEST` or enlarged to at least `SHORTEST`."""
        width, height = image.info.size
        shown = (width, height) if overview is None else (overview.pixels.shape[1], overview.pixels.shape[0])
        longest = max(shown)
        factor = LONGEST / longest if longest > LONGEST else max(1, -(-SHORTEST // longest))
        columns, rows = (max(1, round(side * factor)) for side in shown)
        return cls((columns, rows), (columns / width, rows / height))


def on_montage(image: ImageRecord, overview: Overview | None, findings: Sequence[Finding]) -> ImageRecord:
    """The image in the coordinates of its overview: of a stack a montage of slices, with the findings on those.

    A picture of one plane only gets `findings`, and is turned as its overview is.
    """
    montage = None if overview is None else overview.montage
    if overview is not None and overview.orientation != UPRIGHT:
        return _turned(image, overview.orientation, findings)
    if montage is None or len(image.info.planes) == 1:
        return replace(image, findings=lambda: findings)
    width, height = montage.size
    moved = [
        replace(finding, geometry=_moved(finding.geometry, montage, finding.plane))
        for finding in findings
        if montage.place(finding.plane) is not None
    ]
    unanalysed = [
        replace(region, box=Box(*_moved(_polygon(region.box), montage, region.plane).bounds))
        for region in image.unanalysed
        if montage.place(region.plane) is not None
    ]
    roi = None
    if image.roi is not None:
        empty = [divmod(cell, montage.columns) for cell in range(len(montage.planes), montage.columns * montage.rows)]
        cells = [shapely.box(x * width, y * height, (x + 1) * width, (y + 1) * height) for y, x in empty]
        roi = shapely.union_all([*(_moved(image.roi, montage, plane) for plane in montage.planes), *cells])
    info = replace(image.info, size=(montage.columns * width, montage.rows * height))
    return replace(image, info=info, findings=lambda: moved, unanalysed=tuple(unanalysed), roi=roi)


def _turned(image: ImageRecord, orientation: Orientation, findings: Sequence[Finding]) -> ImageRecord:
    """The image in upright pixels; its placement stays that of level-0 pixels."""
    size = image.info.size

    def turn(geometry: BaseGeometry) -> BaseGeometry:
        return shapely.transform(geometry, lambda xy: orientation.to_upright(xy, size))

    unanalysed = [replace(region, box=Box(*turn(_polygon(region.box)).bounds)) for region in image.unanalysed]
    return replace(
        image,
        info=replace(image.info, size=orientation.swap(size)),
        findings=lambda: [replace(finding, geometry=turn(finding.geometry)) for finding in findings],
        unanalysed=tuple(unanalysed),
        roi=None if image.roi is None else turn(image.roi),
    )


def _moved(geometry: BaseGeometry, montage: Montage, plane: int) -> BaseGeometry:
    """A geometry on a slice, in level-0 pixels of the montage."""
    column, row = montage.place(plane) or (0, 0)
    return translate(geometry, column * montage.size[0], row * montage.size[1])


def draw_base(overview: Overview | None, canvas: Canvas) -> Image.Image:
    """The picture without findings: a grey checkerboard on nodata, red hatching where it cannot be read."""
    y, x = np.indices(canvas.size[::-1]) // 10
    checkerboard = Image.fromarray(np.array(NODATA, dtype=np.uint8)[(x + y) % 2])
    if overview is None:
        return hatched(checkerboard, np.ones(canvas.size[::-1], dtype=np.bool_), UNREADABLE)
    resampling = Image.Resampling.BOX if overview.pixels.shape[1] > canvas.size[0] else Image.Resampling.NEAREST
    picture = Image.fromarray(overview.pixels).resize(canvas.size, resampling)
    picture.paste(checkerboard, mask=Image.fromarray(~_resized(overview.valid, canvas.size)))
    return hatched(picture, ~_resized(overview.readable, canvas.size), UNREADABLE)


def draw_findings(base: Image.Image, image: ImageRecord, findings: Sequence[Finding], palette: Palette) -> Image.Image:
    """`base` with hatching on what was not analysed, and the findings on top."""
    scale = (base.width / image.info.size[0], base.height / image.info.size[1])
    skipped, unreadable = unanalysed_masks(image, base.size)
    result = hatched(hatched(base, skipped, SKIPPED), unreadable, UNREADABLE)
    placed = shapely.transform(shapes(findings), lambda xy: xy * scale)
    labels = sorted({finding.label for finding in findings})
    for first in range(0, len(labels), _CODES):
        codes = {label: code for code, label in enumerate(labels[first : first + _CODES], start=1)}
        chosen = [place for place, finding in enumerate(findings) if finding.label in codes]
        _draw_shapes(
            result,
            placed[chosen],
            [codes[findings[place].label] for place in chosen],
            [findings[place].kind == "area" for place in chosen],
            [rgb(palette[label]) for label in codes],
        )
    return result


def unanalysed_masks(image: ImageRecord, size: tuple[int, int]) -> tuple[Mask, Mask]:
    """(skipped, unreadable) of an image's record: masks (H, W) of a picture of `size` (width, height).

    Skipped is what lies outside the region of interest or in a skipped region, and not in an unreadable one.
    """
    scale = (size[0] / image.info.size[0], size[1] / image.info.size[1])
    skipped, unreadable = (
        rasterise(
            shapely.union_all([_polygon(region.box) for region in image.unanalysed if region.status == status]),
            size,
            scale,
        )
        for status in ("skipped", "unreadable")
    )
    if image.roi is not None:
        skipped |= ~rasterise(image.roi, size, scale)
    return skipped & ~unreadable, unreadable


def rasterise(geometry: BaseGeometry, size: tuple[int, int], scale: tuple[float, float]) -> Mask:
    """Which pixels (H, W) have their centre in a valid polygonal geometry: even-odd rule, scan line by scan line.

    `scale` is px per unit of the geometry (x, y).

        ring      x-------x         each edge toggles its row from the first pixel centre right of it on,
        row     . | . . . | .       and the running parity along the row is the mask
        mask    0 0 1 1 1 0 0
    """
    width, height = size
    toggles = np.zeros((height, width + 1), dtype=np.int32)
    for part in shapely.get_parts(geometry):
        for ring in _rings(part):
            xy = ring * scale
            for (x0, y0), (x1, y1) in pairwise(xy):
                top, bottom = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in sorted((y0, y1)))
                if top < bottom:
                    rows = np.arange(top, bottom)
                    crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                    np.add.at(toggles, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)), 1)
    return (np.cumsum(toggles, axis=1)[:, :width] % 2).astype(np.bool_)


def _draw_shapes(
    picture: Image.Image,
    placed: Shapes,
    codes: Sequence[int],
    areas: Sequence[bool],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Draw shapes in shown px onto `picture`; `codes` index `colours` from 1, `areas` are outlined on the inside."""
    size = (picture.width * _SUPERSAMPLING, picture.height * _SUPERSAMPLING)
    fill, line = Image.new("L", size), Image.new("L", size)
    fill_pen, line_pen = ImageDraw.Draw(fill), ImageDraw.Draw(line)
    parts, owner = shapely.get_parts(placed, return_index=True)
    order = np.argsort(-shapely.area(shapely.envelope(parts)), kind="stable")  # what lies inside comes later
    for place in order.tolist():
        part, code, is_area = parts[int(place)], codes[int(owner[place])], areas[int(owner[place])]
        for depth, ring in enumerate(_rings(part) if is_area else [_visible(part)]):
            path = [(float(x), float(y)) for x, y in ring * _SUPERSAMPLING]
            fill_pen.polygon(path, fill=0 if depth else code)
            if not is_area:
                line_pen.line(path, fill=code, width=2 * _SUPERSAMPLING, joint="curve")
    filled, lines = np.asarray(fill), np.asarray(line)
    lines = np.where((lines == 0) & _outlines(filled, _OUTLINE), filled, lines)
    for code, colour in enumerate(colours, start=1):
        picture.paste(colour, mask=_alpha(filled == code, _FILL_ALPHA))
        picture.paste(colour, mask=_alpha(lines == code, 255))


def _rings(part: BaseGeometry) -> Iterator[Points]:
    """A polygon's exterior and then its holes (N, 2); nothing for other geometries."""
    if isinstance(part, Polygon) and not part.is_empty:
        for ring in (part.exterior, *part.interiors):
            yield shapely.get_coordinates(ring)


def _visible(part: BaseGeometry) -> Points:
    """A shape's outline, or a small square where it would be too small to see."""
    x0, y0, x1, y1 = part.bounds
    if max(x1 - x0, y1 - y0) < _SMALLEST:
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, _SMALLEST / 2
        part = shapely.box(x - half, y - half, x + half, y + half)
    return next(_rings(part), np.empty((0, 2)))


def _outlines(codes: Bytes, width: int) -> Mask:
    """Where a code other than 0 lies within `width` pixels of another code, inside the picture."""
    near = np.zeros(codes.shape, dtype=np.bool_)
    for here, marks in ((codes, near), (codes.T, near.T)):
        for step in range(1, width + 1):
            differs = here[step:] != here[:-step]
            marks[step:] |= differs
            marks[:-step] |= differs
    return near & (codes > 0)


def _alpha(mask: Mask, full: int) -> Image.Image:
    """A supersampled mask as opacity at the shown size: `full` where all of a pixel is covered."""
    return Image.fromarray(mask.view(np.uint8) * np.uint8(full)).reduce(_SUPERSAMPLING)


def _polygon(box: Box) -> Polygon:
    return shapely.box(box.x0, box.y0, box.x1, box.y1)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def hatched(
    picture: Image.Image, mask: Mask, colour: tuple[int, int, int], *, pitch: int = 12, width: int = 2
) -> Image.Image:
    """`picture` with diagonal stripes (`width` px of every `pitch`) and a white veil where `mask` is true."""
    result = picture.copy()
    y, x = np.indices(mask.shape)
    stripes = mask & ((x + y) % pitch < width)
    result.paste((255, 255, 255), mask=Image.fromarray(np.where(mask, np.uint8(60), np.uint8(0))))
    result.paste(colour, mask=Image.fromarray(np.where(stripes, np.uint8(215), np.uint8(0))))
    return result
