"""Which pixels of an image were analysed: what a run keeps of that are sums, so masks are read from the image again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import shapely

from ...model.class_maps import polygonise
from ...model.views import read_core_mask
from ...readers.geometry import Points
from ...readers.image import Image, ImageInfo, Mask
from ...readers.regions import Grid, Region
from ...readers.registry import open_image
from .features import ReadRaster
from .masks import MASK
from .overview_stats import channel_names
from .plan import ImagePlan
from .run_folder import Entry

MaskedCores = Callable[[], Iterable[tuple[Region, Mask]]]
"""The regions of which something is masked, with what of their cores (H, W). Raises `LimnerError`."""


def analysed_cores(
    plan: ImagePlan,
    entries: Sequence[Entry | None],
    original: Callable[[], ImageInfo],
    read: ReadRaster,
) -> Iterator[tuple[Region, Mask | None]]:
    """Each analysed region with where its core (H, W) was analysed; None for all of it, which takes no reading.

    `entries` are those of the plan's regions; `original` gives the image's metadata with real paths, and `read`
    the mask of a core. Raises `LimnerError`.
    """
    image: Image | None = None
    with ExitStack() as stack:
        for region, entry in zip(plan.regions, entries, strict=True):
            if entry is None or entry.status != "done":
                continue
            cover = entry.coverage
            excluded = plan.mask is not None and plan.mask.excludes and cover is not None and cover.masked_px > 0
            if cover is None or not (cover.invalid_px or cover.outside_px):
                yield region, ~read(entry, MASK) if excluded else None
                continue
            if image is None:
                info = original()
                image = stack.enter_context(open_image(info, channel_names(info, plan.spec, plan.stretch)))
            mask = read_core_mask(image, region, plan.spec, stretch=plan.stretch, roi=plan.area)
            yield region, mask & ~read(entry, MASK) if excluded else mask


def masked_cores(plan: ImagePlan, entries: Sequence[Entry | None], read: ReadRaster) -> Iterator[tuple[Region, Mask]]:
    """Each region of which something is masked, and what of its core (H, W). Raises `LimnerError`."""
    for region, entry in zip(plan.regions, entries, strict=True):
        if entry is not None and entry.coverage is not None and entry.coverage.masked_px:
            yield region, read(entry, MASK)


def masked_polygons(cores: Iterable[tuple[Region, Mask]]) -> npt.NDArray[np.object_]:
    """What is masked as polygons in level-0 pixels, each within one region."""
    found: list[npt.NDArray[np.object_]] = [np.empty(0, dtype=object)]
    for region, mask in cores:
        grid, start = region.grid, (region.columns.core_start, region.rows.core_start)
        patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
        shapes = np.array([patch.polygon for patch in patches], dtype=object)

        def to_level0(xy: Points, grid: Grid = grid, start: tuple[int, int] = start) -> Points:
            return grid.orientation.to_level0((xy + start) * grid.upright_scale, grid.size)

        found.append(np.asarray(shapely.transform(shapes, to_level0), dtype=object))
    return np.concatenate(found)
