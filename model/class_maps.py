"""Class maps: run a segmentation network on every tile of a view, and trace its classes as polygons.

The tracing is GDAL's polygoniser, through rasterio: it follows pixel edges rather than pixel centres, its rings are
always valid, and no other library is as fast. This is the one file of the package that imports rasterio, and no raster
file is involved. The mean score within a polygon is a sum over its corners, from an integral image (Crow 1984,
Summed-area tables for texture mapping; Green's theorem for outlines of pixel edges): rasterising the polygons again
would take minutes on a large map.
"""

# rasterio has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

from ..readers.errors import ModelError
from ..readers.image import Mask, Pixels
from .annotator import Answer, InputSpec, View
from .scores import require_finite, require_probabilities
from .tiling import TileGrid

ClassScores = npt.NDArray[np.float32]

SegmentTile = Callable[[Pixels, Mask], ClassScores]
"""A tile (H, W, C) and its valid mask (H, W) → scores or logits (H, W, classes), which depend on nothing else."""

_FLIPS = (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1])

_SCORE_BYTES = 4
FEW_CLASSES = 16  # which are compared one after the other: numpy's argmax is slow along a short axis
_ROWS = 64  # pixel rows that are added up at a time, which stay in the processor's cache
STEPS = 2**24  # a float32 between a half and one has no finer step


@dataclass(frozen=True, slots=True)
class Averaging:
    """Which scores of a pixel are averaged before its class is chosen."""

    blend: bool = False
    """Those of all tiles that show it, weighted by sin² from 0 at a tile's edge to 1 at the end of its overlap."""
    flips: bool = False
    """Those of its tile and of its tile's three mirror images."""


def class_map_to_polygons(
    view: View,
    segment: SegmentTile,
    to_scores: Callable[[ClassScores], ClassScores] = lambda values: values,
    decide: Callable[[ClassScores], ClassScores] = lambda scores: scores,
    *,
    classes: Sequence[str],
    background: Collection[int] = (),
    network: str,
    averaging: "Averaging | None" = None,
) -> list[Answer]:
    """Trace the 4-connected areas of the class with the highest score, each with the mean of that score.

    `to_scores` makes scores from 0 to 1 of the network's values; `decide` changes them (H, W, classes) once they are
    averaged, to 0 for a class that must not be chosen. `view.probabilities`, where it is asked for, gets them before
    that. Classes whose index is in `background` give no areas, nor do pixels whose scores are all 0. Tiles are run one
    at a time, so that an answer cannot depend on the batch; a tile without a kept pixel in its core is not run. A pixel
    has the scores of the tile in whose core it lies, unless `averaging` says otherwise. `network` names the network in
    errors. Raises `ModelError` where its values have another shape, are not finite, or are no scores from 0 to 1.
    """
    averaging = averaging or Averaging()
    of = f"network {network}"

    def scores_of(tile: Pixels, valid: Mask, used: tuple[slice, slice]) -> ClassScores:
        values = segment(tile, valid)
        if values.shape != (*valid.shape, len(classes)):
            rule = f"must return {(*valid.shape, len(classes))} values a tile, one per class"
            remedy = "Correct the classes or the layout that are stated for it"
            raise ModelError(of, rule, value=str(values.shape), remedy=remedy)
        remedy = "Check its file, the region's pixel values, and the mean and std that are stated for it"
        require_finite(values[used], "values of a tile", of=of, at=f"on {view.region.key}", remedy=remedy)
        return require_probabilities(to_scores(values[used]), of=of)

    def mean_scores(tile: Pixels, valid: Mask, used: tuple[slice, slice]) -> ClassScores:
        if not averaging.flips:
            return scores_of(tile, valid, used)
        whole = np.s_[:, :]
        mirrored = [scores_of(tile[turn], valid[turn], whole)[turn][used] for turn in _FLIPS]
        return np.asarray(np.mean(mirrored, axis=0, dtype=np.float32), dtype=np.float32)

    found = np.zeros(view.keep_mask.shape, dtype=np.uint8)
    scores = np.zeros(view.keep_mask.shape, dtype=np.float32)
    boxes = view.grid.boxes()
    total = np.zeros((*view.keep_mask.shape, len(classes) + 1), dtype=np.float32) if averaging.blend else None
    weights = _blend_weights(view.grid.tile, view.grid.overlap)
    for tile, valid, (left, top, right, bottom), core in zip(
        view.tiles, view.valid, boxes, view.grid.core_boxes(), strict=True
    ):
        x0, y0, x1, y1 = (left, top, right, bottom) if averaging.blend else core
        if not view.keep_mask[y0:y1, x0:x1].any():
            continue
        probabilities = mean_scores(tile, valid, np.s_[y0 - top : y1 - top, x0 - left : x1 - left])
        if total is None:
            found[y0:y1, x0:x1], scores[y0:y1, x0:x1] = _best(decide(probabilities))
            _keep(view, np.s_[y0:y1, x0:x1], classes, probabilities)
        else:
            total[y0:y1, x0:x1, :-1] += probabilities * weights
            total[y0:y1, x0:x1, -1:] += weights
    if total is not None:
        mean = total[..., :-1]
        np.divide(mean, total[..., -1:], out=mean, where=total[..., -1:] > 0)
        found, scores = _best(decide(mean))
        _keep(view, np.s_[:, :], classes, mean)
    counts = np.isin(np.arange(len(classes)), list(background), invert=True)
    keep = view.keep_mask & counts[found] & (scores > 0)
    return [
        Answer(classes[one.value], one.polygon, "area", min(1.0, one.score), numbers={"pixels": float(one.pixels)})
        for one in polygonise(found, scores, keep)
    ]


