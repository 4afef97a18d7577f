"""Class maps become polygons that follow pixel edges.

The tracing is GDAL's polygoniser, through rasterio: nothing else here is as fast (its two-arm chains need two passes
over the map), it follows pixel edges rather than pixel centres, and its rings are always valid. This is the one file
of the package that imports rasterio, and it does so when first called. No raster file is involved.
"""

# rasterio has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon


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
    """All 4-connected patches of a class map (H, W) within `wanted`, whose pixels' `scores` are averaged.

    Polygons are valid, have whole-numbered vertices only where their outline turns, and partition `wanted`.
    """
    from rasterio.features import rasterize, shapes  # noqa: PLC0415 - see above

    points: list[tuple[float, float]] = []
    rings, polygons, values = [0], [0], list[int]()
    for traced, value in shapes(classes, mask=wanted, connectivity=4):
        for ring in traced["coordinates"]:
            points += ring
            rings.append(len(points))
        polygons.append(len(rings) - 1)
        values.append(int(value))
    if not values:
        return []
    outlines = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, np.asarray(points, dtype=np.float64), (np.asarray(rings), np.asarray(polygons))
    )
    numbered = ((outline, i) for i, outline in enumerate(outlines, 1))
    owners = rasterize(numbered, out_shape=classes.shape, fill=0, dtype="int32")
    owner = cast("npt.NDArray[np.int32]", owners).ravel()
    pixels = np.bincount(owner, minlength=len(values) + 1)[1:]
    totals = np.bincount(owner, weights=scores.ravel(), minlength=len(values) + 1)[1:]
    return [
        Patch(value, outline, int(count), float(total) / int(count))
        for value, outline, count, total in zip(values, outlines, pixels, totals, strict=True)
    ]
