"""Where a frame's pixels are: in the patient (mm, LPS), on a calibrated projection (mm), or nowhere that is known.

DICOM gives the centre of the first pixel; here the placement is of pixel corners, like everywhere in limner. Sources:
PS3.3 C.7.6.2.1.1 (image plane), 10.7.1.3 (pixel spacing and its calibration).
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..geometry import Placement
from .metadata import FileMetadata, FrameMetadata, Vector

Direction = npt.NDArray[np.float64]

_SKEW: Final = 1e-4  # cosine: a row and a column further from a right angle than this are worth a note
_SAME: Final = 1e-4  # mm: two spacings that differ by less are one
SPACINGS: Final = {
    "pixel_spacing": "",
    "pixel_spacing_calibrated": "",
    "pixel_spacing_unspecified": "its pixel spacing does not say in which plane it holds, so it is placed in pixels",
    "imager_plane": "its pixel size is known in the detector's plane only, so it is placed in pixels",
    "imager_plane/ermf": "its pixel size is only an estimate from the detector's plane, so it is placed in pixels",
    "us_region": "its pixel size holds inside one region of the picture only, so it is placed in pixels",
    "none": "it does not state a pixel size, so it is placed in pixels",
}
"""Where a frame's pixel size comes from → what a person should know of it."""


def spacing(facts: FileMetadata, frame: FrameMetadata) -> tuple[str, tuple[float, float] | None]:
    """(source, mm (between rows, between columns)) of a frame's pixels; the source is one of `SPACINGS`."""
    found = frame.spacing or facts.pixel_spacing
    if frame.position is not None and frame.orientation is not None and found:
        return "pixel_spacing", found
    imager = facts.imager_spacing
    if found and (
        facts.calibration or (imager and max(abs(a - b) for a, b in zip(found, imager, strict=True)) > _SAME)
    ):
        return "pixel_spacing_calibrated", found
    if imager and facts.magnification and facts.magnification > 0:
        return "imager_plane/ermf", (imager[0] / facts.magnification, imager[1] / facts.magnification)
    if imager:
        return "imager_plane", imager
    if facts.us_region:
        return "us_region", facts.us_region
    return ("pixel_spacing_unspecified", found) if found else ("none", None)


def directions(orientation: tuple[Vector, Vector]) -> tuple[Direction, Direction, float] | None:
    """Unit vectors along a row and down a column, made orthogonal, and how far they were from it (a cosine).

    The column is kept and the row turned, in their plane. None where they are no two directions.
    """
    row, column = np.asarray(orientation[0]), np.asarray(orientation[1])
    if min(np.linalg.norm(row), np.linalg.norm(column)) < 0.5:
        return None
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    skew = float(row @ column)
    if abs(skew) > 0.9:
        return None
    row = row - skew * column
    return row / np.linalg.norm(row), column, abs(skew)


def normal(orientation: tuple[Vector, Vector]) -> Direction | None:
    """The unit normal of a plane, row × column; None where it has none."""
    found = directions(orientation)
    return None if found is None else np.cross(found[0], found[1])


def place(facts: FileMetadata, frame: FrameMetadata, uid: str) -> Placement:
    """The placement of a frame's pixels; `uid` is the frame of reference as it may be shown."""
    source, size = spacing(facts, frame)
    if source == "pixel_spacing_calibrated" and size is not None:
        return Placement(((size[1], 0.0, 0.0), (0.0, size[0], 0.0)), "mm", source=source)
    axes = None if frame.orientation is None else directions(frame.orientation)
    if source != "pixel_spacing" or size is None or axes is None or frame.position is None:
        return Placement.pixels(source)
    along, down = axes[0] * size[1], axes[1] * size[0]
    corner = np.asarray(frame.position) - along / 2 - down / 2
    x, y, z = (tuple(float(n) for n in values) for values in zip(along, down, corner, strict=True))
    return Placement((_three(x), _three(y), _three(z)), "mm", frame=uid or None, source=source)


def place_notes(facts: FileMetadata, frame: FrameMetadata) -> list[str]:
    """Sentences on the placement that a person should read."""
    source, _ = spacing(facts, frame)
    found = [SPACINGS[source]] if SPACINGS[source] else []
    if frame.orientation is not None:
        axes = directions(frame.orientation)
        if axes is None:
            found.append("its orientation is not two directions, so it is placed in pixels")
        elif axes[2] > _SKEW:
            angle = abs(math.degrees(math.asin(axes[2])))
            found.append(f"its rows and columns are {angle:.3f}° from a right angle and were made orthogonal")
    return found


def _three(values: tuple[Any, ...]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]