def _keep(view: View, window: tuple[slice, slice], classes: Sequence[str], scores: ClassScores) -> None:
    """Keep the scores (H, W, classes) of a window of the canvas, where the run keeps probabilities."""
    if view.probabilities is not None:
        for index, name in enumerate(classes):
            view.probabilities.put(name, window, scores[..., index])


def class_map_bytes(specs: Sequence[InputSpec], tiles: tuple[int, int], *, classes: int, averaging: Averaging) -> float:
    """Bytes that `class_map_to_polygons` holds for a region of (columns, rows) tiles of any of these specs.

    They are those of the scores that are blended: a map of classes is counted for every region.
    """
    per_pixel = _SCORE_BYTES * (classes + 1) if averaging.blend else 0
    canvases = (TileGrid.exact(*tiles, tile=spec.tile, overlap=2 * spec.halo).size for spec in specs)
    return max((width * height * per_pixel for width, height in canvases), default=0.0)


def _best(scores: ClassScores) -> tuple[npt.NDArray[np.uint8], ClassScores]:
    """The class (H, W) with the highest of the scores (H, W, classes), the first of equals, and that score (H, W)."""
    if scores.shape[2] > FEW_CLASSES:
        return scores.argmax(axis=2).astype(np.uint8), scores.max(axis=2)
    best, found = scores[..., 0].copy(), np.zeros(scores.shape[:2], dtype=np.uint8)
    for index in range(1, scores.shape[2]):
        np.copyto(found, np.uint8(index), where=scores[..., index] > best)
        np.maximum(best, scores[..., index], out=best)
    return found, best


def _blend_weights(tile: int, overlap: int) -> npt.NDArray[np.float32]:
    """The weight (tile, tile, 1) of each pixel of a tile; those of two neighbours add up to 1 where they overlap."""
    edge = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    axis = np.sin(np.pi / 2 * np.minimum(1.0, edge / max(overlap, 0.5))) ** 2
    return np.multiply.outer(axis, axis)[..., None].astype(np.float32)


@dataclass(frozen=True, slots=True)
class ClassPolygon:
    """One 4-connected patch of a class."""

    value: int
    """The class."""
    polygon: Polygon
    """In pixel corners."""
    pixels: int
    """How many pixels are inside."""
    score: float
    """Their mean score."""


def polygonise(
    classes: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32], keep_mask: npt.NDArray[np.bool_]
) -> list[ClassPolygon]:
    """Trace all 4-connected patches of a class map (H, W) within `keep_mask`, and average their `scores` (0 to 1).

    Polygons are valid, have whole-numbered vertices only where their outline turns, and partition `keep_mask`. Sums are
    exact in steps of 2^-24, so a mean does not depend on what else is on the map.
    """
    outlines, values, xy, rings, polygons = trace(classes, keep_mask)
    if not len(outlines):
        return []
    pixels = np.rint(shapely.area(outlines)).astype(np.int64)
    corners = xy.astype(np.intp)
    totals = _polygon_sums(_sums_above(scores, corners), corners, rings, polygons)
    return [
        ClassPolygon(value, outline, count, total / STEPS / count)
        for value, outline, count, total in zip(
            values.tolist(), outlines, pixels.tolist(), totals.tolist(), strict=True
        )
    ]


class Traced(NamedTuple):
    """The 4-connected patches of a map."""

    outlines: npt.NDArray[np.object_]
    """(N,) valid polygons in pixel corners, whose vertices are where the outline turns."""
    values: npt.NDArray[np.int64]
    """(N,) the map's values."""
    xy: npt.NDArray[np.float64]
    """The vertices of all."""
    rings: npt.NDArray[np.intp]
    """Where each ring begins among `xy`, and the last one ends."""
    polygons: npt.NDArray[np.intp]
    """Where each polygon begins among `rings`, and the last one ends."""


