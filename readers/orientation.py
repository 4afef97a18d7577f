"""How a map lies in its file, and the right-angle turn that shows it north-up, as models and people expect it.

Networks have learnt from pictures with north at the top. A file may store the same ground upside down, mirrored or on
its side; where its geotransform says so, pixels are reordered, never resampled. So are those of a picture without a CRS
whose orientation tag says how viewers show it:

    level-0 pixels of the file  ──transposed──▶  ──mirrored along x, along y──▶  upright pixels
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from .geometry import Box, Placement, Points

if TYPE_CHECKING:
    from .image import ImageInfo

Value = TypeVar("Value")

NOTED: Final = 1.0
"""Degrees from north-up that are told; the grids of map projections turn by less over most of their area."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """The turn from the level-0 pixels of an image to upright ones, by right angles and mirrorings."""

    transposed: bool = False
    """Whether x and y are exchanged, before the rest."""
    mirror_x: bool = False
    """Whether x is counted from the other side."""
    mirror_y: bool = False
    """Whether y is counted from the other side."""

    def swap(self, pair: tuple[Value, Value]) -> tuple[Value, Value]:
        """Values along level-0 x and y → along upright x and y, and the other way."""
        return (pair[1], pair[0]) if self.transposed else pair

    def turn(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Pixels (H, W, …) as the file has them → upright, contiguous; the same array where nothing is turned."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        return np.ascontiguousarray(turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def to_upright(self, xy: Points, size: tuple[float, float]) -> Points:
        """Level-0 pixels (N, 2) of an image of `size` (width, height) → upright pixels (N, 2)."""
        return self._mirrored(xy[:, ::-1] if self.transposed else xy, self.swap(size))

    def to_level0(self, upright_xy: Points, size: tuple[float, float]) -> Points:
        """The inverse of `to_upright`; `size` is that in level-0 pixels, too."""
        mirrored = self._mirrored(upright_xy, self.swap(size))
        return mirrored[:, ::-1] if self.transposed else mirrored

    def box_to_level0(self, upright: Box, size: tuple[float, float]) -> Box:
        """A box in upright pixels → in level-0 pixels."""
        if self == UPRIGHT:
            return upright
        corners = np.array([[upright.x0, upright.y0], [upright.x1, upright.y1]], dtype=np.float64)
        turned = self.to_level0(corners, size)
        return Box(*turned.min(axis=0).tolist(), *turned.max(axis=0).tolist())

    def _mirrored(self, xy: Points, size: tuple[float, float]) -> Points:
        """Upright pixels counted from the other side of the axes that are mirrored."""
        if not (self.mirror_x or self.mirror_y):
            return xy
        return np.where([self.mirror_x, self.mirror_y], np.asarray(size, dtype=np.float64) - xy, xy)

    def __str__(self) -> str:
        """Where level-0 x and y lead on the ground, such as "x east and y north"."""
        upright_x, upright_y = ("west" if self.mirror_x else "east"), ("north" if self.mirror_y else "south")
        x, y = self.swap((upright_x, upright_y))
        return f"x {x} and y {y}"


UPRIGHT: Final = Orientation()
"""Nothing is turned: north-up already, or not a map."""

TAG_FACT: Final = "orientation_tag"
"""Among an image's facts: the value of its EXIF or TIFF orientation tag, where that is not 1."""
_TAGGED: Final = {
    "2": (Orientation(mirror_x=True), "mirrored"),
    "3": (Orientation(mirror_x=True, mirror_y=True), "turned by 180°"),
    "4": (Orientation(mirror_y=True), "mirrored upside down"),
    "5": (Orientation(transposed=True), "turned by 90° and mirrored"),
    "6": (Orientation(transposed=True, mirror_x=True), "turned clockwise by 90°"),
    "7": (Orientation(transposed=True, mirror_x=True, mirror_y=True), "turned by 90° and mirrored"),
    "8": (Orientation(transposed=True, mirror_y=True), "turned counter-clockwise by 90°"),
}


def image_orientation(info: "ImageInfo") -> Orientation:
    """The turn with which models and people see an image: north-up on a map, else as its orientation tag says."""
    if info.placement.crs is not None:
        return find_orientation(info.placement)[0]
    return _TAGGED.get(dict(info.facts).get(TAG_FACT, ""), (UPRIGHT, ""))[0]


def tag_note(tag: object, *, applied: bool) -> str:
    """What the value of an orientation tag means for a picture, "" where it is to be shown as it is."""
    _, turn = _TAGGED.get(str(tag), (UPRIGHT, ""))
    if not turn:
        return ""
    here = "here it is as stored"
    if applied:
        here = "so do models and pictures here, and positions in pixels are the file's"
    return f"Viewers show the picture {turn}, as its orientation tag says: {here}."


def find_orientation(placement: Placement) -> tuple[Orientation, float]:
    """The turn that brings a map nearest to north-up, and the degrees (0 to 45) that are left.

    North is that of the CRS's grid: where its second axis grows, or falls in a CRS whose axis points south. Where the
    mapping is not affine the matrix stands for it. Without a CRS there is no north, and nothing is turned.
    """
    if placement.crs is None:
        return UPRIGHT, 0.0
    axes = np.asarray(placement.matrix, dtype=np.float64)[:2] * np.array(_axis_signs(placement.crs))[:, None]
    if placement.unit == "deg":  # a degree of longitude is shorter than one of latitude
        axes[0] *= max(0.01, math.cos(math.radians(axes[1, 2])))
    across, down = (axes[:, i] / np.linalg.norm(axes[:, i]) for i in (0, 1))  # (east, north) of a step along x and y
    transposed = bool(abs(across[1]) + abs(down[0]) > abs(across[0]) + abs(down[1]) + 1e-9)
    x, y = (down, across) if transposed else (across, down)
    found = Orientation(transposed, bool(x[0] < 0), bool(y[1] > 0))
    return found, math.degrees(math.atan2(abs(x[1]), abs(x[0])))


@lru_cache(maxsize=64)
def _axis_signs(crs: str) -> tuple[float, float]:
    """-1 where the world's x grows to the west, and where its y grows to the south, else 1."""
    from .geodesy import parse_crs

    directions = {axis.direction.lower() for axis in parse_crs(crs).axis_info}
    known = directions & {"east", "west"} and directions & {"north", "south"}  # on a polar map both lead to a pole
    return (-1.0 if known and "west" in directions else 1.0), (-1.0 if known and "south" in directions else 1.0)


def orientation_notes(info: "ImageInfo") -> list[str]:
    """What to tell of a map that is not north-up, or of a picture with an orientation tag."""
    found, rest = find_orientation(info.placement)
    tag = dict(info.facts).get(TAG_FACT, "")
    notes = [tag_note(tag, applied=info.placement.crs is None)] if tag in _TAGGED else []
    if found != UPRIGHT:
        notes.append(
            f"The file's pixels run along {found}: models and pictures have them turned north-up, and positions in "
            "pixels are the file's."
        )
    if rest >= NOTED:
        notes.append(
            f"North is {rest:.0f}° from the top{' after that' if notes else ''}, and models see it so, which they may "
            "not have learnt: warp the map to a north-up grid, with gdalwarp for example, where results are poor."
        )
    return notes
