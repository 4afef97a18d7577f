"""The mean intensity of objects by channel, from the image's pixels at the analysed resolution.

The image is read again, in blocks that lie on its grid whatever the regions of the run were.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ...model.merged_findings import MergedFindings, in_batches
from ...model.objects.outlines import Outlines, follow_pixels
from ...model.objects.watershed import MEAN
from ...model.views import PhysicalValues, read_native
from ...readers.image import Image, ImageInfo
from ...readers.regions import Region, Span
from ...readers.registry import open_image
from .overview_stats import channel_names
from .plan import ImagePlan

_BLOCK: Final = 1024  # grid pixels

Floats = npt.NDArray[np.float64]


def mean_intensities(found: MergedFindings, plan: ImagePlan, info: ImageInfo) -> Mapping[str, Floats]:
    """`MEAN` and a channel → the mean (N,) of the valid pixels of each area; NaN for other findings.

    It is NaN where no pixel is valid, too. Values are those of the file, or physical ones where the model takes bands.
    Raises `LimnerError`.
    """
    names = channel_names(info, plan.spec, plan.stretch)
    grid = plan.grid
    bounds = [table.bounds for _, table in in_batches(found)]
    corners = grid.from_level0(np.concatenate(bounds).reshape(-1, 2)).reshape(-1, 2, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    sums = np.zeros((len(found), len(names) + 1))
    with open_image(info, names) as image:
        labels = [channel.name for channel in image.channels]
        for plane in found.planes:
            for top in range(0, grid.shape[1], _BLOCK):
                row = np.flatnonzero((low[:, 1] < top + _BLOCK) & (high[:, 1] > top))
                for left in range(0, grid.shape[0], _BLOCK):
                    here = row[(low[row, 0] < left + _BLOCK) & (high[row, 0] > left)]
                    if len(here):
                        right, bottom = min(left + _BLOCK, grid.shape[0]), min(top + _BLOCK, grid.shape[1])
                        region = Region(
                            grid, Span(left, right, left, right, 1), Span(top, bottom, top, bottom, 1), plane
                        )
                        _add(sums, found, here, image, region, plan)
    count = sums[:, -1]
    with np.errstate(invalid="ignore"):
        return {MEAN + name: sums[:, i] / np.where(count > 0, count, np.nan) for i, name in enumerate(labels)}


def _add(
    sums: Floats, found: MergedFindings, rows: npt.NDArray[np.intp], image: Image, region: Region, plan: ImagePlan
) -> None:
    """Add the pixels of a block to the sums of the areas that have them."""
    table = found.take(rows)
    areas = table.is_area & (table.plane == region.plane) & follow_pixels(table.geometries, region.grid)
    rows = rows[areas]
    if not len(rows):
        return
    pixels, valid = read_native(image, region)
    values = pixels
    if plan.spec.bands is not None:
        physical = PhysicalValues.of(image, plan.spec.bands, plan.spec.quantity)
        valid = physical.valid(pixels, valid)
        values = physical(pixels, valid)
    outlines = Outlines.of(table.geometries[areas], region.grid)
    shift = np.broadcast_to(np.array([-region.columns.start, -region.rows.start]), (len(rows), 2))
    numbered = outlines.draw(np.arange(1, len(rows) + 1, dtype=np.int32), shift, valid.shape)
    inside = (numbered > 0) & valid
    of = numbered[inside] - 1
    for channel in range(pixels.shape[2]):
        here = values[..., channel][inside]
        weights = (np.abs(here) if np.iscomplexobj(here) else here).astype(np.float64)
        sums[rows, channel] += np.bincount(of, weights, minlength=len(rows))
    sums[rows, -1] += np.bincount(of, minlength=len(rows))
