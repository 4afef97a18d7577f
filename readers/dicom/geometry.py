"""Placement of a frame's pixels: in the patient (mm, LPS), on a calibrated projection (mm), or in pixels.

DICOM gives the centre of the first pixel; placements are of pixel corners, as everywhere in limner. Sources:
PS3.3 C.7.6.2.1.1 (image plane), 10.7.1.3 (pixel spacing and its calibration).

    corner   x ─── row direction · spacing between columns ──▶
             │ ┌───┐
             │ │ • │  • Image Position (Patient): the centre of the first pixel
             ▼ └───┘
    column direction · spacing between rows
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..geometry import Placement
from .metadata import FileMetadata, FrameMetadata, Vector

Direction = npt.NDArray[np.float64]

_SKEW: Final = 1e-4  # cosine between row and column from which they are noted as not orthogonal
_SAME: Final = 1e-4  # mm: spacings that differ by less are equal
SPACING_NOTES: Final = {
    "pixel_spacing": "",
    "pixel_spacing_calibrated": "",
    "pixel_spacing_unspecified": "its pixel spacing does not state in which plane it holds, so it is placed in pixels",
    "imager_plane": "its pixel size is known in the detector plane only, so it is placed in pixels",
    "imager_plane/ermf": "its pixel size is only an estimate from the detector plane, so it is placed in pixels",
    "us_region": "its pixel size holds inside one region of the picture only, so it is placed in pixels",
    "none": "it does not state a pixel size, so it is placed in pixels",
}
"""Source of a frame's pixel size → a note for the user."""


def spacing(file: FileMetadata, frame: FrameMetadata) -> tuple[str, tuple[float, float] | None]:
    """(source, mm (between rows, between columns)) of a frame's pixels; the source is one of `SPACING_NOTES`."""
    stated, imager = frame.spacing or file.pixel_spacing, file.imager_spacing
    if stated:
        if frame.position is not None and frame.orientation is not None:
            return "pixel_spacing", stated
        differs = imager and max(abs(a - b) for a, b in zip(stated, imager, strict=True)) > _SAME
        if file.calibration or differs:
            return "pixel_spacing_calibrated", stated
    if imager and file.magnification and file.magnification > 0:
        return "imager_plane/ermf", (imager[0] / file.magnification, imager[1] / file.magnification)
    if imager:
        return "imager_plane", imager
    if file.us_region:
        return "us_region", file.us_region
    return ("pixel_spacing_unspecified", stated) if stated else ("none", None)


@lru_cache(maxsize=256)  # slices of a stack have one orientation
def directions(orientation: tuple[Vector, Vector]) -> tuple[Direction, Direction, float] | None:
    """Orthogonal unit vectors along a row and down a column, and the cosine between those that were given.

    The column is kept and the row is turned in their plane. None where they do not span a plane. The vectors are not to
    be written to.
    """
    row, column = np.asarray(orientation[0]), np.asarray(orientation[1])
    if min(np.linalg.norm(row), np.linalg.norm(column)) < 0.5:
        return None
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    cosine = float(row @ column)
    if abs(cosine) > 0.9:
        return None
    row = row - cosine * column
    return row / np.linalg.norm(row), column, abs(cosine)


@lru_cache(maxsize=256)
def normal(orientation: tuple[Vector, Vector] | None) -> Direction | None:
    """The unit normal of a plane, row × column, which is not to be written to; None where it has none."""
    found = None if orientation is None else directions(orientation)
    return None if found is None else np.cross(found[0], found[1])


def mean_shift_px(
    a: tuple[Vector, Vector], b: tuple[Vector, Vector], size: tuple[int, int], spacing: tuple[float, float] | None
) -> float:
    """How far pixels of two orientations lie apart around the same middle: the root of the mean square, in pixels.

    size: (width, height) of the picture; spacing: mm (between rows, between columns), square where it is None.
    """
    down, along = spacing or (1.0, 1.0)
    row, column = (float(np.linalg.norm(np.subtract(x, y))) for x, y in zip(a, b, strict=True))
    return math.hypot(row * size[0] * along, column * size[1] * down) / math.sqrt(12.0) / min(down, along)


def plane_name(orientation: tuple[Vector, Vector] | None) -> str:
    """The plane of slices in words, such as "axial" or "coronal, 12.5° oblique"."""
    across = normal(orientation)
    if across is None:
        return "unknown"
    axis = int(np.abs(across).argmax())
    angle = math.degrees(math.acos(min(1.0, float(np.abs(across)[axis]))))
    return ("sagittal", "coronal", "axial")[axis] + (f", {angle:.1f}° oblique" if angle >= 0.05 else "")


def placement_of(file: FileMetadata, frame: FrameMetadata, uid: str) -> Placement:
    """The placement of a frame's pixels; `uid` is the frame of reference as it may be shown."""
    source, size = spacing(file, frame)
    if source == "pixel_spacing_calibrated" and size is not None:
        return Placement(((size[1], 0.0, 0.0), (0.0, size[0], 0.0)), "mm", source=source)
    axes = None if frame.orientation is None else directions(frame.orientation)
    if source != "pixel_spacing" or size is None or axes is None or frame.position is None:
        return Placement.pixels(source)
    along, down = axes[0] * size[1], axes[1] * size[0]
    corner = np.asarray(frame.position) - along / 2 - down / 2
    x, y, z = ((float(a), float(b), float(c)) for a, b, c in zip(along, down, corner, strict=True))
    return Placement((x, y, z), "mm", frame=uid or None, source=source)


def placement_notes(file: FileMetadata, frame: FrameMetadata) -> list[str]:
    """Notes on the placement for the user."""
    notes = [note] if (note := SPACING_NOTES[spacing(file, frame)[0]]) else []
    if frame.orientation is not None:
        axes = directions(frame.orientation)
        if axes is None:
            notes.append("its orientation does not span a plane, so it is placed in pixels")
        elif axes[2] > _SKEW:
            angle = abs(math.degrees(math.asin(axes[2])))
            notes.append(f"its rows and columns are {angle:.3f}° from a right angle and were made orthogonal")
    return notes
