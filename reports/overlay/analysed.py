"""The analysed part of an image as outlines, along the same pixel edges as areas that were traced there."""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Iterator

import numpy as np
import shapely

from ...model.class_maps import polygonise
from ...readers.geometry import Points
from ...readers.image import Mask
from ...readers.regions import Region
from ..measures import Shapes
from ..writer import ImageRecord


def analysed_outlines(image: ImageRecord) -> Iterator[Shapes]:
    """The analysed polygons of an image in level-0 pixels, region by region; none overlap.

    Masks of regions that were analysed in part are read from the image again. Raises `LimnerError` where it cannot be.
    """
    if image.outlines is not None:
        yield from image.outlines()
        return
    for region, mask in image.analysed() if image.analysed is not None else ():
        if mask is None:
            core = region.core
            yield np.array([shapely.box(core.x0, core.y0, core.x1, core.y1), None], dtype=object)[:-1]
        else:
            yield _traced(region, mask)


def _traced(region: Region, mask: Mask) -> Shapes:
    """The outlines of a region's mask (H, W), which is that of its core in grid pixels."""
    found = polygonise(mask.astype(np.uint8), np.zeros(mask.shape, dtype=np.float32), mask)
    shapes = np.array([*(one.polygon for one in found), None], dtype=object)[:-1]
    grid, start = region.grid, (region.columns.core_start, region.rows.core_start)

    def to_level0(xy: Points) -> Points:
        absolute, size = xy + start, np.asarray(grid.upright_size, dtype=np.float64)
        inner = np.clip(absolute * np.asarray(grid.upright_scale), 0.0, size)
        return grid.orientation.to_level0(np.where(absolute >= np.asarray(grid.shape), size, inner), grid.size)

    return np.asarray(shapely.transform(shapes, to_level0), dtype=object)
