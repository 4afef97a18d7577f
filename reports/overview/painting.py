"""The picture with its findings: fills and outlines by label, and hatching on what was not analysed.

Findings are drawn at twice the size and reduced, which makes edges smooth; masks are exact to the pixel.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Self, cast

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw
from shapely import Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from ...model.findings_table import BATCH, FindingsTable
from ...readers.geometry import Box, Points
from ...readers.image import Mask
from ...readers.orientation import UPRIGHT, Orientation
from ...readers.overview import Montage
from ...readers.regions import Region
from ..measures import Shapes
from ..palette import Palette, rgb
from ..writer import ImageRecord, Overview
from .size import LONGEST, SHORTEST, SUPERSAMPLING, shown_size

Bytes = npt.NDArray[np.uint8]

NODATA = ((236, 236, 236), (216, 216, 216))
"""The two greys of the checkerboard on nodata."""
UNREADABLE = (205, 30, 45)
SKIPPED = (130, 134, 140)
"""Colours of the hatching on what could not be read and on what was skipped."""

SMALLEST = 7.0
"""Pixels of the side of the smallest shape that is drawn: a smaller one is drawn as a square of it."""

_OUTLINE = 3  # drawn pixels: width of an area's outline, on its inner side
_FILL_ALPHA = 105  # of 255
_IN_MEMORY = 64 << 20  # bytes of vertices; more are in a temporary file
_CODES = 255  # labels that an 8-bit image can tell apart, beside 0

_RING: Final = np.dtype(
    [("size", "f8"), ("shape", "i4"), ("label", "i4"), ("hole", "?"), ("area", "?"), ("start", "i8"), ("bytes", "i4")]
)


@dataclass(frozen=True, slots=True)
class Canvas:
    """How level-0 pixels map to the shown picture."""

    size: tuple[int, int]
    """(width, height) in px."""
    scale: tuple[float, float]
    """Shown px per level-0 pixel (x, y)."""

    @classmethod
    def of(
        cls, image: ImageRecord, overview: Overview | None, *, shortest: int = SHORTEST, longest: int = LONGEST
    ) -> Self:
        """The canvas of an image: its overview's size, reduced to `longest` or enlarged to at least `shortest`."""
        width, height = image.info.size
        shown = (width, height) if overview is None else (overview.pixels.shape[1], overview.pixels.shape[0])
        columns, rows = shown_size(shown, shortest, longest)
        return cls((columns, rows), (columns / width, rows / height))


def on_montage(image: ImageRecord, overview: Overview | None) -> ImageRecord:
    """The image in the coordinates of its overview: turned, or of a stack a montage of slices.

    Its placement stays that of level-0 pixels, and so do its findings: see `FindingsDrawing`.
    """
    montage = None if overview is None else overview.montage
    if overview is not None and overview.orientation != UPRIGHT:
        return _turned(image, overview.orientation)
    if montage is None or len(image.info.planes) == 1:
        return image
    width, height = montage.size
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
    return replace(image, info=info, unanalysed=tuple(unanalysed), roi=roi)


def _turned(image: ImageRecord, orientation: Orientation) -> ImageRecord:
    """The image in upright pixels."""
    size = image.info.size

    def turn(geometry: BaseGeometry) -> BaseGeometry:
        return shapely.transform(geometry, lambda xy: orientation.to_upright(xy, size))

    unanalysed = [replace(region, box=Box(*turn(_polygon(region.box)).bounds)) for region in image.unanalysed]
    return replace(
        image,
        info=replace(image.info, size=orientation.swap(size)),
        unanalysed=tuple(unanalysed),
        roi=None if image.roi is None else turn(image.roi),
    )


def _moved(geometry: BaseGeometry, montage: Montage, plane: int) -> BaseGeometry:
    """A geometry on a slice, in level-0 pixels of the montage."""
    column, row = montage.place(plane) or (0, 0)
    return translate(geometry, column * montage.size[0], row * montage.size[1])


def draw_base(overview: Overview | None, canvas: Canvas) -> Image.Image:
    """The picture without findings: a grey checkerboard on nodata, red hatching where it cannot be read."""
    if overview is None:
        return hatched(checkerboard(canvas.size), np.ones(canvas.size[::-1], dtype=np.bool_), UNREADABLE)
    resampling = Image.Resampling.BOX if overview.pixels.shape[1] > canvas.size[0] else Image.Resampling.NEAREST
    picture = Image.fromarray(overview.pixels).resize(canvas.size, resampling)
    if not overview.valid.all():
        picture.paste(checkerboard(canvas.size), mask=Image.fromarray(~_resized(overview.valid, canvas.size)))
    return hatched(picture, ~_resized(overview.readable, canvas.size), UNREADABLE)