def trace(values: npt.NDArray[np.uint8] | npt.NDArray[np.int32], mask: npt.NDArray[np.bool_]) -> Traced:
    """Trace all 4-connected patches of equal values of a map (H, W) within a mask."""
    from rasterio.features import shapes

    corners: list[tuple[float, float]] = []
    rings, polygons, found = [0], [0], list[int]()
    for traced, value in shapes(values, mask=mask, connectivity=4):
        for ring in traced["coordinates"]:
            corners += ring
            rings.append(len(corners))
        polygons.append(len(rings) - 1)
        found.append(int(value))
    xy = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    offsets = np.asarray(rings), np.asarray(polygons)
    outlines = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets) if found else np.empty(0, object)
    return Traced(outlines, np.asarray(found, dtype=np.int64), xy, *offsets)


def draw_labels(answers: Sequence[Answer], codes: Mapping[str, int], shape: tuple[int, int]) -> npt.NDArray[np.int16]:
    """The inverse of `polygonise`: a map (H, W) with the code of the answer that covers a pixel's centre, 0 elsewhere.

    Of answers that overlap, the one with the highest score counts.
    """
    from rasterio.features import rasterize

    ranked = sorted(answers, key=lambda answer: answer.score or 0.0)
    outlined = [(answer.geometry, codes[answer.label]) for answer in ranked if answer.geometry is not None]
    if not outlined:
        return np.zeros(shape, dtype=np.int16)
    return np.asarray(rasterize(outlined, out_shape=shape, dtype="int16"), dtype=np.int16)


def _sums_above(scores: npt.NDArray[np.float32], xy: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Sums (n,) of an image (H, W), in steps of 2^-24, over all pixels above and left of the corners `xy` (n, 2).

    They are values of its integral image, which is made a few rows at a time, since all of it would take much memory.
    """
    order = np.argsort(xy[:, 1], kind="stable")
    x, y = xy[order].T
    found = np.zeros(len(xy), dtype=np.int64)
    above = np.zeros(scores.shape[1], dtype=np.int64)
    for top in range(0, len(scores), _ROWS):
        strip = np.rint(scores[top : top + _ROWS] * np.float32(STEPS)).astype(np.int64)
        np.cumsum(strip, axis=1, out=strip)
        strip[0] += above
        np.cumsum(strip, axis=0, out=strip)
        above = strip[-1]
        here = slice(*np.searchsorted(y, (top + 1, top + 1 + len(strip))))  # corners on the lower edges of these rows
        left = x[here] - 1
        found[order[here]] = np.where(left < 0, 0, strip[y[here] - top - 1, left])
    return found


def _polygon_sums(
    above: npt.NDArray[np.int64], xy: npt.NDArray[np.intp], rings: npt.NDArray[np.intp], polygons: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """Exact sums of an image within polygons of pixel edges, (n,), from the `_sums_above` of their corners.

    Ring i is the closed chain `xy[rings[i]:rings[i + 1]]`, polygon j the rings `polygons[j]:polygons[j + 1]`, outer
    ring first. A vertical edge from y0 to y1 at x counts all pixels left of it, with the sign of its direction.
    """
    edges = np.where(xy[1:, 0] == xy[:-1, 0], above[1:] - above[:-1], 0)
    edges[rings[1:-1] - 1] = 0  # from one ring's end to the next one's beginning
    sums = -np.abs(np.add.reduceat(edges, rings[:-1]))
    sums[polygons[:-1]] *= -1  # outer rings are added, holes subtracted
    return np.add.reduceat(sums, polygons[:-1])


def fill_invalid(tile: Pixels, valid: Mask) -> Pixels:
    """A tile (H, W, C) whose invalid pixels repeat the nearest valid one of their row, or of the nearest row with any.

    A constant would make an edge that networks respond to: at the border of a scene, it changes several times as many
    classes as repeated border pixels do.
    """
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if len(rows) and valid[(here := np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])].all():
        filled = tile.copy("K")  # at the border of a scene: invalid is what lies beyond a rectangle
        wide, (top, bottom), (left, right) = filled[here[0]], rows[[0, -1]], columns[[0, -1]]
        wide[:, :left], wide[:, right + 1 :] = wide[:, left, None], wide[:, right, None]
        filled[:top], filled[bottom + 1 :] = filled[top], filled[bottom]
        return filled
    row = _nearest(np.any(valid, axis=1, keepdims=True).T)[0]
    return tile[row[:, None], _nearest(valid)[row]]


def _nearest(valid: Mask) -> npt.NDArray[np.intp]:
    """For each place of each row (H, W) the column of the nearest valid one, the left of two; 0 where none is."""
    width = valid.shape[1]
    here = np.arange(width, dtype=np.intp)
    left = np.maximum.accumulate(np.where(valid, here, -width), axis=1)
    right = np.minimum.accumulate(np.where(valid, here, 2 * width)[:, ::-1], axis=1)[:, ::-1]
    return np.where(here - left <= right - here, left, right) % width
