"""The picture with findings on it: fills and outlines by label, and plain marks on what was not looked at.

Everything is drawn at twice the size and reduced, which makes edges smooth; nothing depends on the machine.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from ...model.finding import Finding
from ...readers.geometry import Points
from ...readers.image import Mask
from ..measures import Shapes, shapes
from ..palette import Palette, rgb
from ..writer import ImageRecord, Overview

Numbers = npt.NDArray[np.uint8]

LONGEST = 1600
SHORTEST = 1200
"""A picture's long side is shown at no more than `LONGEST` px; one below `SHORTEST` is enlarged by whole pixels."""

NOTHING = ((236, 236, 236), (216, 216, 216))
"""The two greys of the checker where there is no data."""

UNREADABLE = (205, 30, 45)
SKIPPED = (95, 99, 104)
"""Colours of the hatches on what could not be read and on what was skipped."""

_FINE = 2  # pixels drawn per pixel shown
_RIM = 3  # drawn pixels: how wide the outline of an area is, on its inner side
_FILL = 105  # of 255: how much of the label's colour lies on the picture
_SMALL = 7.0  # px: findings that are not areas are drawn at least as large
_MANY = 255  # labels that a map of bytes can tell apart, beside nothing


@dataclass(frozen=True, slots=True)
class Canvas:
    """How level-0 pixels meet the shown picture: `size` (width, height) px, `scale` shown px a level-0 pixel (x, y)."""

    size: tuple[int, int]
    scale: tuple[float, float]

    @classmethod
    def of(cls, image: ImageRecord, overview: Overview | None) -> "Canvas":
        """The canvas for an image: its overview's pixels, reduced to `LONGEST` or enlarged above `SHORTEST`."""
        width, height = image.info.size
        shown = (width, height) if overview is None else (overview.pixels.shape[1], overview.pixels.shape[0])
        longest = max(shown)
        factor = LONGEST / longest if longest > LONGEST else max(1, -(-SHORTEST // longest))
        columns, rows = (max(1, round(side * factor)) for side in shown)
        return cls((columns, rows), (columns / width, rows / height))


def draw_base(overview: Overview | None, canvas: Canvas) -> Image.Image:
    """The picture without findings: a grey checker where there is no data, red hatches where it cannot be read."""
    empty = Image.fromarray(_checker(canvas.size))
    if overview is None:
        return _hatched(empty, np.ones(canvas.size[::-1], dtype=np.bool_), UNREADABLE)
    smooth = Image.Resampling.BOX if overview.pixels.shape[1] > canvas.size[0] else Image.Resampling.NEAREST
    picture = Image.fromarray(overview.pixels).resize(canvas.size, smooth)
    picture.paste(empty, mask=Image.fromarray(~_resized(overview.valid, canvas.size)))
    return _hatched(picture, ~_resized(overview.readable, canvas.size), UNREADABLE)


def draw_findings(
    picture: Image.Image, image: ImageRecord, findings: Sequence[Finding], palette: Palette
) -> Image.Image:
    """`picture` with the image's findings, its regions that were not analysed, and its area of interest."""
    scale = (picture.width / image.info.size[0], picture.height / image.info.size[1])
    result = _marked(picture, image, scale)
    placed = shapely.transform(shapes(findings), lambda xy: xy * scale)
    labels = sorted({finding.label for finding in findings})
    for first in range(0, len(labels), _MANY):
        some = labels[first : first + _MANY]
        chosen = [place for place, finding in enumerate(findings) if finding.label in set(some)]
        codes = np.array([some.index(findings[place].label) + 1 for place in chosen], dtype=np.int64)
        kinds = np.array([findings[place].kind == "area" for place in chosen], dtype=np.bool_)
        _colour(result, placed[chosen], codes, kinds, [rgb(palette[label]) for label in some])
    return result


def _colour(
    picture: Image.Image,
    placed: Shapes,
    codes: npt.NDArray[np.int64],
    areas: Mask,
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Paint shapes in shown pixels; `codes` are their colours from 1, `areas` says which were traced from a map."""
    size = (picture.width * _FINE, picture.height * _FINE)
    fill = Image.new("L", size)
    line = Image.new("L", size)
    fill_pen, line_pen = ImageDraw.Draw(fill), ImageDraw.Draw(line)
    parts, owner = shapely.get_parts(placed, return_index=True)
    order = np.argsort(-shapely.area(shapely.envelope(parts)), kind="stable")  # what lies inside is painted later
    for place in order:
        code, is_area = int(codes[owner[place]]), bool(areas[owner[place]])
        for depth, ring in enumerate(_rings(parts[int(place)]) if is_area else [_at_least(parts[int(place)])]):
            way = [(float(x), float(y)) for x, y in ring * _FINE]
            fill_pen.polygon(way, fill=0 if depth else code)
            if not is_area:
                line_pen.line(way, fill=code, width=2 * _FINE, joint="curve")
    covered, lines = np.asarray(fill), np.asarray(line).copy()
    rim = _rim(covered, _RIM)
    lines = np.where((lines == 0) & rim, covered, lines)
    for code, colour in enumerate(colours, start=1):
        picture.paste(colour, mask=_share(covered == code, _FILL))
        picture.paste(colour, mask=_share(lines == code, 255))


def _marked(picture: Image.Image, image: ImageRecord, scale: tuple[float, float]) -> Image.Image:
    result = picture.copy()
    for status, colour in (("skipped", SKIPPED), ("unreadable", UNREADABLE)):
        where = Image.new("L", picture.size)
        pen = ImageDraw.Draw(where)
        for patch in image.unanalysed:
            if patch.status == status:
                box = patch.box
                x0, x1 = (round(x * scale[0]) for x in (box.x0, box.x1))
                y0, y1 = (round(y * scale[1]) for y in (box.y0, box.y1))
                pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), fill=255)
        result = _hatched(result, np.asarray(where) > 0, colour)
    if image.roi is None:
        return result
    outside = Image.new("L", picture.size, 255)
    pen = ImageDraw.Draw(outside)
    rings = [(depth, ring * scale) for part in shapely.get_parts(image.roi) for depth, ring in enumerate(_rings(part))]
    for depth, ring in rings:
        pen.polygon([(float(x), float(y)) for x, y in ring], fill=255 if depth else 0)
    result.paste((255, 255, 255), mask=outside.point([value * 150 // 255 for value in range(256)]))
    pen = ImageDraw.Draw(result)
    for _, ring in rings:
        way = [(float(x), float(y)) for x, y in ring]
        pen.line(way, fill=(0, 0, 0), width=4, joint="curve")
        pen.line(way, fill=(255, 255, 255), width=2, joint="curve")
    return result


def _rings(part: BaseGeometry) -> Iterator[Points]:
    """A polygon's exterior and then its holes (N, 2); nothing for what is no polygon."""
    if isinstance(part, Polygon) and not part.is_empty:
        for ring in (part.exterior, *part.interiors):
            yield shapely.get_coordinates(ring)


def _at_least(part: BaseGeometry) -> Points:
    """A shape's outline, or a small square where it would be too small to see."""
    x0, y0, x1, y1 = part.bounds
    if max(x1 - x0, y1 - y0) < _SMALL:
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, _SMALL / 2
        part = shapely.box(x - half, y - half, x + half, y + half)
    return next(_rings(part), np.empty((0, 2)))


def _rim(codes: Numbers, width: int) -> Mask:
    """Where a code other than 0 lies within `width` pixels of another code, inside the picture."""
    inner = np.zeros(codes.shape, dtype=np.bool_)
    for axis in (0, 1):
        for step in range(1, width + 1):
            differs = np.take(codes, range(step, codes.shape[axis]), axis) != np.take(
                codes, range(codes.shape[axis] - step), axis
            )
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(codes.shape[axis] - step)
            inner[tuple(ahead)] |= differs
            inner[tuple(behind)] |= differs
    return inner & (codes > 0)


def _share(where: Mask, full: int) -> Image.Image:
    """A mask at the shown size: `full` where all of a pixel is meant, less where a part of it is."""
    return Image.fromarray(where.view(np.uint8) * np.uint8(full)).reduce(_FINE)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _checker(size: tuple[int, int], side: int = 10) -> Numbers:
    y, x = np.indices((size[1], size[0])) // side
    return np.array(NOTHING, dtype=np.uint8)[(x + y) % 2]


def hatch(size: tuple[int, int], pitch: int = 14, width: int = 4) -> Mask:
    """Diagonal stripes (H, W): `width` px of every `pitch` px."""
    y, x = np.indices((size[1], size[0]))
    return (x + y) % pitch < width


def _hatched(picture: Image.Image, where: Mask, colour: tuple[int, int, int]) -> Image.Image:
    if not where.any():
        return picture
    result = picture.copy()
    stripes = np.where(where & hatch(picture.size), np.uint8(215), np.uint8(0))
    veil = np.where(where, np.uint8(60), np.uint8(0))
    result.paste((255, 255, 255), mask=Image.fromarray(veil))
    result.paste(colour, mask=Image.fromarray(stripes))
    return result
