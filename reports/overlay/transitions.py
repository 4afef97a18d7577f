"""Which label became which between two runs: areas of every transition, and the outlines of what differs.

Both runs are laid on the first one's pixels, block by block. In a block, the outlines of each label are joined and
intersected exactly with those of each label of the other run:

        first run             second run            both
      ┌─────┬──────┐        ┌───────┬────┐        ┌─────┬─┬────┐
      │  a  │  b   │        │   a   │ c  │        │ a→a │*│b→c │     * b→a
      └─────┴──────┘        └───────┴────┘        └─────┴─┴────┘
"""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import shapely

from ...model.finding import Finding
from ...model.merged_findings import columnar
from ...readers.errors import RequestError
from ...readers.geodesy import metres_per_pixel
from ...readers.remap import PixelMapping, pixel_mapping, polygonal, snapped
from ..measures import Numbers, Shapes, areas_m2, batches
from ..writer import ImageRecord, Record
from .analysed import analysed_outlines
from .pieces import Index, Overlay

NONE: Final = "none"
"""The label of what was analysed and has none."""

NOT_ANALYSED: Final = "not analysed"
"""The label of what was analysed in the other run alone."""

ARROW: Final = " → "
"""Between the two labels of a change."""

_BLOCK_M: Final = 2000.0  # of a side: so wide, areas of pieces need no geodesic outlines
_BLOCK: Final = (64, 2048)  # pixels of a side, at least and at most
_LEAST: Final = 1e-6  # px²: smaller differences are rounding
_OVERLAP: Final = 1e-3  # of the analysed area: outlines that are mapped to another CRS may overlap by less
_APART: Final = "must have areas that do not overlap"
_SEGMENT: Final = "Compare runs of a model that labels every place once, such as a segmentation"

Pair = tuple[str, str]


@dataclass(slots=True)
class Transitions:
    """The area of each transition, (label in the first run, label in the second) → pixels and m²."""

    pixels: dict[Pair, list[float]] = field(default_factory=dict[Pair, list[float]])
    m2: dict[Pair, list[float]] = field(default_factory=dict[Pair, list[float]])

    def add(self, pair: Pair, pixels: float, m2: float) -> None:
        """Add an area."""
        self.pixels.setdefault(pair, []).append(pixels)
        self.m2.setdefault(pair, []).append(m2)

    def area(self, pair: Pair) -> tuple[float, float]:
        """The area of a transition in level-0 pixels of the first run and in m²; NaN where that is not known."""
        return math.fsum(self.pixels.get(pair, ())), math.fsum(self.m2.get(pair, ()))

    def total(self) -> tuple[float, float]:
        """The area that was analysed in both runs, likewise."""
        both = [pair for pair in self.pixels if NOT_ANALYSED not in pair]
        return math.fsum(self.area(one)[0] for one in both), math.fsum(self.area(one)[1] for one in both)


