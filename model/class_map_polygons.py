"""Class maps become polygons that follow pixel edges.

The tracing is GDAL's polygoniser, through rasterio: nothing else here is as fast (its two-arm chains need two passes
over the map), it follows pixel edges rather than pixel centres, and its rings are always valid. This is the one file
of the package that imports rasterio, and it does so when first called. No raster file is involved.

What lies inside a polygon is summed by its corners, from an integral image (Crow 1984, Summed-area tables for texture
mapping; Green's theorem for outlines of pixel edges): burning the polygons back would take minutes for a large one.
"""

# rasterio has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

STEPS = 2**24  # a float32 between a half and one has no finer step


@dataclass(frozen=True, slots=True)
class Patch:
    """One 4-connected patch of a class: `polygon` in pixel corners, `pixels` inside it and their mean `score`."""

    value: int
    polygon: Polygon
    pixels: int
    score: float


def polygonise(
    classes: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32], wanted: npt.NDArray[np.bool_]
) -> list[Patch]:
    """All 4-connected patches of a class map (H, W) within `wanted`, whose pixels' `scores` (0 to 1) are averaged.

    Polygons are valid, have whole-numbered vertices only where their outline turns, and partition `wanted`. Sums are
    exact in steps of 2^-24, so a mean does not depend on what else is on the map.
    """
    from rasterio.features import shapes

    corners: list[tuple[float, float]] = []
    rings, polygons, values = [0], [0], list[int]()
    for traced, value in shapes(classes, mask=wanted, connectivity=4):
        for ring in traced["coordinates"]:
            corners += ring
            rings.append(len(corners))
        polygons.append(len(rings) - 1)
        values.append(int(value))
    if not values:
        return []
    xy = np.asarray(corners, dtype=np.float64)
    outlines = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (np.asarray(rings), np.asarray(polygons)))
    pixels = np.rint(shapely.area(outlines)).astype(np.int64)
    table = _integral(np.rint(scores * STEPS).astype(np.int64))
    totals = _inside(table, xy.astype(np.intp), np.asarray(rings), np.asarray(polygons))
    return [
        Patch(value, outline, count, total / STEPS / count)
        for value, outline, count, total in zip(values, outlines, pixels.tolist(), totals.tolist(), strict=True)
    ]


def _integral(image: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(H, W) → (H + 1, W + 1): the sum of everything above and to the left of each pixel corner."""
    table = np.zeros((image.shape[0] + 1, image.shape[1] + 1), dtype=np.int64)
    np.cumsum(image, axis=0, out=table[1:, 1:])
    return np.cumsum(table, axis=1, out=table)


def _inside(
    table: npt.NDArray[np.int64], xy: npt.NDArray[np.intp], rings: npt.NDArray[np.intp], polygons: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """Exact sums of an image within polygons of pixel edges, (n,), from its integral `table`.

    Ring i is the closed chain `xy[rings[i]:rings[i + 1]]`, polygon j the rings `polygons[j]:polygons[j + 1]`, outer
    ring first. A vertical edge from y0 to y1 at x stands for all pixels left of it, with the sign of its direction.
    """
    x, y = xy.T
    edges = np.where(x[1:] == x[:-1], table[y[1:], x[:-1]] - table[y[:-1], x[:-1]], 0)
    edges[rings[1:-1] - 1] = 0  # from one ring's end to the next one's beginning
    sums = -np.abs(np.add.reduceat(edges, rings[:-1]))
    sums[polygons[:-1]] *= -1  # outer rings count, holes are taken away
    return np.add.reduceat(sums, polygons[:-1])
