"""Geometry of findings in radiology studies: slice positions, boxes in mm, patient coordinates (LPS), laterality.

Identifiers are the reader's: pseudonyms unless the user chose to show names.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import json
import math
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from ..model.finding import Finding
from ..readers.geometry import Points
from ..readers.image import ImageInfo, Plane

Numbers = npt.NDArray[np.float64]

_NAMESPACE: Final = uuid.UUID("0b9e9d0e-5d0f-5a55-8b8e-3d2f6f0c9a42")  # of limner's findings in studies
_DECIMALS: Final = 6  # of a pixel: finer than any model localises
_SIDES: Final = "LRPAHF"  # towards which x, y and z grow and fall
_OPPOSITE: Final = str.maketrans("LRPAHF", "RLAPFH")
_NAMED: Final = math.sin(math.radians(10.0))
_SUPINE: Final = ("HFS", "FFS")


def spacing_mm(info: ImageInfo) -> tuple[float, float]:
    """The sides (x, y) of a slice's pixel in mm; NaN where not known, or known for a region of the picture only."""
    facts = dict(info.facts)
    if facts.get("spacing_source") == "us_region":
        return math.nan, math.nan
    return float(facts.get("col_mm") or math.nan), float(facts.get("row_mm") or math.nan)


def pixel_area_m2(info: ImageInfo) -> float | None:
    """m² of a level-0 pixel of a study by its pixel spacing; None for other images, or where that is not known."""
    x, y = spacing_mm(info)
    if info.kind != "study" or math.isnan(x * y):
        return None
    return x * y * 1e-6


def slice_positions_mm(planes: Sequence[Plane]) -> Numbers:
    """(N, 1) positions of slices along their stack's normal; NaN where not known."""
    return np.array([[plane.position_mm] for plane in planes], np.float64).reshape(-1, 1)


def box_sizes_mm(info: ImageInfo, bounds: Numbers) -> Numbers:
    """(N, 2) width and height in mm of boxes (N, 4) in a slice's pixels."""
    return (bounds[:, 2:] - bounds[:, :2]) * spacing_mm(info)


def centres_lps_mm(planes: Sequence[Plane], points: Points) -> Numbers:
    """(N, 3) patient coordinates (LPS, mm) of level-0 pixels (N, 2) of slices; NaN where not known."""
    centres = np.full((len(planes), 3), np.nan)
    for number, (plane, point) in enumerate(zip(planes, points, strict=True)):
        if in_patient(plane):
            centres[number] = plane.placement.to_world([point])[0]
    return centres


def in_patient(plane: Plane) -> bool:
    """Whether a slice has a position in the patient."""
    return plane.placement.unit == "mm" and len(plane.placement.matrix) == 3


@dataclass(frozen=True, slots=True)
class Edges:
    """Sides of the patient at the edges of a slice: letters of L, R, A, P, H and F, the nearest side first."""

    left: str
    right: str
    top: str
    bottom: str
    source: str
    """What states them, in words."""


def edges(info: ImageInfo, plane: int) -> Edges | None:
    """The sides of the patient at the edges of a slice; None where nothing states them.

    From the slice's place in the patient, else from what the file states of a projection (PS3.3 C.7.6.1.1.1). A side
    that an edge is turned towards by more than 10° is named.
    """
    if in_patient(info.planes[plane]):
        across, down = (_letters(np.array(info.planes[plane].placement.matrix, np.float64)[:, axis]) for axis in (0, 1))
        source = "the slice's place in the patient"
    else:
        across, _, down = dict(info.facts).get("patient_orientation", "").partition("\\")
        source = "the file's patient orientation"
        if not (set(across) <= set(_SIDES) and set(down) <= set(_SIDES)):
            return None
    if not (across and down):
        return None
    return Edges(across.translate(_OPPOSITE), across, down.translate(_OPPOSITE), down, source)


def _letters(direction: Numbers) -> str:
    """The sides towards which a direction (3,) of LPS leads."""
    unit = direction / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda axis: (-round(abs(float(unit[axis])), 9), axis))
    return "".join(
        _SIDES[2 * axis + (unit[axis] < 0)] for axis in order if abs(float(unit[axis])) > _NAMED or axis == order[0]
    )


def lateralities(info: ImageInfo, findings: Sequence[Finding]) -> list[str]:
    """The side of the plane x = 0 of each finding's box: left or right, "both" where it crosses, "" where not known.

    x grows towards the patient's left in any position (PS3.3 C.7.6.2.1.1). The plane is the scanner's midplane, near
    the patient's own only for a patient who lay supine.
    """
    return [_laterality(info, finding) for finding in findings]


def _laterality(info: ImageInfo, finding: Finding) -> str:
    plane = info.planes[finding.plane]
    if not in_patient(plane) or dict(info.facts).get("patient_position") not in _SUPINE:
        return ""
    x0, y0, x1, y1 = finding.geometry.bounds
    x = plane.placement.to_world([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])[:, 0]
    return "left" if x.min() >= 0 else "right" if x.max() <= 0 else "both"


def _rounded(xy: Points) -> Points:
    return np.round(xy, _DECIMALS) + 0.0  # never -0


def finding_uids(info: ImageInfo, findings: Sequence[Finding], seen: Counter[uuid.UUID]) -> list[str]:
    """A UID of the form 2.25.… (PS3.5 B.2) for each finding, from its study, slice, geometry and texts.

    Identical findings get one each: `seen` counts those of one image.
    """
    found: list[str] = []
    for finding in findings:
        plane = info.planes[finding.plane]
        where = shapely.to_wkb(shapely.normalize(shapely.transform(finding.geometry, _rounded)), hex=True, byte_order=1)
        content = [info.study, [[plane.name, plane.frame]], finding.kind, finding.label, finding.text, where]
        name = uuid.uuid5(_NAMESPACE, json.dumps(content, ensure_ascii=True))
        seen[name] += 1
        unique = name if seen[name] == 1 else uuid.uuid5(name, str(seen[name]))
        found.append(f"2.25.{unique.int}")
    return found
