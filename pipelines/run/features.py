"""Features of tiles in a run folder: rasters of each region, and how reports get them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...model.finding import PackedRaster
from ...model.probe.features import ViewFeatures
from ...model.training.tile_labels import tile_boxes
from ...reports.writer import TileFeatures
from .parts import pack_raster
from .plan import ImagePlan
from .run_folder import Entry

FEATURES: Final = "features"
_TILES: Final = "tiles"
_VALID: Final = "tiles_valid"

ReadRaster = Callable[[Entry, str], npt.NDArray[Any]]
"""A raster of a region by its name."""


def feature_rasters(found: ViewFeatures) -> dict[str, PackedRaster]:
    """The features of a region as rasters of its result; {} without a tile."""
    if not len(found.tiles):
        return {}
    rasters = {FEATURES: found.features, _TILES: found.tiles, _VALID: found.valid}
    return {name: pack_raster(raster) for name, raster in rasters.items()}


def read_features(plan: ImagePlan, entries: Sequence[Entry | None], read: ReadRaster) -> Iterator[TileFeatures]:
    """The features of an image's tiles, region by region. Raises `LimnerError`."""
    for region, entry in zip(plan.regions, entries, strict=True):
        if entry is None or entry.status != "done" or FEATURES not in entry.rasters:
            continue
        tiles = read(entry, _TILES)
        boxes = np.array([(one.x0, one.y0, one.x1, one.y1) for one in tile_boxes(region, plan.spec)])
        yield TileFeatures(boxes[tiles], read(entry, FEATURES), read(entry, _VALID), region.plane)


def feature_shape(entries: Sequence[Entry | None]) -> tuple[int, int]:
    """(tiles, dimensions) of all features of an image, without reading them; (0, 0) without any."""
    shapes = [entry.rasters[FEATURES].shape for entry in entries if entry is not None and FEATURES in entry.rasters]
    return sum(shape[0] for shape in shapes), max((shape[1] for shape in shapes), default=0)
