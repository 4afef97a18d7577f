"""A first glance at an image: what its overview tells before any region is read.

How it is rendered, where it is filled, where it is worth looking, and what an annotator learns from the whole of it.
"""

from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, Fitting, Sight
from ...readers.errors import ReadError, RequestError
from ...readers.image import Image, ImageInfo
from ...readers.overview import read_overview
from ...readers.raster.bands import resolve
from ...readers.registry import open_image
from ...readers.render import Stretch, fit_stretch, image_stretch, render, rgb_channels
from ...readers.slide.tissue import drawn_mask, overview_limit
from ..config import Settings
from .roi import Interest, find_interest


@dataclass(frozen=True, slots=True)
class Glance:
    """What an overview tells of an image that is seen as `sight`, in which is what the annotator learnt from it.

    `stretch` is None where 8-bit RGB would be a guess, and `unseen` then says why.
    """

    sight: Sight
    stretch: Stretch | None
    unseen: str
    interest: Interest


def channel_names(info: ImageInfo, sight: Sight, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a sight needs, in its order: its bands, or the stretch's channels for RGB."""
    if sight.bands is None:
        return () if stretch is None else stretch.channels
    return resolve(info.channels, sight.bands)


def glance(info: ImageInfo, sight: Sight, settings: Settings, annotator: Annotator | None) -> Glance:
    """Look at the overview: a slide's at the scale at which tissue is told from glass. Opens the image once.

    Raises `LimnerError`, also where an annotator that sees rendered pictures cannot be shown one.
    """
    unseen = ""
    try:
        shown = rgb_channels(info.channels)
    except ReadError as error:
        shown, unseen = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
    if unseen and annotator is not None and sight.bands is None:
        raise ReadError(info.uri, f"the model sees pictures in RGB, and {unseen}", remedy="Name the bands with --bands")
    names = tuple(dict.fromkeys([*shown, *channel_names(info, sight, None)])) or (info.channels[0].name,)
    with open_image(info, names) as image:
        seen = read_overview(image, limit=overview_limit(info)) if info.kind == "slide" else read_overview(image)
        stretch = None
        if shown:
            pixels, channels = seen.pixels[..., : len(shown)], image.channels[: len(shown)]
            stretch = image_stretch(info, fit_stretch(pixels, seen.valid, channels, _limits(info, sight, settings)))
        interest = find_interest(info, settings, seen)
        if isinstance(annotator, Fitting) and stretch is not None and sight.bands is None:
            sight = _fit(annotator, image, sight, stretch, interest.area)
    return Glance(sight, stretch, unseen, interest)


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
    if limits and info.kind == "study":
        raise RequestError(
            "stretch",
            "it is for maps and pictures; an image of a study is seen through a window",
            value=f"{limits[0]:g},{limits[1]:g}",
            remedy="Give the reader option window, such as --set reader_options.window=40,400",
        )
    return limits


def _fit(annotator: Fitting, image: Image, sight: Sight, stretch: Stretch, area: BaseGeometry | None) -> Sight:
    """The sight, with what the annotator learns from the overview at about the sight's own resolution.

    At most 4096 pixels on the long side. Nothing is learnt where there is nothing to look at. Raises `ModelError`.
    """
    if area is not None and area.is_empty:
        return sight
    microns = sight.resolution if sight.unit == "um" else None
    limit = overview_limit(image.info) if microns is None else overview_limit(image.info, microns)
    pixels, valid, _, scale = read_overview(image, limit=limit)
    inside = np.ones_like(valid)
    if area is not None and len(image.info.planes) == 1:  # no montage
        inside = drawn_mask(area, valid.shape, scale)
    return annotator.fit(sight, render(pixels, valid, stretch), inside & valid, valid)
