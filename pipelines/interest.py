"""Where on an image it is worth looking: inside the area that a person drew, where a slide holds tissue.

What is left out, and why, is accounted for like everything else.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ..model.polygons import polygonise
from ..readers.area import place_area, read_area
from ..readers.errors import RequestError
from ..readers.geodesy import on_earth
from ..readers.geometry import Points
from ..readers.image import ImageInfo, Mask
from ..readers.overview import ReducedPicture
from ..readers.tissue import find_tissue, read_drawn
from .config import Settings

OUTSIDE = "outside the area of interest"
NO_TISSUE = "no tissue"
NEITHER = "outside the area of interest, or no tissue"


class OutsideAreaError(RequestError):
    """The area of interest does not touch this image: no fault of the image where it touches another."""


@dataclass(frozen=True)
class Drawn:
    """An area of interest in a file: longitude and latitude on maps, pixels as QuPath counts them on other pictures."""

    path: str

    @cached_property
    def _on_earth(self) -> BaseGeometry:
        return read_area(self.path)

    def on(self, info: ImageInfo) -> BaseGeometry:
        """The area in level-0 pixels of an image.

        Raises `OutsideAreaError` off a map, another `RequestError` where the file is no area or does not fit.
        """
        if info.kind == "slide" or info.cells:
            return read_drawn(self.path, info)
        try:
            return place_area(self._on_earth, info)
        except RequestError as error:
            if on_earth(info.placement):
                raise OutsideAreaError(error.thing, error.rule, value=error.value, remedy=error.remedy) from error
            raise


@dataclass(frozen=True)
class Interest:
    """Where to look, in level-0 pixels: what a person `drew`, what holds `tissue`; None where that does not limit it.

    `method` says in words how tissue was found.
    """

    drawn: BaseGeometry | None = None
    tissue: BaseGeometry | None = None
    method: str = ""

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

    def outside(self, box: BaseGeometry) -> str:
        """Why nothing of a box was asked for; "" where some of it was."""
        return OUTSIDE if self.drawn is not None and not self.drawn.intersects(box) else ""

    def barren(self, box: BaseGeometry) -> str:
        """Why nothing of a box, of which some was asked for, is worth looking at; "" where something may be."""
        return "" if self.area is None or self.area.intersects(box) else NO_TISSUE


def find_interest(info: ImageInfo, settings: Settings, drawn: Drawn | None, seen: ReducedPicture) -> Interest:
    """Where to look on an image, from its overview. Raises `RequestError` as `Drawn.on` does."""
    placed = None if drawn is None else drawn.on(info)
    if settings.tissue == "off" or info.kind != "slide":
        return Interest(placed)
    microns = None
    if info.placement.unit == "um":
        (x, *_), (_, y, _) = info.placement.matrix[:2]
        microns = (abs(x) * seen.scale[0], abs(y) * seen.scale[1])
    found = find_tissue(seen.pixels, seen.valid, microns=microns)
    at = "at an unknown scale" if microns is None else f"at {microns[0]:.3g} × {microns[1]:.3g} µm a pixel"
    return Interest(placed, outline(found.mask, seen.scale), f"{found.light} field {at}: {found.method}")


def outline(mask: Mask, scale: tuple[float, float]) -> BaseGeometry:
    """A mask of an overview, `scale` level-0 pixels (x, y) a pixel, as an area in level-0 pixels."""

    def enlarge(xy: Points) -> Points:
        return xy * np.asarray(scale)

    patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
    return shapely.transform(shapely.union_all([patch.polygon for patch in patches]), enlarge)
