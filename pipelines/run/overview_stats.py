"""Statistics of an image's overview, before any region is read: stretch, region of interest, fitted input spec."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from ...model.annotator import Annotator, InputSpec, SupportsFit
from ...readers.annotations import in_pixels, read_roi, roi_to_pixels
from ...readers.errors import ModelError, ReadError, RequestError
from ...readers.geodesy import on_earth
from ...readers.geometry import Box
from ...readers.image import Channel, Image, ImageInfo, Mask, SupportsLevels
from ...readers.orientation import image_orientation
from ...readers.overview import (
    OVERVIEW_SIDE,
    Montage,
    ReducedImage,
    dilate,
    overview_bytes,
)
from ...readers.raster.bands import find_channels
from ...readers.raster.radiometry import implausible_values, offset_note
from ...readers.registry import known_options, open_image
from ...readers.render import Stretch, display_stretch, fit_stretch, render, rgb_channels
from ...readers.slide.padding import find_padding
from ...readers.slide.staining import measure_stain
from ...readers.slide.tissue import Tissue, find_tissue, overview_side, polygon_mask, read_tissue_annotation
from ...readers.slide.tma import FACT as TMA
from ...readers.slide.tma import find_cores
from ...readers.vectors import split_layer
from ..config import Settings, is_path
from .kept_overviews import KeptOverviews
from .tissue import GivenTissue, mask_to_polygons, read_tissue
from .windows import visibility_note

COSTLY_BYTES = 1 << 30  # native pixels of a slide's overview: above it only one is read
DILATION = (2, 2)  # overview pixels: regions may have valid pixels that are too few for an overview pixel to be valid
LEAST_TISSUE = 0.01
"""Share of a slide's valid pixels: less tissue is a warning."""
READ, FITTED = 0.5, 0.8
"""Shares of the work on an image that are done when its overview is read, and when all is fitted to that."""
OnStep = Callable[[float, str], None]
"""Called with the share (0 to 1) of the work on an image that is done, and what is done next, as a participle."""
EMPTY = "no valid pixels"
OUTSIDE = "outside the area of interest"
NO_TISSUE = "no tissue"
OUTSIDE_OR_NO_TISSUE = "outside the area of interest, or no tissue"


_CORE_REACH = 0.75  # of a core's diameter: how far from its middle its tissue is analysed
_WRONG_VALUES = 0.9  # of the overview's values: then it is their quantity that is wrong


class NothingChosenError(RequestError):
    """The area of interest, or `slices`, chooses nothing of this image: no error where it does of another one."""


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
    warnings: tuple[str, ...] = ()
    """Why tissue may have been missed, or the area may be another one."""

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
        area = self.area
        box = None if area is None else shapely.box(core.x0, core.y0, core.x1, core.y1)
        if self.user_area is not None and not self.user_area.intersects(box):
            return OUTSIDE
        if self.valid_mask is not None:
            x0, x1 = math.floor(core.x0 / self.scale[0]), math.ceil(core.x1 / self.scale[0])
            y0, y1 = math.floor(core.y0 / self.scale[1]), math.ceil(core.y1 / self.scale[1])
            if not self.valid_mask[y0:y1, x0:x1].any():
                return EMPTY
        return "" if area is None or area.intersects(box) else NO_TISSUE


@dataclass(frozen=True, slots=True)
class OverviewStats:
    """What the overview of an image determines."""

    info: ImageInfo
    """The metadata of the image, with the padding of a slide among its options and notes."""
    spec: InputSpec
    """The annotator's input spec, with what it has fitted on the overview."""
    stretch: Stretch | None
    """How the image is rendered in 8-bit RGB; None where the channels of RGB are not known."""
    no_rgb_reason: str
    """Why `stretch` is None, else ""."""
    roi: RegionOfInterest
    note: str = ""
    """What the numbers say against the stated scale and offset, or the window of a study, and whether it is sampled."""


def channel_names(info: ImageInfo, spec: InputSpec, stretch: Stretch | None) -> tuple[str, ...]:
    """Names of the channels that a spec needs, in its order: its bands, or the channels of the stretch for RGB."""
    if spec.bands is None:
        return () if stretch is None else stretch.channels
    return find_channels(info.channels, spec.bands)


def needed_channels(info: ImageInfo, spec: InputSpec, rgb: Sequence[str]) -> tuple[str, ...]:
    """Names of the channels of an overview: those of RGB, then those that a spec needs besides; the first if none."""
    return tuple(dict.fromkeys([*rgb, *channel_names(info, spec, None)])) or (info.channels[0].name,)


