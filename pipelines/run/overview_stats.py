"""Statistics of an image's overview, before any region is read: stretch, region of interest, fitted input spec."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, InputSpec, SupportsFit
from ...model.class_maps import polygonise
from ...readers.annotations import read_roi, roi_to_pixels
from ...readers.errors import ModelError, ReadError, RequestError
from ...readers.geodesy import on_earth
from ...readers.geometry import Box, Points
from ...readers.image import Image, ImageInfo, Mask
from ...readers.overview import Montage, ReducedImage, dilate, read_overview
from ...readers.raster.bands import find_channels
from ...readers.registry import open_image
from ...readers.render import (
    Stretch,
    Visibility,
    display_stretch,
    fit_stretch,
    render,
    rgb_channels,
    visibility,
    with_window,
)
from ...readers.slide.tissue import find_tissue, overview_side, polygon_mask, read_tissue_annotation
from ..config import Settings

DILATION = (2, 2)  # overview pixels: regions may have valid pixels that are too few for an overview pixel to be valid
EMPTY = "no valid pixels"
NOT_VISIBLE = "nothing visible in this window"
OUTSIDE = "outside the area of interest"
NO_TISSUE = "no tissue"
OUTSIDE_OR_NO_TISSUE = "outside the area of interest, or no tissue"


class OutsideAreaError(RequestError):
    """The area of interest does not touch this image, which is no error where it touches another one."""


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of an image that is analysed, in level-0 pixels."""

    user_area: BaseGeometry | None = None
    """The area of interest that the user gave; None for the whole image."""
    tissue: BaseGeometry | None = None
    """Tissue of a slide; None where it is not detected."""
    tissue_method: str = ""
    """How tissue was detected, in words."""
    valid_mask: Mask | None = None
    """Overview pixels that may hold valid pixels, dilated; None where that is not known before a region is read."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Level-0 pixels per overview pixel (x, y)."""

    @cached_property
    def area(self) -> BaseGeometry | None:
        """The intersection of user area and tissue; None for the whole image."""
        if self.user_area is None or self.tissue is None:
            return self.tissue if self.user_area is None else self.user_area
        shared = shapely.get_parts(shapely.intersection(self.user_area, self.tissue), return_index=False)
        return shapely.union_all([part for part in shared if part.geom_type == "Polygon"])

    @property
    def outside_reason(self) -> str:
        """The reason to report for the parts of a region that lie outside."""
        if self.tissue is None:
            return OUTSIDE
        return NO_TISSUE if self.user_area is None else OUTSIDE_OR_NO_TISSUE

    def skip_reason(self, core: Box) -> str:
        """Why a region with this core need not be read; "" where it must be."""
        box = shapely.box(core.x0, core.y0, core.x1, core.y1)
        if self.user_area is not None and not self.user_area.intersects(box):
            return OUTSIDE
        if self.valid_mask is not None:
            x0, x1 = math.floor(core.x0 / self.scale[0]), math.ceil(core.x1 / self.scale[0])
            y0, y1 = math.floor(core.y0 / self.scale[1]), math.ceil(core.y1 / self.scale[1])
            if not self.valid_mask[y0:y1, x0:x1].any():
                return EMPTY
        return "" if self.area is None or self.area.intersects(box) else NO_TISSUE


@dataclass(frozen=True, slots=True)
class OverviewStats:
    """What the overview of an image determines."""

    spec: InputSpec
    """The annotator's input spec, with what it has fitted on the overview."""
    stretch: Stretch | None
    """How the image is rendered in 8-bit RGB; None where the channels of RGB are not known."""
    no_rgb_reason: str
    """Why `stretch` is None, else ""."""
    roi: RegionOfInterest
    note: str = ""
    """A note for the user on what the overview shows; "" without one."""