class _Side:
    """The findings and the analysed area of one run, on the pixels of the first."""

    def __init__(self, record: Record, image: ImageRecord, mapping: PixelMapping | None) -> None:
        self._image, self._found, self._mapping = image, columnar(image.findings()), mapping
        boxes: list[Numbers] = [np.empty((0, 4))]
        kinds: set[str] = set()
        for batch in batches(record, [image]):
            outer = batch.bounds if mapping is None else _bounds(mapping(_boxes(batch.bounds)))
            boxes.append(outer)
            kinds.update(batch.table.kind.tolist())
        self._boxes = np.concatenate(boxes)
        self._row: tuple[tuple[float, float], Index] = (math.nan, math.nan), np.empty(0, dtype=np.intp)
        if wrong := sorted(kinds - {"area", "tile"}):
            value = f"findings of the kind {' and '.join(wrong)}"
            raise RequestError(image.info.id, _APART, value=value, remedy=_SEGMENT)
        parts = [self._mapped(shapes) for shapes in analysed_outlines(image)]
        self._analysed = Overlay(np.concatenate([np.empty(0, dtype=object), *parts]))
        self.pixels = math.fsum(float(shapely.area(shapes).sum()) for shapes in parts)
        """The analysed area in level-0 pixels."""
        self.bounds: Numbers = (
            np.array([math.nan] * 4) if not self.pixels else shapely.total_bounds(np.concatenate(parts))
        )
        """Of the analysed area; NaN where nothing was analysed."""
        self.overlap = 0.0
        """Pixels that more than one label covers."""

    def _mapped(self, shapes: Shapes) -> Shapes:
        return snapped(shapes) if self._mapping is None else self._mapping(shapes)

    def _in_row(self, y0: float, y1: float) -> Index:
        """The findings that may meet a row of blocks."""
        if self._row[0] != (y0, y1):
            self._row = (y0, y1), np.flatnonzero((self._boxes[:, 1] < y1) & (self._boxes[:, 3] > y0))
        return self._row[1]

    def labels_in(self, block: Any) -> tuple[dict[str, Any], Any]:
        """Label → its outlines in a block, and those of what has none; and the outline of what was analysed."""
        _, _, parts = self._analysed.pieces(_array(block))
        if not len(parts):
            return {}, shapely.Polygon()
        analysed = shapely.union_all(parts)
        x0, y0, x1, y1 = block.bounds
        near = self._in_row(y0, y1)
        boxes = self._boxes[near]
        across = (boxes[:, 0] < x1) & (boxes[:, 2] > x0)
        table, boxes = self._found.take(near[across]), boxes[across]
        shapes = self._mapped(table.geometries)
        reach = np.flatnonzero((boxes[:, :2] < (x0, y0)).any(axis=1) | (boxes[:, 2:] > (x1, y1)).any(axis=1))
        shapes[reach] = polygonal(shapely.intersection(shapes[reach], block))
        found: dict[str, Any] = {}
        for label in sorted(set(table.label.tolist())):
            every = shapely.disjoint_subset_union_all(shapes[table.label == label])
            tiles = bool((table.kind[table.label == label] != "area").any())
            found[label] = polygonal(_array(shapely.intersection(every, analysed)))[0] if tiles else every
        every = shapely.union_all([*found.values()])
        self.overlap += max(0.0, math.fsum(one.area for one in found.values()) - every.area)
        if self.overlap > _OVERLAP * self.pixels:
            value = f"more than {_OVERLAP:.1%} of the analysed area has several labels"
            raise RequestError(self._image.info.id, _APART, value=value, remedy=_SEGMENT)
        found = _apart(found, every)
        nothing = shapely.difference(analysed, every)
        found[NONE] = shapely.union(nothing, found[NONE]) if NONE in found else nothing
        return {label: shape for label, shape in found.items() if shape.area > _LEAST}, analysed


def _apart(labels: dict[str, Any], every: Any) -> dict[str, Any]:
    """Outlines by label that do not overlap, so that areas add up: what two labels have is left to the first."""
    if math.fsum(one.area for one in labels.values()) - every.area <= _LEAST:
        return labels
    found: dict[str, Any] = {}
    for label, shape in labels.items():
        found[label] = shapely.difference(shape, shapely.union_all([*found.values()])) if found else shape
    return found


def transitions(
    first: tuple[Record, ImageRecord],
    second: tuple[Record, ImageRecord],
    found: Transitions,
    on_share: Callable[[float], None] = lambda _: None,
) -> Iterator[list[Finding]]:
    """Add every transition between two runs of one place to `found`, and yield what differs, block by block.

    A change is an area in the first image's level-0 pixels, cut at the borders of blocks; its label is that of both
    runs, and the notes `from` and `to` have one each. What was analysed in one run alone is no change.

    Raises `RequestError` where the two images have nothing in common, findings are no areas, or those of different
    labels overlap, and `LimnerError` where the analysed area of an image cannot be read again.
    """
    info = first[1].info
    a = _Side(*first, None)
    b = _Side(*second, pixel_mapping(second[1].info, info))
    blocks = list(_blocks(first[1], a.bounds, b.bounds))
    for number, block in enumerate(blocks, 1):
        on_share(number / len(blocks))
        yield _compare(a.labels_in(block), b.labels_in(block), first[1], block, found)
    if not found.total()[0]:
        remedy = "Give two runs of one place"
        raise RequestError(f"{info.id} and {second[1].info.id}", "must both have analysed some place", remedy=remedy)