def compute_overview_stats(
    info: ImageInfo,
    spec: InputSpec,
    settings: Settings,
    annotator: Annotator | None,
    on_step: OnStep = lambda _share, _step: None,
    kept: KeptOverviews | None = None,
) -> OverviewStats:
    """Open an image once and evaluate its overview, for slides at the resolution at which tissue is detected.

    kept: where overviews are kept, and found again.

    Raises `LimnerError`, also where an annotator needs RGB and the channels of RGB are not known, or physical values
    and the numbers contradict the stated scale and offset. Where it does not need them, a note tells of it.
    """
    no_rgb_reason, keeper = "", kept or KeptOverviews()
    try:
        rgb = rgb_channels(info.channels)
    except ReadError as error:
        rgb, no_rgb_reason = (), f"{error.rule}{f' (found: {error.value})' if error.value else ''}"
        if annotator is not None and spec.bands is None:
            remedy = "Name the bands with --bands, or choose another model"
            raise ReadError(
                info.uri, f"{error.rule}, since the model takes RGB", value=error.value, remedy=remedy
            ) from error
    names = needed_channels(info, spec, rgb)
    fits = isinstance(annotator, SupportsFit) and spec.bands is None

    def read(image: Image) -> ReducedImage:
        limit = _overview_limit(image, spec, fits=fits)
        return keeper.read(image, limit, lambda share: on_step(READ * share, "reading"))

    info, overview = _without_padding(info, names, read)
    with open_image(info, names) as image:
        first = overview = overview or read(image)
        numbers = (info, image.channels, overview.pixels, overview.valid)
        fault = implausible_values(*numbers)
        if fault is not None and spec.bands is not None:
            raise fault
        _check_values(info, image.channels, overview, spec)
        stretch = None
        if rgb:
            pixels, channels = overview.pixels[..., : len(rgb)], image.channels[: len(rgb)]
            limits = _stretch_limits(info, spec, settings)
            fitted = fit_stretch(pixels, overview.valid, channels, limits, keep_colours=info.kind == "slide")
            stretch = display_stretch(info, fitted)
            alike = len(set(zip(stretch.low, stretch.high, strict=True))) == 1
            if info.kind == "slide" and len(rgb) > 1 and alike and pixels.dtype != np.uint8:  # tissue by its colours
                overview = overview._replace(pixels=render(pixels, overview.valid, stretch))
        on_step(READ, "measuring")
        tissue, given = _find_tissue(info, overview, settings) if info.kind == "slide" else (None, None)
        roi = find_roi(info, settings, overview, tissue, given)
        if tissue is not None:
            info = _with_stain(info, overview, tissue)
            info, roi = _with_cores(info, roi, tissue.mask) if settings.tma else (info, roi)
        note = offset_note(*numbers) if fault is None else str(fault)
        if info.kind == "study" and stretch is not None and spec.bands is None:
            note = visibility_note(info, overview, Montage.of(info), stretch)
        if isinstance(annotator, SupportsFit) and stretch is not None and spec.bands is None:
            spec = _fit(annotator, image, spec, stretch, roi.area, first, on_step, keeper)
    note = " ".join(filter(None, (note, _sampling_note(first))))
    return OverviewStats(info, spec, stretch, no_rgb_reason, roi, note)


def _sampling_note(overview: ReducedImage) -> str:
    """What to tell of an image that was too large to be read whole, "" for others."""
    if overview.sampled is None:
        return ""
    share = 100.0 * np.count_nonzero(overview.sampled) / overview.sampled.size
    return (
        f"The image is too large to be read whole while planning: the stretch is that of samples ({share:.2g} % "
        "of the overview), and regions without data are found when they are read. Overviews in the file, which "
        "gdaladdo adds, are read instead."
    )


def _overview_limit(image: Image, spec: InputSpec, *, fits: bool) -> int:
    """Pixels on the long side of the overview of an image.

    Of a slide whose overview has to be made from very many pixels, one is read for tissue and for what an annotator
    fits, and from a stored level that may be up to twice as coarse.
    """
    info = image.info
    if info.kind != "slide":
        return OVERVIEW_SIDE
    limit, largest = overview_side(info), max(overview_side(info), _fit_side(info, spec) if fits else 0)
    if overview_bytes(image, largest) <= COSTLY_BYTES:
        return limit
    whole = max(info.size)
    if isinstance(image, SupportsLevels):
        step = 2.0 * whole / largest
        stored = math.floor(whole / max(image.stored_level((step, step)).scale))
        if largest / 2 <= stored < largest:
            return stored
    return largest


def _fit_side(info: ImageInfo, spec: InputSpec) -> int:
    """Pixels on the long side of the overview that an annotator is fitted to."""
    microns = spec.resolution if spec.unit == "um" else None
    return overview_side(info) if microns is None else overview_side(info, microns)