def channel_names(info: ImageInfo, spec: InputSpec, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a spec needs, in its order: its bands, or the channels of the stretch for RGB."""
    if spec.bands is None:
        return () if stretch is None else stretch.channels
    return find_channels(info.channels, spec.bands)


def compute_overview_stats(
    info: ImageInfo, spec: InputSpec, settings: Settings, annotator: Annotator | None
) -> OverviewStats:
    """Open an image once and evaluate its overview, for slides at the resolution at which tissue is detected.

    Raises `LimnerError`, also where an annotator needs RGB and the channels of RGB are not known.
    """
    no_rgb_reason = ""
    try:
        rgb = rgb_channels(info.channels)
    except ReadError as error:
        rgb, no_rgb_reason = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
        if annotator is not None and spec.bands is None:
            remedy = "Name the bands with --bands, or choose another model"
            raise ReadError(
                info.uri, f"{error.rule}, since the model takes RGB", value=error.value, remedy=remedy
            ) from error
    names = tuple(dict.fromkeys([*rgb, *channel_names(info, spec, None)])) or (info.channels[0].name,)
    with open_image(info, names) as image:
        overview = read_overview(image, limit=overview_side(info)) if info.kind == "slide" else read_overview(image)
        stretch, note = None, ""
        if rgb:
            pixels, channels = overview.pixels[..., : len(rgb)], image.channels[: len(rgb)]
            limits = _stretch_limits(info, spec, settings)
            stretch = display_stretch(info, fit_stretch(pixels, overview.valid, channels, limits))
            if spec.bands is None:
                note = visibility_note(info, overview._replace(pixels=pixels), Montage.of(info), stretch)
        roi = find_roi(info, settings, overview)
        if isinstance(annotator, SupportsFit) and stretch is not None and spec.bands is None:
            spec = _fit(annotator, image, spec, stretch, roi.area)
    return OverviewStats(spec, stretch, no_rgb_reason, roi, note)


def visibility_note(info: ImageInfo, overview: ReducedImage, montage: Montage, stretch: Stretch) -> str:
    """A note on the slices of a study's overview that show nothing or a single grey; "" where all show more."""
    if info.kind != "study":
        return ""
    if not overview.valid.any():
        return "" if not overview.readable.all() else "it has no valid pixels: all are padding"
    rows, columns = (
        length // count for length, count in zip(overview.valid.shape, (montage.rows, montage.columns), strict=True)
    )
    found: Counter[Visibility] = Counter()
    for plane in montage.planes:
        column, row = montage.place(plane) or (0, 0)
        part = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        found[visibility(info, overview.pixels[part], overview.valid[part], stretch)] += 1
    if not found["nothing"] and not found["one grey"]:
        return ""
    what, count = (NOT_VISIBLE, found["nothing"]) if found["nothing"] else ("a single grey", found["one grey"])
    where = "" if count == len(info.planes) else f" in {count} of {len(montage.planes)} slices looked at"
    advice = "" if "flat" in dict(info.facts) else ": choose another with --set reader_options.window=CENTRE,WIDTH"
    return f"{what}{where}, {stretch.source}{advice}"


def with_visibility_note(info: ImageInfo) -> ImageInfo:
    """A study with a note where its middle slice shows nothing; unchanged where that cannot be read."""
    if info.kind != "study":
        return info
    montage = Montage(info.size, (len(info.planes) // 2,))
    try:
        with open_image(info) as image:
            overview = read_overview(image, montage=montage)
        fitted = fit_stretch(overview.pixels, overview.valid, info.channels)
        note = visibility_note(info, overview, montage, display_stretch(info, fitted))
    except ReadError:
        return info
    return replace(info, notes=(*info.notes, note)) if note else info


def with_model_window(info: ImageInfo, spec: InputSpec, settings: Settings) -> ImageInfo:
    """A study in Hounsfield units shown in the window that the model states, where it does; any other image as it is.

    Raises `ModelError` for a study of other values, `RequestError` where the user states a window, too.
    """
    if info.kind != "study" or spec.bands is not None or not isinstance(spec.limits, tuple):
        return info
    stated = "{:g} to {:g}".format(*spec.limits)
    if info.channels[0].quantity != "HU":
        remedy = "Choose a model that states no window"
        raise ModelError(
            info.uri,
            f"must have values in HU, as the model's window ({stated})",
            value=info.channels[0].quantity,
            remedy=remedy,
        )
    if window := settings.stated_options().get("window"):
        rule = f"must be the window of the model's training images ({stated} HU)"
        raise RequestError("reader_options.window", rule, value=window, remedy="Leave it out")
    return with_window(info, spec.limits, "the window of the model's training images")


def _stretch_limits(info: ImageInfo, spec: InputSpec, settings: Settings) -> tuple[float, float] | None:
    """Pixel values of black and white, from the annotator or from the user.

    Raises `RequestError` where the two differ, and for studies, which are rendered through a window.
    """
    given = settings.stretch_limits()
    if given and spec.limits and given != spec.limits:
        trained = "each stretched by its own percentiles" if spec.limits == "own" else "{:g},{:g}".format(*spec.limits)
        raise RequestError(
            "--stretch",
            f"must be the stretch of the model's training images ({trained})",
            value=",".join(settings.stretch),
            remedy="Leave --stretch out",
        )
    if given and info.kind == "study":
        raise RequestError(
            "--stretch",
            "must not be given for studies, which are rendered through a window",
            value=f"{given[0]:g},{given[1]:g}",
            remedy="Give a window, such as --set reader_options.window=40,400",
        )
    return given or (None if spec.limits == "own" else spec.limits)


def _fit(
    annotator: SupportsFit, image: Image, spec: InputSpec, stretch: Stretch, area: BaseGeometry | None
) -> InputSpec:
    """Fit the annotator on the overview at about the spec's resolution, at most 4096 pixels on the long side.

    Returns the spec unchanged where the area is empty. Raises `ModelError`.
    """
    if area is not None and area.is_empty:
        return spec
    microns = spec.resolution if spec.unit == "um" else None
    limit = overview_side(image.info) if microns is None else overview_side(image.info, microns)
    pixels, valid, _, scale = read_overview(image, limit=limit)
    inside = np.ones_like(valid)
    if area is not None and len(image.info.planes) == 1:  # the overview of a stack is a montage
        inside = polygon_mask(area, valid.shape, scale)
    return annotator.fit(spec, render(pixels, valid, stretch), inside & valid, valid)


def find_roi(info: ImageInfo, settings: Settings, overview: ReducedImage) -> RegionOfInterest:
    """The region of interest of an image, from the settings and its overview. Raises `RequestError`."""
    user_area = _read_user_area(settings.area, info) if settings.area else None
    valid_mask = None
    if settings.skip_empty and len(info.planes) == 1:
        valid_mask = dilate(overview.valid | ~overview.readable, DILATION)
    scale = overview.scale
    if settings.tissue == "off" or info.kind != "slide":
        return RegionOfInterest(user_area, valid_mask=valid_mask, scale=scale)
    microns = None
    if info.placement.unit == "um":
        (x, *_), (_, y, _) = info.placement.matrix[:2]
        microns = (abs(x) * scale[0], abs(y) * scale[1])
    tissue = find_tissue(overview.pixels, overview.valid, microns=microns)
    at = "at an unknown pixel size" if microns is None else f"at {microns[0]:.3g} × {microns[1]:.3g} µm/px"
    method = f"{tissue.illumination} field {at}: {tissue.method}"
    return RegionOfInterest(user_area, _mask_to_polygons(tissue.mask, scale), method, valid_mask, scale)


def _read_user_area(path: str, info: ImageInfo) -> BaseGeometry:
    """Read the area of interest, in level-0 pixels of an image; for a stack, on each of its slices.

    The file holds longitude and latitude for maps, pixels as exported by QuPath otherwise. Raises `OutsideAreaError`
    where it does not touch a map, another `RequestError` where the file is invalid or does not fit the image.
    """
    if info.kind != "map":
        return read_tissue_annotation(path, info)
    try:
        modified = Path(path).stat().st_mtime_ns if Path(path).is_file() else 0
        return roi_to_pixels(_read_lonlat_area(path, modified), info)
    except RequestError as error:
        if on_earth(info.placement):
            raise OutsideAreaError(error.subject, error.rule, value=error.value, remedy=error.remedy) from error
        raise


@lru_cache(maxsize=1)
def _read_lonlat_area(path: str, _modified: int) -> BaseGeometry:
    return read_roi(path)


def _mask_to_polygons(mask: Mask, scale: tuple[float, float]) -> BaseGeometry:
    """A mask of an overview with `scale` level-0 pixels (x, y) per pixel → polygons in level-0 pixels."""

    def to_level_0(xy: Points) -> Points:
        return xy * np.asarray(scale)

    patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
    return shapely.transform(shapely.union_all([patch.polygon for patch in patches]), to_level_0)
