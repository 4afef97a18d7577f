"""Joins the findings of neighbouring images into one image: no place counts twice, and areas go on across borders.

Where two images were both analysed, the place belongs to the one that comes first. Images that share a pixel grid, up
to a shift, are joined with each other first, and groups of them then on the pixels of the first:

        first          second                  joined
      ┌────────────┬ ─ ─ ┐
      │        ┌───┼─────┴────┐        ┌────────────┬──────────┐
      │        │ ##│          │        │            │          │      ## belongs to the first
      └────────┼───┘          │        └────────┬───┘          │
               └──────────────┘                 └──────────────┘
"""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import shapely

from ...model.findings_table import FindingsTable, spans
from ...model.merged_findings import MergedFindings, columnar
from ...model.merging import merge_chunks
from ...readers.errors import RequestError
from ...readers.geometry import Placement
from ...readers.image import ImageInfo
from ...readers.remap import PixelMapping, pixel_mapping, polygonal, same_crs, snapped
from ..measures import Shapes, areas_m2
from ..writer import Area, ImageRecord
from .analysed import analysed_outlines

UNCOVERED: Final = "analysed in none of the images"

_ROUNDING: Final = 1e-3  # pixels
_NEAR: Final = 1e-5  # pixels: an outline so near to a border ends there


@dataclass(frozen=True, slots=True)
class Coverage:
    """The part of a joined image that comes from one image."""

    image: ImageInfo
    shape: Any
    """In level-0 pixels of the joined image; empty where others have it all."""
    pixels: float
    m2: float
    analysed_m2: float
    """Of the image itself, with what others have."""


@dataclass(frozen=True, slots=True)
class Joined:
    """One image of several."""

    image: ImageRecord
    coverage: tuple[Coverage, ...]
    """Of each image, in their order."""


@dataclass(slots=True)
class _Part:
    """Findings and the area that they are of, on some pixels."""

    findings: Any
    mapping: PixelMapping | None
    """To these pixels; None where the findings have them."""
    analysed: Any
    own: Any = None
    """Of the area, what no earlier part has."""
    earlier: Any = None
    """What earlier parts have."""


def join_images(images: Sequence[ImageRecord], name: str) -> Joined:
    """Join maps. Areas and tiles are cut at the border; a box belongs to the image that has its centre.

    Raises `RequestError` for an image that is no map, has no CRS or is placed by control points, and for images of
    which nothing was analysed; `LimnerError` where an analysed area cannot be read again.
    """
    for image in images:
        _check(image)
    groups = _groups(images)
    inner: list[_Part] = []
    outlines: dict[int, Any] = {}
    analysed: dict[int, Any] = {}
    for group in groups:
        frame = images[group[0]].info
        parts = [_part(images[at], frame) for at in group]
        _share_out(parts)
        analysed.update({at: part.analysed for at, part in zip(group, parts, strict=True)})
        outlines.update({at: part.own for at, part in zip(group, parts, strict=True)})
        if len(groups) == 1:
            inner = parts
            break
        found = columnar(images[group[0]].findings()) if len(parts) == 1 else _joined(parts, frame)
        inner.append(_Part(found, None, shapely.union_all([part.own for part in parts])))
    first = images[groups[0][0]].info
    if len(groups) == 1:
        return _record(images, name, first, inner, outlines, analysed, groups)
    for group, part in zip(groups[1:], inner[1:], strict=True):
        part.mapping = pixel_mapping(images[group[0]].info, first)
        part.analysed = _map_one(part.mapping, part.analysed)
    _share_out(inner)
    for group, part in zip(groups[1:], inner[1:], strict=True):
        for at in group:
            mapped = _map_one(part.mapping, outlines[at]) if part.mapping is not None else outlines[at]
            outlines[at] = _one(shapely.intersection(mapped, part.own))
    return _record(images, name, first, inner, outlines, analysed, groups)


def _record(
    images: Sequence[ImageRecord],
    name: str,
    first: ImageInfo,
    parts: list[_Part],
    outlines: dict[int, Any],
    analysed: dict[int, Any],
    groups: Sequence[Sequence[int]],
) -> Joined:
    """The image of joined parts, whose pixels are those of the first image, counted from another corner."""
    whole = shapely.union_all([part.own for part in parts])
    if whole.is_empty:
        remedy = "Join runs that are not empty"
        raise RequestError("the images to join", "must be analysed somewhere", remedy=remedy)
    x0, y0, x1, y1 = whole.bounds
    corner = np.array([math.floor(x0), math.floor(y0)], dtype=np.float64)
    size = math.ceil(x1) - math.floor(x0), math.ceil(y1) - math.floor(y0)
    info = replace(
        first,
        uri="",
        id=name,
        reader="",
        size=size,
        files=(),
        fingerprint="",
        planes=(),
        facts=(),
        placement=_shifted(first.placement, corner),
    )

    def move(shape: Any) -> Any:
        return shapely.transform(shape, lambda xy: xy - corner)

    for part in parts:
        part.own, part.earlier = move(part.own), move(part.earlier)
    found = _joined(parts, info, corner)
    coverage: list[Coverage] = []
    for at, image in enumerate(images):
        shape = move(outlines[at])
        frame = next(images[group[0]].info for group in groups if at in group)
        own = areas_m2(_array(shape), info)[0]
        of_image = areas_m2(_array(analysed[at]), frame)[0]
        coverage.append(Coverage(image.info, shape, shape.area, float(own), float(of_image)))
    covered = math.fsum(one.pixels for one in coverage), math.fsum(one.m2 for one in coverage)
    regions = sum(area.regions for one in images for area in one.areas)
    areas = [Area("analysed", "", covered[0], covered[1], regions)]
    if (left := size[0] * size[1] - covered[0]) > _ROUNDING:
        every = float(areas_m2(_array(shapely.box(0.0, 0.0, *size)), info)[0])
        areas.append(Area("no data", UNCOVERED, left, every - covered[1], 0))

    def analysed_parts() -> Iterator[Shapes]:
        yield shapely.get_parts(np.array([part.own for part in parts], dtype=object))

    record = ImageRecord(
        info=info,
        findings=lambda: found,
        overview=lambda: None,
        areas=tuple(areas),
        failures=tuple(failure for one in images for failure in one.failures),
        analysis={"Images": ", ".join(one.info.id for one in images)},
        scale=images[groups[0][0]].scale,
        name=name,
        warnings=tuple(f"{one.info.id}: {warning}" for one in images for warning in one.warnings),
        outlines=analysed_parts,
        forced="; ".join(one.forced for one in images if one.forced),
    )
    return Joined(record, tuple(coverage))


