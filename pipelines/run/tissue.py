"""The tissue of a slide: detected on its overview, or given as a file."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ...model.class_maps import polygonise
from ...readers.errors import RequestError
from ...readers.geometry import Points
from ...readers.image import ImageInfo, Mask
from ...readers.mask_files import is_vector, mask_digest, read_slide_mask
from ...readers.slide.tissue import slide_polygons
from ...reports.tissue import PREFIX, SUFFIX
from ...reports.writer import image_file

_DIGITS: Final = 16  # of a sha256 in words


@dataclass(frozen=True, slots=True)
class GivenTissue:
    """The tissue of a slide in a file."""

    area: BaseGeometry
    """In level-0 pixels."""
    method: str
    """Where it is from, in words, with the first digits of the file's sha256."""
    doubt: str = ""
    """Why it may be another area, as a sentence."""


def read_tissue(given: str, info: ImageInfo) -> GivenTissue:
    """The tissue of a slide in a file, or in a folder with one for each slide, as the report `tissue` names them.

    A file holds polygons in pixels as QuPath exports them, or a picture of the whole slide that is 0 beside the tissue.
    Raises `RequestError` or `ReadError` for a file that is neither, and where none of it lies on the slide.
    """
    path = given
    if Path(given).is_dir():
        path = str(image_file(Path(given), PREFIX, info.id, SUFFIX))
        if not Path(path).is_file():
            rule, remedy = f"must hold {Path(path).name}", "Give the folder of a run of these slides, or one file"
            raise RequestError(f"the folder of tissue {given}", rule, remedy=remedy)
    subject, doubt = f"the tissue {path}", ""
    if is_vector(path):
        area, doubt = slide_polygons(path, info, subject)
        kind = "polygons"
    else:
        mask, scale = read_slide_mask(path, info)
        area, kind = mask_to_polygons(mask, scale), "a picture"
    if area.area <= 0:
        rule, remedy = "must cover a part of the slide", "Check that it is of this slide, and in its pixels"
        raise RequestError(f"{subject} on {info.id or info.uri}", rule, value="nothing on it", remedy=remedy)
    return GivenTissue(area, f"given as {kind}, sha256 {mask_digest(path)[:_DIGITS]}", doubt)


def mask_to_polygons(mask: Mask, scale: tuple[float, float]) -> BaseGeometry:
    """A mask of a picture with `scale` level-0 pixels (x, y) per pixel → polygons in level-0 pixels."""

    def to_level_0(xy: Points) -> Points:
        return xy * np.asarray(scale)

    patches = polygonise(mask.astype(np.uint8), np.ones(mask.shape, dtype=np.float32), mask)
    return shapely.transform(shapely.union_all([patch.polygon for patch in patches]), to_level_0)
