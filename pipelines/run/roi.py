"""Where on an image it is worth looking: inside the area that a person drew, where a slide holds tissue.

What is left out, and why, is accounted for like everything else.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ...model.class_map_polygons import polygonise
from ...readers.annotations import read_roi, roi_to_pixels
from ...readers.errors import RequestError
from ...readers.geodesy import on_earth
from ...readers.geometry import Box, Points
from ...readers.image import ImageInfo, Mask
from ...readers.overview import ReducedImage, dilate
from ...readers.slide.tissue import find_tissue, read_tissue_annotation
from ..config import Settings

DILATION = (2, 2)  # overview pixels: what is valid by less than half of one must not be lost
EMPTY = "no valid pixels"
OUTSIDE = "outside the area of interest"
NO_TISSUE = "no tissue"
NEITHER = "outside the area of interest, or no tissue"


class OutsideAreaError(RequestError):
    """The area of interest does not touch this image: no fault of the image where it touches another."""


@dataclass(frozen=True)
class RegionOfInterest:
    """Where to look, in level-0 pixels: what a person `drew`, what holds `tissue`; None where that does not limit it.

    `method` says in words how tissue was found. `filled` is a mask of the overview, `scale` level-0 pixels (x, y) a
    pixel: where it may hold valid pixels, a little enlarged; None where that is not known before a region is read.
    """

    drawn: BaseGeometry | None = None
    tissue: BaseGeometry | None = None
    method: str = ""
    filled: Mask | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    @cached_property
    def area(self) -> BaseGeometry | None:
        """Both together; None for the whole image."""
        if self.drawn is None or self.tissue is None:
            return self.tissue if self.drawn is None else self.drawn
        shared = shapely.get_parts(shapely.intersection(self.drawn, self.tissue), return_index=False)
        return shapely.union_all([part for part in shared if part.geom_type == "Polygon"])

    @property
    def beyond(self) -> str:
        """Why a part of a region that was read is left out."""
        if self.tissue is None:
            return OUTSIDE
        return NO_TISSUE if self.drawn is None else NEITHER

    def why_skipped(self, core: Box) -> str:
        """Why a region need not be read; "" where some of its core was asked for and may be worth looking at."""
        box = shapely.box(core.x0, core.y0, core.x1, core.y1)
        if self.drawn is not None and not self.drawn.intersects(box):
            return OUTSIDE
        if self.filled is not None:
            x0, x1 = math.floor(core.x0 / self.scale[0]), math.ceil(core.x1 / self.scale[0])
            y0, y1 = math.floor(core.y0 / self.scale[1]), math.ceil(core.y1 / self.scale[1])
            if not self.filled[y0:y1, x0:x1].any():
                return EMPTY
        return "" if self.area is None or self.area.intersects(box) else NO_TISSUE


def drawn_on(path: str, info: ImageInfo) -> BaseGeometry:
    """The area of interest in a file, in level-0 pixels of an image: of a stack, on each of its slices.

    The file says longitude and latitude on maps, pixels as QuPath counts them on other pictures. Raises
    `OutsideAreaError` off a map, another `RequestError` where the file is no area or does not fit.
    """
    if info.kind != "map":
        return read_tissue_annotation(path, info)
    try:
        stamp = Path(path).stat().st_mtime_ns if Path(path).is_file() else 0
        return roi_to_pixels(_on_earth(path, stamp), info)
    except RequestError as error:
        if on_earth(info.placement):
            raise OutsideAreaError(error.subject, error.rule, value=error.value, remedy=error.remedy) from error
        raise


@lru_cache(maxsize=1)
def _on_earth(path: str, _: int) -> BaseGeometry:
    return read_roi(path)


def find_roi(info: ImageInfo, settings: Settings, seen: ReducedImage) -> RegionOfInterest:
    """Where to look on an image, from its overview. Raises `RequestError` as `drawn_on` does."""
    drawn = drawn_on(settings.area, info) if settings.area else None
    filled = None
    if settings.skip_empty and len(info.planes) == 1:
        filled = dilate(seen.valid | ~seen.readable, DILATION)
    if settings.tissue == "off" or info.kind != "slide":
        return RegionOfInterest(drawn, filled=filled, scale=seen.scale)
    microns = None
    if info.placement.unit == "um":
        (x, *_), (_, y, _) = info.placement.matrix[:2]
        microns = (abs(x) * seen.scale[0], abs(y) * seen.scale[1])
    found = find_tissue(seen.pixels, seen.valid, microns=microns)
    at = "at an unknown scale" if microns is None else f"at {microns[0]:.3g} × {microns[1]:.3g} µm a pixel"
    method = f"{found.illumination} field {at}: {found.method}"
    return RegionOfInterest(drawn, outline(found.mask, seen.scale), method, filled, seen.scale)


def outline(mask: Mask, scale: tuple[float, float]) -> BaseGeometry:
    """A mask of an overview, `scale` level-0 pixels (x, y) a pixel, as an area in level-0 pixels."""

    def enlarge(xy: Points) -> Points:
        return xy * np.asarray(scale)

    patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
    return shapely.transform(shapely.union_all([patch.polygon for patch in patches]), enlarge)
