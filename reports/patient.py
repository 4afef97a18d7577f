"""Where a finding lies in a study: its slice, its box there, its place in the patient, and the side that follows.

Identifiers are those that the reader gives, which are pseudonyms unless a person asked otherwise. What is not known, or
is of several slices, is an empty cell.
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
from shapely.geometry.base import BaseGeometry

from ..model.finding import Finding
from ..readers.geometry import Points
from ..readers.image import Cell, ImageInfo
from ..readers.sheet import Sheet, sheet_of

Numbers = npt.NDArray[np.float64]

_NAMESPACE: Final = uuid.UUID("0b9e9d0e-5d0f-5a55-8b8e-3d2f6f0c9a42")  # of limner's findings in studies
_DECIMALS: Final = 6  # of a pixel: what arithmetic between a sheet and its slice may lose
_ON_THE_BACK: Final = ("HFS", "FFS")
_NOT_OF_ALL: Final = "us_region"  # a pixel size that holds in one region of the picture only


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a finding lies: how many slices it `touched`, and where that is one, which.

    `place` is the slice's in the stack, from 0; `box` (x0, y0, x1, y1) and `geometry` are in the slice's own pixels.
    """

    touched: int
    place: int = 0
    cell: Cell | None = None
    box: tuple[float, ...] = (math.nan,) * 4
    geometry: BaseGeometry | None = None


def cells_touched(info: ImageInfo, finding: Finding) -> list[tuple[int, Cell]]:
    """(place in the stack from 0, cell) of every slice whose cell a finding's geometry covers by more than a sliver."""
    bounds = finding.geometry.bounds
    found: list[tuple[int, Cell]] = []
    for number, one in enumerate(info.cells):
        x0, y0 = max(bounds[0], one.box.x0), max(bounds[1], one.box.y0)
        x1, y1 = min(bounds[2], one.box.x1), min(bounds[3], one.box.y1)
        if x1 < x0 or y1 < y0:
            continue
        shared = finding.geometry.intersection(shapely.box(one.box.x0, one.box.y0, one.box.x1, one.box.y1))
        if shared.area > 1e-6 * finding.geometry.area or (finding.geometry.area == 0 and not shared.is_empty):
            found.append((number, one))
    return found


def spots(info: ImageInfo, findings: Sequence[Finding]) -> list[Spot]:
    """Where each finding of one image lies."""
    sheet = sheet_of(info)
    return [_spot(info, sheet, finding) for finding in findings]


def _spot(info: ImageInfo, sheet: Sheet | None, finding: Finding) -> Spot:
    touched = cells_touched(info, finding)
    if len(touched) != 1:
        return Spot(len(touched))
    place, one = touched[0]

    def to_slice(xy: Points) -> Points:
        return xy if sheet is None else sheet.to_slice(place, xy)

    corners = np.asarray(finding.geometry.bounds, dtype=np.float64).reshape(2, 2)
    box = tuple(float(number) for number in to_slice(corners).reshape(-1))
    return Spot(1, place, one, box, shapely.transform(finding.geometry, to_slice))


def spacing_mm(info: ImageInfo) -> tuple[float, float]:
    """The sides (x, y) of a slice's pixel in mm; NaN where not known, or not the same in all of the picture."""
    facts = dict(info.facts)
    of_all = facts.get("spacing_source") != _NOT_OF_ALL
    x, y = (float(facts.get(key) or math.nan) if of_all else math.nan for key in ("col_mm", "row_mm"))
    return x, y


def pixel_m2(info: ImageInfo) -> float | None:
    """m² of a level-0 pixel of a study by its pixel spacing; None of another image, or where that is not known."""
    x, y = spacing_mm(info)
    if info.kind != "study" or math.isnan(x * y):
        return None
    sheet = sheet_of(info)
    return x * y * 1e-6 / (1.0 if sheet is None else sheet.scale[0] * sheet.scale[1])


def positions_mm(spots: Sequence[Spot]) -> Numbers:
    """(N, 1) place of the findings' slices along the stack's normal; NaN where not known."""
    return np.array([[None if one.cell is None else one.cell.position_mm] for one in spots], np.float64).reshape(-1, 1)


def slice_boxes(spots: Sequence[Spot]) -> Numbers:
    """(N, 4) bounding boxes x0, y0, x1, y1 in the slices' own pixels; NaN where not of one slice."""
    return np.array([one.box for one in spots], dtype=np.float64).reshape(-1, 4)


def boxes_mm(info: ImageInfo, spots: Sequence[Spot]) -> Numbers:
    """(N, 2) width and height of the findings' boxes in mm."""
    boxes = slice_boxes(spots)
    return (boxes[:, 2:] - boxes[:, :2]) * spacing_mm(info)


def centres_mm(spots: Sequence[Spot], points: Points) -> Numbers:
    """(N, 3) where in the patient (LPS, mm) level-0 pixels (N, 2) on the findings are; NaN where not known."""
    centres = np.full((len(spots), 3), np.nan)
    for number, (one, point) in enumerate(zip(spots, points, strict=True)):
        if one.cell is not None and in_patient(one.cell):
            centres[number] = one.cell.placement.to_world([point])[0]
    return centres


def sides(info: ImageInfo, findings: Sequence[Finding], spots: Sequence[Spot]) -> list[str]:
    """The side of the patient on which each finding lies, as `_side` tells it."""
    return [_side(info, one, finding) for one, finding in zip(spots, findings, strict=True)]


def in_patient(one: Cell) -> bool:
    """Whether a slice has a place in the patient."""
    return one.placement.unit == "mm" and len(one.placement.matrix) == 3  # noqa: PLR2004 - a patient has three axes


def _side(info: ImageInfo, one: Spot, finding: Finding) -> str:
    """The side of the plane x = 0 on which all of a finding's box lies; "both" where it crosses; "" where not known.

    x grows towards the patient's left whatever the posture (PS3.3 C.7.6.2.1.1). The plane is the scanner's middle, and
    near enough the patient's only of who lay on the back.
    """
    if one.cell is None or not in_patient(one.cell) or dict(info.facts).get("patient_position") not in _ON_THE_BACK:
        return ""
    x0, y0, x1, y1 = finding.geometry.bounds
    x = one.cell.placement.to_world([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])[:, 0]
    return "left" if x.min() >= 0 else "right" if x.max() <= 0 else "both"


def _rounded(xy: Points) -> Points:
    return np.round(xy, _DECIMALS) + 0.0  # never -0


def uids(info: ImageInfo, findings: Sequence[Finding], spots: Sequence[Spot]) -> list[str]:
    """A UID for each finding, of the form 2.25.… (PS3.5 B.2), from what is said of which pixels of which slices.

    The same where other settings lay the slice elsewhere on the sheet. Findings that say the same get one each.
    """
    seen: Counter[uuid.UUID] = Counter()
    found: list[str] = []
    for finding, one in zip(findings, spots, strict=True):
        slices = [one.cell] if one.cell else [cell for _, cell in cells_touched(info, finding)]
        geometry = finding.geometry if one.geometry is None else one.geometry
        where = shapely.to_wkb(shapely.normalize(shapely.transform(geometry, _rounded)), hex=True, byte_order=1)
        said = [info.study, [[cell.name, cell.frame] for cell in slices], finding.kind, finding.label, finding.text]
        name = uuid.uuid5(_NAMESPACE, json.dumps([*said, where], ensure_ascii=True))
        seen[name] += 1
        unique = name if seen[name] == 1 else uuid.uuid5(name, str(seen[name]))
        found.append(f"2.25.{unique.int}")
    return found
