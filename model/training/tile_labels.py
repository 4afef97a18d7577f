"""Label tiles by the outlines that a user drew: a tile gets a class where it lies inside that class's outlines only."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import shapely
from shapely.geometry.base import BaseGeometry

from ...readers.geometry import Box
from ...readers.regions import Region
from ..annotator import InputSpec
from ..tiling import TileGrid

INSIDE: Final = 0.5
"""Minimum share of a tile inside the outlines of its class."""

OTHER_CLASSES: Final = 0.1
"""Maximum share of a tile inside the outlines of any other class."""

TileOutcome = Literal["labelled", "outside", "at an edge", "two classes"]


@dataclass(frozen=True, slots=True)
class Outline:
    """One annotated object: polygons or a point on one image."""

    label: str
    """Its class."""
    geometry: BaseGeometry
    """In level-0 pixels."""
    name: str
    """Identifies the outline on its image."""


@dataclass(frozen=True, slots=True)
class TileLabel:
    """Whether a tile is used for training, and its class."""

    outcome: TileOutcome
    label: str = ""
    """The class of a "labelled" tile, else ""."""
    outlines: tuple[str, ...] = ()
    """Names of the class's outlines that the tile intersects."""


def label_tiles(
    boxes: Sequence[Box], outlines: Sequence[Outline], *, image: Box, inside: float = INSIDE, rest: str = ""
) -> list[TileLabel]:
    """Label each tile (a box in level-0 pixels) of an `image`.

    A tile gets a class where at least `inside` of its area lies within that class's polygons and at most 10 % within
    those of any other class; ground that two classes share counts for both. A point labels the tile that contains it.
    `rest` names the class of everything that is not outlined; "" for none.
    """
    tree = shapely.STRtree([outline.geometry for outline in outlines])
    frame = shapely.box(image.x0, image.y0, image.x1, image.y1)
    return [_label(box, outlines, tree, frame, inside, rest) for box in boxes]


def tile_boxes(region: Region, spec: InputSpec) -> list[Box]:
    """The box of each tile of a region in level-0 pixels, row by row; it may extend beyond the image."""
    grid = TileGrid.exact(*region.tiles, tile=spec.tile, overlap=2 * spec.halo)
    left, top = region.columns.start, region.rows.start
    return [region.grid.level0_box(left + x0, top + y0, left + x1, top + y1) for x0, y0, x1, y1 in grid.boxes()]


def overlapping_classes(outlines: Sequence[Outline]) -> set[tuple[str, str]]:
    """The sorted pairs of labels whose outlines overlap."""
    shapes = [outline.geometry for outline in outlines]
    pairs: list[tuple[int, int]] = shapely.STRtree(shapes).query(shapes, predicate="intersects").T.tolist()
    return {
        (outlines[a].label, outlines[b].label)
        for a, b in pairs
        if outlines[a].label < outlines[b].label and shapes[a].intersection(shapes[b]).area > 0
    }


def block_of(box: Box, size: tuple[float, float]) -> tuple[int, int]:
    """(column, row) of the block of `size` level-0 pixels (x, y) that contains a tile's centre."""
    return math.floor((box.x0 + box.x1) / 2 / size[0]), math.floor((box.y0 + box.y1) / 2 / size[1])


def _label(
    box: Box, outlines: Sequence[Outline], tree: shapely.STRtree, frame: BaseGeometry, inside: float, rest: str
) -> TileLabel:
    tile = shapely.box(box.x0, box.y0, box.x1, box.y1)
    names: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, list[BaseGeometry]] = defaultdict(list)
    indices: list[int] = sorted(tree.query(tile, predicate="intersects").tolist())
    for outline in (outlines[index] for index in indices):
        part = _part_within(outline.geometry, box, tile)
        if part.area > 0:
            parts[outline.label].append(part)
            names[outline.label].append(outline.name)
    within = {label: shapely.union_all(several) for label, several in parts.items()}
    outlined = {label: geometry.area / tile.area for label, geometry in within.items()}
    shares = dict(outlined)
    if rest:
        free = tile.intersection(frame).difference(shapely.union_all(list(within.values())))
        shares[rest] = shares.get(rest, 0.0) + free.area / tile.area
    if not shares:
        return TileLabel("outside")
    label = max(sorted(shares), key=lambda one: (shares[one], one != rest))
    if max((share for other, share in outlined.items() if other != label), default=0.0) > OTHER_CLASSES:
        return TileLabel("at an edge" if label == rest else "two classes")
    if shares[label] < inside:
        return TileLabel("at an edge")
    return TileLabel("labelled", label, tuple(dict.fromkeys(names[label])))


def _part_within(shape: BaseGeometry, box: Box, tile: BaseGeometry) -> BaseGeometry:
    """The part of a tile that an outline covers: a polygon's intersection, all of it for a point inside."""
    if shape.geom_type != "Point":
        return shape.intersection(tile)
    x, y = shape.bounds[:2]
    return tile if box.x0 <= x < box.x1 and box.y0 <= y < box.y1 else shapely.Polygon()