def checkerboard(size: tuple[int, int], start: tuple[int, int] = (0, 0)) -> Image.Image:
    """What is shown on nodata, `size` (width, height) px of it from `start` (x, y) on."""
    x, y = ((np.arange(side) + first) // 10 % 2 for side, first in zip(size, start, strict=True))
    return Image.fromarray(np.array(NODATA, dtype=np.uint8)[np.bitwise_xor.outer(y, x)])


class FindingsDrawing:
    """Findings on the picture of an image, in drawn pixels until all are known, since the largest shapes come first.

    Vertices wait in a file, those of areas as whole numbers in 4-byte floats, which Pillow takes as they are, others in
    8-byte floats. It is a context manager, which closes the file.
    """

    def __init__(self, shown: ImageRecord, overview: Overview | None, size: tuple[int, int]) -> None:
        """An image as `on_montage` has it, and the size (width, height) of the picture."""
        self._image, self._turned = shown, UPRIGHT if overview is None else overview.orientation
        self._scale = (size[0] / shown.info.size[0], size[1] / shown.info.size[1])
        self._shift: npt.NDArray[np.float64] | None = None  # of each plane on a montage; NaN where it is not shown
        if overview is not None and overview.montage is not None and len(shown.info.planes) > 1:
            montage = overview.montage
            self._shift = np.full((len(shown.info.planes), 2), np.nan)
            self._shift[list(montage.planes)] = [montage.place(plane) or (0, 0) for plane in montage.planes]
            self._shift *= montage.size
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `__exit__` closes it
        self._labels: dict[str, int] = {}
        self._shapes = 0
        self._parts: list[npt.NDArray[np.void]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def on(self, base: Image.Image, palette: Palette) -> Image.Image:
        """`base` with hatching on what was not analysed, and on top the findings."""
        skipped, unreadable = unanalysed_masks(self._image, base.size)
        result = hatched(hatched(base, skipped, SKIPPED), unreadable, UNREADABLE)
        labels = sorted(self._labels)
        for first in range(0, len(labels), _CODES):
            self._draw(result, {label: rgb(palette[label]) for label in labels[first : first + _CODES]})
        return result

    def _placed(self, xy: Points) -> Points:
        """Level-0 pixels, of a stack those on its montage, in shown px."""
        turned = self._turned
        return (xy if turned == UPRIGHT else turned.to_upright(xy, turned.swap(self._image.info.size))) * self._scale

    def _moved(self, table: FindingsTable) -> FindingsTable:
        """The findings that are shown, of a stack where they are on its montage."""
        if self._shift is None:
            return table
        table = table.take(np.flatnonzero(~np.isnan(self._shift[table.plane, 0])))
        xy, of = shapely.get_coordinates(table.geometries, return_index=True)
        moved = shapely.set_coordinates(table.geometries.copy(), xy + self._shift[table.plane][of])
        return replace(table, shapes=moved)

    def add(self, table: FindingsTable) -> None:
        """Add findings."""
        table = self._moved(table)
        shapes, owner = shapely.get_parts(table.geometries, return_index=True)
        labels = np.array([self._labels.setdefault(one, len(self._labels)) for one in table.label.tolist()], np.int32)
        corners = self._placed(shapely.bounds(shapes).reshape(-1, 2)).reshape(-1, 2, 2)
        made = np.zeros(len(shapes), _RING)
        made["size"] = np.nan_to_num(np.abs(np.diff(corners, axis=1)).prod(axis=(1, 2)))
        made["shape"], made["label"] = np.arange(len(shapes)) + self._shapes, labels[owner]
        made["area"] = table.is_area[owner]
        self._shapes += len(shapes)

        here = np.flatnonzero(made["area"])
        rings, of = shapely.get_rings(shapes[here], return_index=True)
        xy = np.trunc(self._placed(shapely.get_coordinates(rings)) * SUPERSAMPLING)  # as Pillow does
        areas = made[here[of]]
        areas["hole"] = np.diff(of, prepend=-1) == 0
        self._keep(areas, xy.astype(np.float32), shapely.get_num_coordinates(rings))
        here = np.flatnonzero(~made["area"])
        outlines = shapely.get_exterior_ring(enlarged(shapely.transform(shapes[here], self._placed)))
        self._keep(made[here], shapely.get_coordinates(outlines) * SUPERSAMPLING, shapely.get_num_coordinates(outlines))

    def _keep(self, rings: npt.NDArray[np.void], xy: npt.NDArray[np.floating[Any]], count: npt.ArrayLike) -> None:
        """Rings with so many vertices each."""
        rings["bytes"] = np.asarray(count) * 2 * xy.itemsize
        rings["start"] = self._file.tell() + np.cumsum(rings["bytes"], dtype=np.int64) - rings["bytes"]
        self._parts.append(rings)
        self._file.write(xy.tobytes())

    def _rings(self) -> Iterator[tuple[int, bool, bool, bytes]]:
        """(code, whether it is a hole, whether it is of an area, vertices): the largest shape first, holes last."""
        rings = np.concatenate([np.empty(0, _RING), *self._parts])
        order = np.lexsort((rings["shape"], -rings["size"]))  # which is stable
        for start in range(0, len(order), BATCH):
            for _, _, label, hole, area, place, count in rings[order[start : start + BATCH]].tolist():
                self._file.seek(place)
                yield label, hole, area, self._file.read(count)

    def _draw(self, picture: Image.Image, colours: Mapping[str, tuple[int, int, int]]) -> None:
        """Draw findings of some labels onto `picture`; areas are outlined on the inside."""
        size = (picture.width * SUPERSAMPLING, picture.height * SUPERSAMPLING)
        fill, line = Image.new("L", size), Image.new("L", size)
        fill_pen, line_pen = ImageDraw.Draw(fill), ImageDraw.Draw(line)
        codes = {self._labels[label]: code for code, label in enumerate(colours, start=1)}
        for label, hole, area, vertices in self._rings():
            code = codes.get(label)
            if code is None or not vertices:
                continue
            if area:
                fill_pen.polygon(cast("Any", vertices), fill=0 if hole else code)
            else:
                corners = [(x, y) for x, y in np.frombuffer(vertices).reshape(-1, 2).tolist()]
                fill_pen.polygon(corners, fill=code)
                line_pen.line(corners, fill=code, width=2 * SUPERSAMPLING, joint="curve")
        filled, lines = np.asarray(fill), np.asarray(line)
        lines = np.where((lines == 0) & _outlines(filled, _OUTLINE), filled, lines)
        for code, colour in enumerate(colours.values(), start=1):
            picture.paste(colour, mask=_alpha(filled == code, _FILL_ALPHA))
            picture.paste(colour, mask=_alpha(lines == code, 255))


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
    if image.masked is not None and image.mask_excludes:
        skipped |= _masked(image.masked(), size)
    return skipped & ~unreadable, unreadable


def plane_masks(image: ImageRecord, plane: int, turned: Orientation, size: tuple[int, int]) -> tuple[Mask, Mask]:
    """As `unanalysed_masks`, of one plane, `turned` as its picture is."""
    here = replace(image, unanalysed=tuple(region for region in image.unanalysed if region.plane == plane))
    return unanalysed_masks(here if turned == UPRIGHT else _turned(here, turned), size)


def _masked(regions: Iterable[tuple[Region, Mask]], size: tuple[int, int]) -> Mask:
    """What is masked on an upright picture of `size` (width, height): a pixel has what is around its centre."""
    found = np.zeros(size[::-1], dtype=np.bool_)
    for region, mask in regions:
        columns, rows = (
            np.floor((np.arange(shown) + 0.5) * side / shown / step).astype(np.intp) - span.core_start
            for shown, side, step, span in zip(
                size, region.grid.upright_size, region.grid.upright_scale, (region.columns, region.rows), strict=True
            )
        )
        x, y = (
            np.flatnonzero((at >= 0) & (at < length))
            for at, length in zip((columns, rows), mask.shape[::-1], strict=True)
        )
        found[np.ix_(y, x)] |= mask[np.ix_(rows[y], columns[x])]
    return found


def rasterise(geometry: BaseGeometry, size: tuple[int, int], scale: tuple[float, float]) -> Mask:
    """Which pixels (H, W) have their centre in a valid polygonal geometry: even-odd rule, scan line by scan line.

    `scale` is px per unit of the geometry (x, y).

        ring      x-------x         each edge toggles its row from the first pixel centre right of it on,
        row     . | . . . | .       and the running parity along the row is the mask
        mask    0 0 1 1 1 0 0
    """
    width, height = size
    if geometry.is_empty:
        return np.zeros((height, width), dtype=np.bool_)
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


def _rings(part: BaseGeometry) -> Iterator[Points]:
    """A polygon's exterior and then its holes (N, 2); nothing for other geometries."""
    if isinstance(part, Polygon) and not part.is_empty:
        for ring in (part.exterior, *part.interiors):
            yield shapely.get_coordinates(ring)


def enlarged(parts: Shapes) -> Shapes:
    """Shapes in shown px, with small squares instead of those that would be too small to see."""
    x0, y0, x1, y1 = shapely.bounds(parts).reshape(-1, 4).T
    small = np.maximum(x1 - x0, y1 - y0) < SMALLEST
    x, y, half = (x0 + x1)[small] / 2, (y0 + y1)[small] / 2, SMALLEST / 2
    shapes = parts.copy()
    shapes[small] = shapely.box(x - half, y - half, x + half, y + half)
    return shapes


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
    return Image.fromarray(mask.view(np.uint8) * np.uint8(full)).reduce(SUPERSAMPLING)


def _polygon(box: Box) -> Polygon:
    return shapely.box(box.x0, box.y0, box.x1, box.y1)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def hatched(
    picture: Image.Image, mask: Mask, colour: tuple[int, int, int], *, pitch: int = 12, width: int = 2, start: int = 0
) -> Image.Image:
    """`picture` with diagonal stripes (`width` px of every `pitch`) and a white veil where `mask` is true.

    `start` is x + y of the picture's corner in the larger one that it is a part of.
    """
    result = picture.copy()
    if not mask.any():
        return result
    y, x = map(np.arange, mask.shape)
    stripes = mask & (np.add.outer(y + start, x) % pitch < width)
    result.paste((255, 255, 255), mask=Image.fromarray(np.where(mask, np.uint8(60), np.uint8(0))))
    result.paste(colour, mask=Image.fromarray(np.where(stripes, np.uint8(215), np.uint8(0))))
    return result
