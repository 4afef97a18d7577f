"""Masks of findings and label maps: which pixels of a slice, or of tiles of a slide, belong to a label.

A pixel belongs to an area if its centre lies inside, or on a left or upper edge: areas that share an edge have no pixel
in common and leave none out. Outlines along the edges of pixels give back the pixels that they were traced from.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from ...model.findings_table import FindingsTable
from ...model.merged_findings import MergedFindings, in_batches
from ...readers.image import Mask, Pixels
from ..writer import ImageRecord

Shapes = npt.NDArray[np.object_]

_POLYGON: Final = 3  # shapely's type number


class Patch(NamedTuple):
    """The pixels of one label in a slice or a tile; at least one of the mask is true."""

    label: str
    plane: int
    """The slice, from 0."""
    x: int
    """The column of the mask's first pixel."""
    y: int
    """Its row."""
    mask: Pixels
    """(H, W) booleans, or steps of probability."""


def patches(image: ImageRecord, labels: tuple[str, ...], tile: tuple[int, int] | None = None) -> Iterator[Patch]:
    """The patches of an image: of its label maps where it has them, else of its areas.

    Those of label maps come slice by slice, those of areas label by label. `tile` (width, height) is the size of the
    patches, by default a whole slice; those at the right and lower border of the image are smaller.
    """
    if image.label_maps is None:
        size = image.info.size
        for (label, plane), parts in area_outlines(image):
            for x, y, mask in _fill(parts, size, tile or size):
                yield Patch(label, plane, x, y, mask)
        return
    for plane, label_map in enumerate(image.label_maps()):
        for number in np.flatnonzero(np.bincount(label_map.ravel())[1:]).tolist():
            yield Patch(labels[number], plane, 0, 0, label_map == number + 1)


def area_outlines(image: ImageRecord) -> Iterator[tuple[tuple[str, int], Iterator[Shapes]]]:
    """The areas of an image by label and slice, in order: their outlines, a few thousand at a time, by upper edge.

    Other kinds of findings are left out.
    """
    for key, runs in groupby(_runs(image), key=itemgetter(0)):
        yield key, (outlines for _, outlines in runs)


def by_label(image: ImageRecord) -> Iterator[tuple[npt.NDArray[np.int64], FindingsTable]]:
    """(numbers, findings) of an image, a few thousand at a time, by label, slice and upper edge."""
    findings = image.findings()
    numbers = np.arange(1, len(findings) + 1)
    if not isinstance(findings, MergedFindings):  # which are in this order
        findings = FindingsTable.of(findings)
        _, label = np.unique(findings.label.astype(str), return_inverse=True)
        order = np.lexsort((findings.bounds[:, 1], findings.plane, label))
        findings, numbers = findings.take(order), numbers[order]
    for start, table in in_batches(findings):
        yield numbers[start : start + len(table)], table


def runs(*columns: npt.NDArray[Any]) -> list[slice]:
    """The rows in which the values of columns stay the same."""
    changes = np.flatnonzero(np.any([column[1:] != column[:-1] for column in columns], axis=0)) + 1
    edges = [0, *changes.tolist(), len(columns[0])]
    return [slice(start, stop) for start, stop in pairwise(edges) if start < stop]


def _runs(image: ImageRecord) -> Iterator[tuple[tuple[str, int], Shapes]]:
    for _, table in by_label(image):
        areas = table.take(np.flatnonzero(table.is_area))
        for rows in runs(areas.label, areas.plane):
            yield (str(areas.label[rows.start]), int(areas.plane[rows.start])), areas.geometries[rows]


def polygons_of(geometries: Shapes) -> tuple[Shapes, npt.NDArray[np.intp]]:
    """The polygons of which geometries consist, and the place of each one's geometry; lines and points are left out."""
    parts, owners = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # of multipolygons in a collection
    kept = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    return parts[kept], owners[inner[kept]]


def _fill(parts: Iterable[Shapes], size: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[int, int, Mask]]:
    """(x, y, mask) of the tiles that polygons have pixels in, which come from top to bottom, row by row.

    No more polygons are held than a row of tiles has, and one part.
    """
    parts, (width, height) = iter(parts), size
    waiting: Shapes = np.empty(0, dtype=object)
    ended = False
    for top in range(0, height, tile[1]):
        bottom = min(top + tile[1], height)
        while not ended and (not len(waiting) or shapely.bounds(waiting[-1])[1] < bottom):
            more = next(parts, None)
            ended = more is None
            waiting = waiting if more is None else np.concatenate([waiting, more])
        if not len(waiting):
            return
        row, column, sign = _crossings(polygons_of(waiting)[0], top, bottom, width)
        order = np.argsort(column, kind="stable")
        row, column, sign = row[order], column[order], sign[order]
        entered = np.zeros(bottom - top, dtype=np.int32)  # how many polygons each row is in at the tile's left edge
        for left in range(0, width, tile[0]):
            right = min(left + tile[0], width)
            here = slice(*np.searchsorted(column, (left, right)).tolist())
            if here.start == here.stop and not entered.any():
                continue
            depth = np.zeros((bottom - top, right - left), dtype=np.int32)
            depth[:, 0] = entered
            np.add.at(depth, (row[here], column[here] - left), sign[here])
            np.cumsum(depth, axis=1, out=depth)
            entered = depth[:, -1].copy()
            mask = depth > 0
            if mask.any():
                yield left, top, mask
        waiting = waiting[shapely.bounds(waiting)[:, 3] > bottom]


def _crossings(
    polygons: Shapes, top: int, bottom: int, width: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Where outlines cross the lines through the centres of rows top:bottom, of an image of that width.

    Returns the row from `top`, the first column whose centre is at the crossing or right of it, and 1 where that column
    is inside of the polygon, else -1. Crossings left of the image are at column 0, those right of it are left out.
    """
    xy, ring = shapely.get_coordinates(
        shapely.get_rings(shapely.orient_polygons(polygons, exterior_cw=False)), return_index=True
    )
    start, end = xy[:-1], xy[1:]
    edges = np.flatnonzero((ring[1:] == ring[:-1]) & (start[:, 1] != end[:, 1]))
    start, end = start[edges], end[edges]
    rises = (start[:, 1] < end[:, 1])[:, None]
    low, high = np.where(rises, start, end), np.where(rises, end, start)  # so that a shared edge crosses at equal x
    first = np.clip(np.ceil(low[:, 1] - 0.5), top, bottom).astype(np.intp)
    counts = np.clip(np.ceil(high[:, 1] - 0.5), top, bottom).astype(np.intp) - first
    of = np.repeat(np.arange(len(low)), counts)
    row = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + first[of]
    slope = (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
    x = low[of, 0] + (row + 0.5 - low[of, 1]) * slope[of]
    column = np.maximum(np.ceil(x - 0.5), 0).astype(np.intp)
    inside = column < width
    sign = np.where(rises[:, 0], -1, 1).astype(np.int32)[of]
    return (row - top)[inside], column[inside], sign[inside]