def _without_padding(
    info: ImageInfo, names: Sequence[str], read: Callable[[Image], ReducedImage]
) -> tuple[ImageInfo, ReducedImage | None]:
    """A slide's metadata with its padding stated, which makes it no data; the overview where there is no padding."""
    if info.kind != "slide" or "padding" in dict(info.options) or "padding" not in known_options(info.reader):
        return info, None
    with open_image(info, names) as image:
        overview = read(image)
        padding = find_padding(image, overview) if len(image.channels) == len(info.channels) else ()
    if not padding:
        return info, overview
    value = ",".join(map(str, padding))
    note = f"Areas of the constant value {value} are padding, which is no data."
    return replace(info, options=(*info.options, ("padding", value)), notes=(*info.notes, note)), None


def _check_values(info: ImageInfo, channels: Sequence[Channel], overview: ReducedImage, spec: InputSpec) -> None:
    """Raise `ModelError` where nearly all values of the model's bands are ones that it cannot work with.

    channels: those of the overview. A few regions may still fail, which the run reports.
    """
    if spec.bands is None or spec.value_range is None or not overview.valid.any():
        return
    needed = channel_names(info, spec, None)
    places = [place for place, channel in enumerate(channels) if channel.name in needed]
    (low, high), outside = spec.value_range, 0.0
    ends = float(overview.pixels.min()), float(overview.pixels.max())
    used = [end * channels[place].scale + channels[place].offset for end in ends for place in places]
    if ends[0] >= 0 and low <= min(used) and max(used) <= high:
        return  # as for nearly all images: no value needs a look of its own

    def values_of(place: int) -> npt.NDArray[np.float64]:  # of one channel at a time, since all take much memory
        values = np.abs(overview.pixels[overview.valid, place]).astype(np.float64)
        values *= channels[place].scale
        values += channels[place].offset
        return values

    for place in places:
        values = values_of(place)
        outside += float(np.mean((values < low) | (values > high))) / len(places)
    if outside > _WRONG_VALUES:
        types = ", ".join(sorted({channels[place].dtype for place in places}))
        medians = [float(np.median(values_of(place))) for place in places]
        raise ModelError(
            info.id or info.uri,
            f"must have values of {spec.quantity} between {low:g} and {high:g} for the model",
            value=f"median {np.median(medians):g}, {types}",
            remedy="Check the file's scale and offset, state the right sensor with --sensor, or give colours of 8 bits",
        )


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
    annotator: SupportsFit,
    image: Image,
    spec: InputSpec,
    stretch: Stretch,
    area: BaseGeometry | None,
    first: ReducedImage,
    on_step: OnStep,
    kept: KeptOverviews,
) -> InputSpec:
    """Fit the annotator on the overview at about the spec's resolution, at most 4096 pixels on the long side.

    Where that has to be made from very many pixels, it is the `first` one, which was read already.

    Returns the spec unchanged where the area is empty. Raises `ModelError`.
    """
    if area is not None and area.is_empty:
        return spec
    limit = _fit_side(image.info, spec)
    costly = overview_bytes(image, limit) > COSTLY_BYTES

    def on_progress(share: float) -> None:
        on_step(READ + (FITTED - READ) * share, "reading")

    found = first if costly else kept.read(image, limit, on_progress)
    pixels, valid, _, scale, _ = found
    inside = np.ones_like(valid)
    if area is not None and len(image.info.planes) == 1:  # the overview of a stack is a montage
        inside = polygon_mask(area, valid.shape, scale)
    turn = image_orientation(image.info).turn
    return annotator.fit(spec, turn(render(pixels, valid, stretch)), turn(inside & valid), turn(valid))


def _find_tissue(info: ImageInfo, overview: ReducedImage, settings: Settings) -> tuple[Tissue, GivenTissue | None]:
    """The tissue on an overview of a slide, with the mask that is given, if any. Raises as `read_tissue` does."""
    found = find_tissue(overview.pixels, overview.valid, microns=_overview_microns(info, overview))
    if not is_path(settings.tissue):
        return found, None
    given = read_tissue(settings.tissue, info)
    return replace(found, mask=polygon_mask(given.area, overview.valid.shape, overview.scale)), given


def _overview_microns(info: ImageInfo, overview: ReducedImage) -> tuple[float, float] | None:
    """Spacing of a slide's overview in µm/px (x, y); None where it is not known."""
    if info.placement.unit != "um":
        return None
    (x, *_), (_, y, _) = info.placement.matrix[:2]
    return abs(x) * overview.scale[0], abs(y) * overview.scale[1]


def _with_stain(info: ImageInfo, overview: ReducedImage, tissue: Tissue) -> ImageInfo:
    """The metadata of a slide with its stain, as its overview shows it, among the facts."""
    if tissue.illumination == "dark":
        return info
    stain, evidence = measure_stain(overview.pixels, tissue.mask, overview.valid)
    facts = (("stain_measured", stain), ("stain_evidence", evidence)) if stain else ()
    return replace(info, facts=(*info.facts, *facts))


