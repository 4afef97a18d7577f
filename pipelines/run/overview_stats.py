"""A first glance at an image: what its overview tells before any region is read.

How it is rendered, where it is filled, where it is worth looking, and what an annotator learns from the whole of it.
"""

from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, Fitting, InputSpec
from ...readers.errors import ReadError, RequestError
from ...readers.image import Image, ImageInfo
from ...readers.overview import read_overview
from ...readers.raster.bands import find_channels
from ...readers.registry import open_image
from ...readers.render import Stretch, display_stretch, fit_stretch, render, rgb_channels
from ...readers.slide.tissue import overview_side, polygon_mask
from ..config import Settings
from .roi import RegionOfInterest, find_roi


@dataclass(frozen=True, slots=True)
class OverviewStats:
    """What an overview tells of an image that is seen as `spec`, in which is what the annotator learnt from it.

    `stretch` is None where 8-bit RGB would be a guess, and `unseen` then says why.
    """

    spec: InputSpec
    stretch: Stretch | None
    unseen: str
    interest: RegionOfInterest


def channel_names(info: ImageInfo, spec: InputSpec, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a spec needs, in its order: its bands, or the stretch's channels for RGB."""
    if spec.bands is None:
        return () if stretch is None else stretch.channels
    return find_channels(info.channels, spec.bands)


def glance(info: ImageInfo, spec: InputSpec, settings: Settings, annotator: Annotator | None) -> OverviewStats:
    """Look at the overview: a slide's at the scale at which tissue is told from glass. Opens the image once.

    Raises `LimnerError`, also where an annotator that sees rendered pictures cannot be shown one.
    """
    unseen = ""
    try:
        shown = rgb_channels(info.channels)
    except ReadError as error:
        shown, unseen = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
    if unseen and annotator is not None and spec.bands is None:
        raise ReadError(info.uri, f"the model sees pictures in RGB, and {unseen}", remedy="Name the bands with --bands")
    names = tuple(dict.fromkeys([*shown, *channel_names(info, spec, None)])) or (info.channels[0].name,)
    with open_image(info, names) as image:
        seen = read_overview(image, limit=overview_side(info)) if info.kind == "slide" else read_overview(image)
        stretch = None
        if shown:
            pixels, channels = seen.pixels[..., : len(shown)], image.channels[: len(shown)]
            stretch = display_stretch(info, fit_stretch(pixels, seen.valid, channels, _limits(info, spec, settings)))
        interest = find_roi(info, settings, seen)
        if isinstance(annotator, Fitting) and stretch is not None and spec.bands is None:
            spec = _fit(annotator, image, spec, stretch, interest.area)
    return OverviewStats(spec, stretch, unseen, interest)


def _limits(info: ImageInfo, spec: InputSpec, settings: Settings) -> tuple[float, float] | None:
    """Black and white as the annotator needs them or a person gave them.

    Raises `RequestError` where these differ, and for a study, which has a window of its own.
    """
    given = settings.limits()
    if given and spec.limits and given != spec.limits:
        taught = (
            "each by its own stretch"
            if spec.limits == "own"
            else "from {:g} (black) to {:g} (white)".format(*spec.limits)
        )
        raise RequestError(
            "stretch",
            f"the model was taught with pictures {taught}",
            value=",".join(settings.stretch),
            remedy="Leave --stretch out",
        )
    limits = given or (None if spec.limits == "own" else spec.limits)
    if limits and info.kind == "study":
        raise RequestError(
            "stretch",
            "it is for maps and pictures; an image of a study is seen through a window",
            value=f"{limits[0]:g},{limits[1]:g}",
            remedy="Give the reader option window, such as --set reader_options.window=40,400",
        )
    return limits


def _fit(annotator: Fitting, image: Image, spec: InputSpec, stretch: Stretch, area: BaseGeometry | None) -> InputSpec:
    """The spec, with what the annotator learns from the overview at about the spec's own resolution.

    At most 4096 pixels on the long side. Nothing is learnt where there is nothing to look at. Raises `ModelError`.
    """
    if area is not None and area.is_empty:
        return spec
    microns = spec.resolution if spec.unit == "um" else None
    limit = overview_side(image.info) if microns is None else overview_side(image.info, microns)
    pixels, valid, _, scale = read_overview(image, limit=limit)
    inside = np.ones_like(valid)
    if area is not None and len(image.info.planes) == 1:  # no montage
        inside = polygon_mask(area, valid.shape, scale)
    return annotator.fit(spec, render(pixels, valid, stretch), inside & valid, valid)