def _compare(
    first: tuple[dict[str, Any], Any],
    second: tuple[dict[str, Any], Any],
    image: ImageRecord,
    block: Any,
    found: Transitions,
) -> list[Finding]:
    """Add the transitions in a block, and return its changes; those that reach its border are `cut`."""
    (labels_a, both_a), (labels_b, both_b) = first, second
    pairs = [(a, b) for a in labels_a for b in labels_b]
    pieces, owners = _common(labels_a, labels_b)
    pairs += [(a, NOT_ANALYSED) for a in labels_a] + [(NOT_ANALYSED, b) for b in labels_b]
    alone = [_beside(shape, both_b) for shape in labels_a.values()]
    alone += [_beside(shape, both_a) for shape in labels_b.values()]
    pieces = np.concatenate([pieces, np.array([*alone, None], dtype=object)[:-1]])
    owners = np.concatenate([owners, np.arange(len(pairs) - len(alone), len(pairs))])
    parts, piece = shapely.get_parts(polygonal(pieces), return_index=True)
    owner = owners[piece]
    pixels, m2 = shapely.area(parts), areas_m2(parts, image.info)
    sums = (np.bincount(owner, weights=values, minlength=len(pairs)).tolist() for values in (pixels, m2))
    for pair, area_px, area_m2 in zip(pairs, *sums, strict=True):
        if area_px > _LEAST:
            found.add(pair, area_px, area_m2)
    cut = ~shapely.contains_properly(block, parts)
    return [
        Finding(f"{a}{ARROW}{b}", parts[at], "area", cut=bool(cut[at]), notes={"from": a, "to": b})
        for at in np.flatnonzero(pixels > _LEAST).tolist()
        for a, b in [pairs[owner[at]]]
        if a != b and NOT_ANALYSED not in {a, b}
    ]


def _common(first: dict[str, Any], second: dict[str, Any]) -> tuple[Shapes, Index]:
    """What the polygons of two runs have in common, and the pair of labels of each: label · labels of second + label.

    The polygons of a label share no edge, and so neither do pieces of one pair.
    """
    (a, of_a), (b, of_b) = (
        shapely.get_parts(np.array([*labels.values(), None], dtype=object)[:-1], return_index=True)
        for labels in (first, second)
    )
    at, other = shapely.STRtree(b).query(a, predicate="intersects")
    pieces = shapely.intersection(a[at], b[other])
    solid = shapely.area(pieces) > 0
    return pieces[solid], (of_a[at] * len(second) + of_b[other])[solid]


def _beside(shape: Any, other: Any) -> Any:
    """The part of an outline beside another."""
    return shapely.Polygon() if shapely.covers(other, shape) else shapely.difference(shape, other)


def _blocks(image: ImageRecord, *bounds: Numbers) -> Iterator[Any]:
    """Boxes over all bounds, row by row."""
    every = np.array([one for one in bounds if np.isfinite(one).all()])
    if not len(every):
        return
    (x0, y0), (x1, y1) = np.floor(every[:, :2].min(axis=0)), np.ceil(every[:, 2:].max(axis=0))
    size = metres_per_pixel(image.info.placement, [(x0 + x1) / 2, (y0 + y1) / 2]) if image.info.kind == "map" else None
    side = _BLOCK[1] if size is None else min(_BLOCK[1], max(_BLOCK[0], math.floor(_BLOCK_M / max(size))))
    xs, ys = np.arange(x0, x1, side), np.arange(y0, y1, side)
    for top in ys.tolist():
        for left in xs.tolist():
            yield shapely.box(left, top, left + side, top + side)


def _boxes(bounds: Numbers) -> Shapes:
    return np.asarray(shapely.box(*bounds.T), dtype=object).reshape(-1)


def _bounds(shapes: Shapes) -> Numbers:
    """Bounding boxes (N, 4), slightly enlarged, since edges were mapped to within a tolerance."""
    return np.add(shapely.bounds(shapes).reshape(-1, 4), (-1.0, -1.0, 1.0, 1.0))


def _array(shape: Any) -> Shapes:
    made = np.empty(1, dtype=object)
    made[0] = shape
    return made


def labels_of(found: Transitions, record: Record, *, side: int) -> list[str]:
    """The labels of one run in the order of its model, then others, then those for no label and not analysed."""
    used = {pair[side] for pair in found.pixels}
    last = [NONE, NOT_ANALYSED]
    ordered = [*record.labels, *sorted(used - set(record.labels) - set(last)), *last]
    return [label for label in dict.fromkeys(ordered) if label in used]


def changed_labels(found: Transitions, first: Record, second: Record) -> Sequence[str]:
    """The labels of changes, from label to label in the order of the models."""
    rows, columns = labels_of(found, first, side=0), labels_of(found, second, side=1)
    both = [(a, b) for a in rows for b in columns if a != b and NOT_ANALYSED not in {a, b}]
    return [f"{a}{ARROW}{b}" for a, b in both if (a, b) in found.pixels]
