"""Which tiles teach which class: those that lie inside what a person outlined, and only there."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ...readers.geometry import Box
from ...readers.regions import Region
from ..annotator import InputSpec
from ..tiling import TileGrid

INSIDE: Final = 0.5
"""The least share of a tile that must lie inside one class's outlines."""

ELSEWHERE: Final = 0.1
"""The largest share of a tile that may lie inside those of any other class."""

FileOutcome = Literal["taught", "outside", "at an edge", "two classes"]


@dataclass(frozen=True, slots=True)
class Outline:
    """What a person drew on one image: polygons or a point, in level-0 pixels, and its label. `name` is its own."""

    label: str
    geometry: BaseGeometry
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a tile is. `label` where its fate is "taught", else ""; `outlines` are names of those that it lies in."""

    fate: FileOutcome
    label: str = ""
    outlines: tuple[str, ...] = ()


def judge(
    boxes: Sequence[Box], outlines: Sequence[Outline], *, picture: Box, inside: float = INSIDE, rest: str = ""
) -> list[Verdict]:
    """A verdict for each tile's box, in level-0 pixels, on a `picture`.

    A tile is taught a class where at least `inside` of it lies within that class's polygons and at most 10 % within any
    other's; a place that two classes share counts for both, so tiles there teach nothing. A point gives its label to
    the tile that it lies in. `rest` names the class of what nobody outlined, "" for none.
    """
    tree = shapely.STRtree([outline.geometry for outline in outlines])
    frame = shapely.box(picture.x0, picture.y0, picture.x1, picture.y1)
    return [_judge(box, outlines, tree, frame, inside, rest) for box in boxes]


def tile_boxes(region: Region, spec: InputSpec) -> list[Box]:
    """The box of each tile of a region in level-0 pixels, row by row; it may reach beyond the picture."""
    grid = TileGrid.exact(*region.tiles, tile=spec.tile, overlap=2 * spec.halo)
    sx, sy = region.grid.scale
    left, top = region.columns.start, region.rows.start
    return [
        Box((left + x0) * sx, (top + y0) * sy, (left + x1) * sx, (top + y1) * sy) for x0, y0, x1, y1 in grid.boxes()
    ]


def overlaps(outlines: Sequence[Outline]) -> dict[tuple[str, str], float]:
    """Level-0 square pixels that outlines of two classes share, by their labels in order."""
    shapes = [outline.geometry for outline in outlines]
    shared: dict[tuple[str, str], float] = defaultdict(float)
    pairs: list[tuple[int, int]] = shapely.STRtree(shapes).query(shapes, predicate="intersects").T.tolist()
    for a, b in pairs:
        if a < b and outlines[a].label != outlines[b].label:
            area = shapes[a].intersection(shapes[b]).area
            if area > 0:
                one, other = sorted((outlines[a].label, outlines[b].label))
                shared[one, other] += area
    return dict(sorted(shared.items()))


def _judge(
    box: Box, outlines: Sequence[Outline], tree: shapely.STRtree, frame: BaseGeometry, inside: float, rest: str
) -> Verdict:
    tile = shapely.box(box.x0, box.y0, box.x1, box.y1)
    places: list[int] = sorted(tree.query(tile, predicate="intersects").tolist())
    names: dict[str, list[str]] = defaultdict(list)
    pieces: dict[str, list[BaseGeometry]] = defaultdict(list)
    for outline in (outlines[place] for place in places):
        piece = _piece(outline.geometry, box, tile)
        if piece.area > 0:
            pieces[outline.label].append(piece)
            names[outline.label].append(outline.name)
    within = {label: shapely.union_all(parts) for label, parts in pieces.items()}
    drawn = {label: geometry.area / tile.area for label, geometry in within.items()}
    shares = dict(drawn)
    if rest:
        free = tile.intersection(frame).difference(shapely.union_all(list(within.values())))
        shares[rest] = shares.get(rest, 0.0) + free.area / tile.area
    if not shares:
        return Verdict("outside")
    label = max(sorted(shares), key=lambda one: (shares[one], one != rest))
    others = [share for other, share in drawn.items() if other != label]
    if max(others, default=0.0) > ELSEWHERE:
        return Verdict("at an edge" if label == rest else "two classes")
    if shares[label] < inside:
        return Verdict("at an edge")
    return Verdict("taught", label, tuple(dict.fromkeys(names[label])))


def _piece(shape: BaseGeometry, box: Box, tile: BaseGeometry) -> BaseGeometry:
    """What of a tile a shape takes: the polygons' share of it, and all of it where a point lies within."""
    if shape.geom_type != "Point":
        return shape.intersection(tile)
    x, y = shape.bounds[:2]
    return tile if box.x0 <= x < box.x1 and box.y0 <= y < box.y1 else shapely.Polygon()


def block_of(box: Box, size: tuple[float, float]) -> tuple[int, int]:
    """(column, row) of the block of `size` level-0 pixels (x, y) in which the middle of a tile lies."""
    middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    column, row = np.floor(middle / np.asarray(size)).astype(int).tolist()
    return column, row
