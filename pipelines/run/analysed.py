"""Which pixels of an image were analysed: what a run keeps of that are sums, so masks are read from the image again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from ...model.views import read_core_mask
from ...readers.image import Image, ImageInfo, Mask
from ...readers.regions import Region
from ...readers.registry import open_image
from .overview_stats import channel_names
from .plan import ImagePlan
from .run_folder import Entry


def analysed_cores(
    plan: ImagePlan, entries: Sequence[Entry | None], original: Callable[[], ImageInfo]
) -> Iterator[tuple[Region, Mask | None]]:
    """Each analysed region with where its core (H, W) was analysed; None for all of it, which takes no reading.

    `entries` are those of the plan's regions; `original` gives the image's metadata with real paths. Raises
    `LimnerError`.
    """
    image: Image | None = None
    with ExitStack() as stack:
        for region, entry in zip(plan.regions, entries, strict=True):
            if entry is None or entry.status != "done":
                continue
            cover = entry.coverage
            if cover is None or not (cover.invalid_px or cover.outside_px):
                yield region, None
                continue
            if image is None:
                info = original()
                image = stack.enter_context(open_image(info, channel_names(info, plan.spec, plan.stretch)))
            yield region, read_core_mask(image, region, plan.spec, stretch=plan.stretch, roi=plan.area)
