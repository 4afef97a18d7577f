"""A first glance at an image: what its overview tells before any region is read.

How it is rendered, where it is filled, where it is worth looking, and what an annotator learns from the whole of it.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..model.annotator import Annotator, Fitting, Sight
from ..readers.bands import resolve
from ..readers.dicom.reader import study_stretch
from ..readers.errors import ReadError, RequestError
from ..readers.image import ImageInfo, Mask
from ..readers.overview import read_overview
from ..readers.patches import grown
from ..readers.regions import Region
from ..readers.registry import open_image
from ..readers.render import Stretch, fit_stretch, render, rgb_channels
from ..readers.tissue import drawn_mask, overview_limit
from .config import Settings
from .interest import Drawn, Interest, find_interest

DILATION = (2, 2)  # overview pixels: what is valid by less than half of one must not be lost


@dataclass(frozen=True, slots=True)
class Filled:
    """Where an overview may hold valid pixels, a little enlarged; `scale` level-0 pixels a pixel (x, y)."""

    mask: Mask
    scale: tuple[float, float]

    def touches(self, region: Region) -> bool:
        """Whether a region's core may hold a valid pixel."""
        core = region.core
        x0, x1 = math.floor(core.x0 / self.scale[0]), math.ceil(core.x1 / self.scale[0])
        y0, y1 = math.floor(core.y0 / self.scale[1]), math.ceil(core.y1 / self.scale[1])
        return bool(self.mask[y0:y1, x0:x1].any())


@dataclass(frozen=True, slots=True)
class Glance:
    """What an overview tells. `stretch` is None where 8-bit RGB would be a guess, and `unseen` then says why."""

    stretch: Stretch | None
    unseen: str
    filled: Filled
    interest: Interest


def channel_names(info: ImageInfo, sight: Sight, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a sight needs, in its order: its bands, or the stretch's channels for RGB."""
    if sight.bands is None:
        return () if stretch is None else stretch.channels
    return resolve(info.channels, sight.bands)


def glance(info: ImageInfo, sight: Sight, settings: Settings, drawn: Drawn | None) -> Glance:
    """Look at the overview: a slide's at the scale at which tissue is told from glass. Raises `LimnerError`."""
    unseen = ""
    try:
        shown = rgb_channels(info.channels)
    except ReadError as error:
        shown, unseen = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
    names = tuple(dict.fromkeys([*shown, *channel_names(info, sight, None)])) or (info.channels[0].name,)
    with open_image(info, names) as image:
        seen = read_overview(image, limit=overview_limit(info)) if info.kind == "slide" else read_overview(image)
        stretch = None
        if shown:
            pixels, channels = seen.pixels[..., : len(shown)], image.channels[: len(shown)]
            stretch = study_stretch(info, fit_stretch(pixels, seen.valid, channels, _limits(info, sight, settings)))
    interest = find_interest(info, settings, drawn, seen)
    return Glance(stretch, unseen, Filled(grown(seen.valid | ~seen.readable, DILATION), seen.scale), interest)


def _limits(info: ImageInfo, sight: Sight, settings: Settings) -> tuple[float, float] | None:
    """Black and white as the annotator needs them or a person gave them.

    Raises `RequestError` where these differ, and for a study, which has a window of its own.
    """
    given = settings.limits()
    if given and sight.limits and given != sight.limits:
        taught = (
            "each by its own stretch"
            if sight.limits == "own"
            else "from {:g} (black) to {:g} (white)".format(*sight.limits)
        )
        raise RequestError(
            "stretch",
            f"the model was taught with pictures {taught}",
            value=",".join(settings.stretch),
            remedy="Leave --stretch out",
        )
    limits = given or (None if sight.limits == "own" else sight.limits)
    if limits and info.cells:
        raise RequestError(
            "stretch",
            "it is for maps and pictures; an image of a study is seen through a window",
            value=f"{limits[0]:g},{limits[1]:g}",
            remedy="Give the reader option window, such as --set reader_options.window=40,400",
        )
    return limits


def fit(annotator: Annotator, info: ImageInfo, sight: Sight, seen: Glance) -> Sight:
    """The sight, with what the annotator learns from the overview at about the sight's own resolution.

    At most 4096 pixels on the long side. Nothing is learnt where there is nothing to look at. Raises `ModelError`.
    """
    area = seen.interest.area
    if not isinstance(annotator, Fitting) or seen.stretch is None or (area is not None and area.is_empty):
        return sight
    microns = sight.resolution if sight.unit == "um" else None
    limit = overview_limit(info) if microns is None else overview_limit(info, microns)
    with open_image(info, seen.stretch.channels) as image:
        pixels, valid, _, scale = read_overview(image, limit=limit)
    inside = np.ones_like(valid) if area is None else drawn_mask(area, valid.shape, scale)
    return annotator.fit(sight, render(pixels, valid, seen.stretch), inside & valid, valid)
