"""Pictures for reports: the overview of an image, which may be kept, and what is read again from its files."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from ...readers.errors import LimnerError, ReadError
from ...readers.geometry import Box
from ...readers.image import Image, ImageInfo
from ...readers.overview import OVERVIEW_SIDE, Montage, ReducedImage, read_overview
from ...readers.registry import open_image
from ...readers.render import Stretch, render
from ...reports.writer import ImageRecord, Overview
from ..pixel_size import ground_metres, pixel_aspect
from .kept_overviews import KeptOverviews
from .overview_stats import needed_channels
from .plan import ImagePlan

_KEPT_BYTES: Final = 128 << 20

Item = TypeVar("Item")


def with_shared_overviews(images: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The images, with the overviews that were asked for last kept in memory.

    Several reports show them, and reading one of a slide takes seconds.
    """
    kept: OrderedDict[str, Overview | None] = OrderedDict()

    def overview(image: ImageRecord) -> Overview | None:
        name = image.info.id
        if name not in kept:
            kept[name] = image.overview()
            while len(kept) > 1 and sum(map(_bytes, kept.values())) > _KEPT_BYTES:
                kept.popitem(last=False)
        kept.move_to_end(name)
        return kept[name]

    return tuple(replace(image, overview=lambda image=image: overview(image)) for image in images)


def _bytes(overview: Overview | None) -> int:
    """The memory of an overview."""
    return 0 if overview is None else overview.pixels.nbytes + overview.valid.nbytes + overview.readable.nbytes


def overview_picture(
    plan: ImagePlan, original: Callable[[], ImageInfo], planes: Callable[[], Iterable[int]], kept: KeptOverviews
) -> Overview | None:
    """The overview of an image; None where it cannot be rendered, or the image is missing or has changed.

    The overview of a stack is a montage of slices, those of `planes` first. Errors would show real paths.
    """
    if plan.stretch is None:
        return None
    try:
        info = original()
        if info.kind == "study":
            with _open(plan, plan.stretch, info) as image:
                return _read(plan, plan.stretch, image, Montage.of(info, planes()), OVERVIEW_SIDE)
        shown = plan.stretch.channels  # come first of those that were read
        found = kept.load(info, needed_channels(info, plan.spec, shown), OVERVIEW_SIDE, first=len(shown))
        if found is None:
            with _open(plan, plan.stretch, info) as image:
                found = kept.read(image, OVERVIEW_SIDE)
        return _turned(plan, _rendered(found, plan.stretch), Montage.of(info))
    except LimnerError:
        return None


def slice_pictures(
    plan: ImagePlan, original: Callable[[], ImageInfo], planes: Sequence[int], longest: int
) -> Iterator[Overview | None]:
    """A picture of each plane, in that order; None for each where `overview_picture` would give none.

    The long side is at most `longest` px. Pixels that are not square are enlarged along their longer side.
    """

    def read(image: Image, stretch: Stretch, plane: int) -> Overview:
        return _read(plan, stretch, image, Montage(plan.info.size, (plane,)), longest, enlarge=True)

    return _pictures(plan, original, planes, read)


def part_pictures(
    plan: ImagePlan, original: Callable[[], ImageInfo], parts: Sequence[tuple[int, Box]], longest: int
) -> Iterator[Overview | None]:
    """A picture of each (plane, box in level-0 pixels), as `slice_pictures` gives them; None where one is damaged."""

    def read(image: Image, stretch: Stretch, part: tuple[int, Box]) -> Overview | None:
        plane, box = part[0], part[1].clip(*plan.info.size)
        if box is None:
            return None
        x, y = square_aspect(plan)
        across, down = box.width * max(x, y) / x, box.height * max(x, y) / y
        factor = min(1.0, longest / max(across, down))
        size = max(1, round(across * factor)), max(1, round(down * factor))
        try:
            pixels, valid = image.read(box, size, plane)
        except ReadError:
            return None
        scale = (box.width / size[0], box.height / size[1])
        found = ReducedImage(pixels, valid, np.ones_like(valid), scale)
        return _turned(plan, _rendered(found, stretch), None)

    return _pictures(plan, original, parts, read)


def _pictures(
    plan: ImagePlan,
    original: Callable[[], ImageInfo],
    items: Iterable[Item],
    read: Callable[[Image, Stretch, Item], Overview | None],
) -> Iterator[Overview | None]:
    """What `read` makes of each item; None for each where the image is missing, has changed or cannot be rendered."""
    stretch = plan.stretch
    with ExitStack() as stack:
        image: Image | None = None
        with suppress(LimnerError):
            image = None if stretch is None else stack.enter_context(_open(plan, stretch, original()))
        for item in items:
            yield None if image is None or stretch is None else read(image, stretch, item)


def _open(plan: ImagePlan, stretch: Stretch, info: ImageInfo) -> Image:
    return open_image(info, needed_channels(info, plan.spec, stretch.channels))


def _read(
    plan: ImagePlan, stretch: Stretch, image: Image, montage: Montage, longest: int, *, enlarge: bool = False
) -> Overview:
    """Planes of an image as the plan renders them, those of a study with pixels that are square in the patient."""
    aspect = square_aspect(plan)
    found = read_overview(image, limit=longest, montage=montage, aspect=aspect, enlarge=enlarge, reopen=open_image)
    return _turned(plan, _rendered(found, stretch), montage)


def square_aspect(plan: ImagePlan) -> tuple[float, float]:
    """Proportions (x, y) of the level-0 pixels behind a pixel of a study's picture that is square in the patient."""
    if plan.info.kind != "study":
        return 1.0, 1.0
    x, y = plan.grid.scale
    if plan.spec.volume is not None:  # whose grid has the stack's own voxels
        x, y = (1.0 / side for side in ground_metres(plan.info) or pixel_aspect(plan.info))
    return x / min(x, y), y / min(x, y)


def _rendered(found: ReducedImage, stretch: Stretch) -> ReducedImage:
    return found._replace(pixels=render(found.pixels[..., : len(stretch.channels)], found.valid, stretch))


def _turned(plan: ImagePlan, found: ReducedImage, montage: Montage | None) -> Overview:
    turned = plan.grid.orientation
    pixels, valid, readable = map(turned.turn, (found.pixels, found.valid, found.readable))
    return Overview(pixels, valid, readable, turned.swap(found.scale), montage, turned)