def _with_cores(info: ImageInfo, roi: RegionOfInterest, mask: Mask) -> tuple[ImageInfo, RegionOfInterest]:
    """The metadata of a slide with the cores in the user's area, and the tissue of these as the region of interest.

    Raises `ReadError` where they are in no grid.
    """
    inside = mask if roi.user_area is None else mask & polygon_mask(roi.user_area, mask.shape, roi.scale)
    grid = find_cores(inside, roi.scale, info.id or info.uri)
    present = [core for core in grid.cores if not core.missing]
    discs = [shapely.Point(core.x, core.y).buffer(_CORE_REACH * grid.diameter) for core in present]
    cells = [shapely.Polygon(grid.cell(core)) for core in present]
    area = shapely.union_all([disc & cell for disc, cell in zip(discs, cells, strict=True)])
    if roi.tissue is not None:
        shared = shapely.get_parts(shapely.intersection(area, roi.tissue), return_index=False)
        area = shapely.union_all([part for part in shared if part.geom_type == "Polygon"])
    method = f"{roi.tissue_method}; of it the {grid.text()}".removeprefix("; of it ")
    return replace(info, facts=(*info.facts, (TMA, grid.to_text()))), replace(roi, tissue=area, tissue_method=method)


def find_roi(
    info: ImageInfo,
    settings: Settings,
    overview: ReducedImage,
    tissue: Tissue | None = None,
    given: GivenTissue | None = None,
) -> RegionOfInterest:
    """The region of interest of an image, from the settings, its overview and its tissue, detected or `given`.

    Raises `RequestError`.
    """
    user_area, doubt = _read_user_area(settings.area, info) if settings.area else (None, "")
    warnings = tuple(filter(None, [doubt]))
    valid_mask = None
    if settings.skip_empty and len(info.planes) == 1:
        unknown = ~overview.readable if overview.sampled is None else ~(overview.readable & overview.sampled)
        valid_mask = dilate(overview.valid | unknown, DILATION)
    scale = overview.scale
    if settings.tissue == "off" or tissue is None:
        return RegionOfInterest(user_area, valid_mask=valid_mask, scale=scale, warnings=warnings)
    if given is not None:
        warnings += (given.doubt,) if given.doubt else ()
        return RegionOfInterest(user_area, given.area, given.method, valid_mask, scale, warnings)
    microns = _overview_microns(info, overview)
    at = "at an unknown pixel size" if microns is None else f"at {microns[0]:.3g} × {microns[1]:.3g} µm/px"
    method = f"{tissue.illumination} field {at}: {tissue.method}"
    warnings += _tissue_warnings(tissue, overview.valid)
    return RegionOfInterest(user_area, mask_to_polygons(tissue.mask, scale), method, valid_mask, scale, warnings)


def _tissue_warnings(tissue: Tissue, valid: Mask) -> tuple[str, ...]:
    """Sentences on a mask that should not be trusted as it is."""
    found: list[str] = []
    share = float(tissue.mask.sum() / max(1, valid.sum()))
    if share < LEAST_TISSUE:
        found.append(
            f"Tissue was found on {100 * share:.1f} % of the slide, so that hardly anything is analysed: it may be too "
            "pale to be detected. Look at the overview, or analyse the whole slide with --tissue off."
        )
    if tissue.doubt:
        found.append(
            f"It is doubtful whether the slide is bright or dark field: {tissue.doubt}. Bright field is assumed; look "
            "at the overview, or state the value of its padding with --set reader_options.padding=0,0,0."
        )
    return tuple(found)


def _read_user_area(path: str, info: ImageInfo) -> tuple[BaseGeometry, str]:
    """Read the area of interest, in level-0 pixels of an image, and a doubt of it; for a stack, on each of its slices.

    The file holds longitude and latitude for maps, pixels as exported by QuPath otherwise. Raises `NothingChosenError`
    where it does not touch a map, another `RequestError` where the file is invalid or does not fit the image.
    """
    if in_pixels(info):
        return read_tissue_annotation(path, info)
    try:
        file = Path(split_layer(path)[0])
        modified = file.stat().st_mtime_ns if file.is_file() else 0
        return roi_to_pixels(_read_lonlat_area(path, modified), info), ""
    except RequestError as error:
        if on_earth(info.placement):
            raise NothingChosenError(error.subject, error.rule, value=error.value, remedy=error.remedy) from error
        raise


@lru_cache(maxsize=1)
def _read_lonlat_area(path: str, _modified: int) -> BaseGeometry:
    return read_roi(path)