def _shifted(placement: Placement, corner: Any) -> Placement:
    """A placement whose pixels are counted from another corner."""
    matrix = tuple(
        (a, b, float(c)) for (a, b, _), c in zip(placement.matrix, placement.to_world(corner)[0], strict=True)
    )
    return replace(placement, matrix=matrix)


def _check(image: ImageRecord) -> None:
    info = image.info
    if info.kind != "map" or not info.placement.crs:
        value = f"a {info.kind}" if info.kind != "map" else "a map without a CRS"
        remedy = "Leave it out, or state its CRS with --crs when it is run"
        raise RequestError(info.id, "must be a map with a place in the world to be joined", value=value, remedy=remedy)
    if info.placement.warp is not None:
        remedy = "Warp it to a map grid first, for example with gdalwarp, and run it again"
        raise RequestError(info.id, "must not be placed by control points to be joined", remedy=remedy)


def _groups(images: Sequence[ImageRecord]) -> list[list[int]]:
    """The places of images by pixel grid: those of one group have one CRS and pixels of one size and direction."""
    groups: list[list[int]] = []
    for at, image in enumerate(images):
        own = image.info.placement
        for group in groups:
            other = images[group[0]].info.placement
            linear = (np.asarray(one.matrix)[:, :2] for one in (own, other))
            if same_crs(own.crs or "", other.crs or "") and np.allclose(*linear, rtol=1e-9, atol=0.0):
                group.append(at)
                break
        else:
            groups.append([at])
    return groups


def _part(image: ImageRecord, frame: ImageInfo) -> _Part:
    mapping = pixel_mapping(image.info, frame)
    outlines = [mapping(shapes) for shapes in analysed_outlines(image)]
    whole = shapely.union_all(np.concatenate([np.empty(0, dtype=object), *outlines]))
    return _Part(columnar(image.findings()), mapping, whole)


def _share_out(parts: Sequence[_Part]) -> None:
    """Give each part of an area that several have to the first of them."""
    taken: Any = shapely.Polygon()
    for part in parts:
        part.own, part.earlier = _one(shapely.difference(part.analysed, taken)), taken
        taken = shapely.union(taken, part.analysed)


def _joined(parts: Sequence[_Part], info: ImageInfo, corner: Any = (0.0, 0.0)) -> MergedFindings:
    """The findings of all parts, each within its own area, on the pixels of `info`, which begin at a corner."""
    chunks = [_Clipped(part, span, np.asarray(corner)) for part in parts for span in spans(part.findings.vertices)]
    return merge_chunks(chunks, info)


@dataclass(slots=True)
class _Clipped:
    """Some findings of a part within its own area: a chunk that is made whenever it is read."""

    part: _Part
    span: slice
    corner: Any

    def __len__(self) -> int:
        return self.span.stop - self.span.start

    def read(self) -> FindingsTable:
        """The findings. Areas that reach the border of their own area are `cut`."""
        table: FindingsTable = self.part.findings[self.span]
        mapped = snapped(table.geometries) if self.part.mapping is None else self.part.mapping(table.geometries)
        shapes: Any = shapely.transform(mapped, lambda xy: xy - self.corner)
        own, table_areas = self.part.own, table.is_area
        shapely.prepare(own)
        before = shapely.area(shapes)
        box = table.kind == "box"
        outside = np.flatnonzero(~shapely.covers(own, shapes) & ~box)
        shapes[outside] = polygonal(snapped(polygonal(shapely.intersection(shapes[outside], own))))
        middles = shapely.centroid(shapes)
        kept = np.where(box, shapely.intersects(own, middles), shapely.area(shapes) > 0)
        kept &= ~(box & shapely.intersects(self.part.earlier, middles))
        parts, of = shapely.get_parts(shapes[kept & table_areas], return_index=True)
        solid = shapely.area(parts) > 0
        others = np.flatnonzero(kept & ~table_areas)
        row = np.concatenate([np.flatnonzero(kept & table_areas)[of[solid]], others])
        placed = np.concatenate([parts[solid], shapes[others]])
        result = table.take(row)
        share = np.where(result.is_area, shapely.area(placed) / before[row], 1.0)
        return replace(
            result,
            shapes=placed,
            cut=result.is_area & shapely.dwithin(shapely.boundary(own), placed, _NEAR),
            numbers={name: values * share for name, values in result.numbers.items()},
        )


def _map_one(mapping: PixelMapping, shape: Any) -> Any:
    return mapping(_array(shape))[0]


def _one(shape: Any) -> Any:
    """The polygons of the result of an overlay."""
    return polygonal(snapped(polygonal(_array(shape))))[0]


def _array(shape: Any) -> Shapes:
    made = np.empty(1, dtype=object)
    made[0] = shape
    return made
