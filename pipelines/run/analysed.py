"""Which pixels of an image were analysed: what a run keeps of that are sums, so masks are read from the image again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from ...model.views import read_core_mask
from ...readers.image import Image, ImageInfo, Mask
from ...readers.regions import Region
from ...readers.registry import open_image
from .features import ReadRaster
from .masks import MASK
from .overview_stats import channel_names
from .plan import ImagePlan
from .run_folder import Entry


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
