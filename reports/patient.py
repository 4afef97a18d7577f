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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from ..model.finding import Finding
from ..readers.geometry import Points
from ..readers.image import Cell, ImageInfo
from ..readers.sheet import Sheet, sheet_of
from .cells import cell, fixed

PATIENT_COLUMNS: Mapping[str, str] = {
    "finding_uid": "the same finding's in any run with the same key: a UUID made from what is said of which pixels",
    "study_uid": "the study, as a pseudonym",
    "series_uid": "the series, as a pseudonym",
    "sop_uid": "the slice, as a pseudonym; empty, like all that follows of a slice, where the finding is of several",
    "frame": "frame within it, from 1",
    "instance_number": "its number in the series, as the file states it",
    "n_slices": "slices that the finding's geometry touches",
    "slice": "its place in the stack, from 1",
    "slice_position_mm": "its place along the stack's normal",
    "bbox_x0_px": "bounding box in the slice's own pixels, left edge",
    "bbox_y0_px": "top edge",
    "bbox_x1_px": "right edge",
    "bbox_y1_px": "bottom edge",
    "centre_lps_x_mm": "the point x_px, y_px in the patient, mm towards the patient's left",
    "centre_lps_y_mm": "the same, towards the back",
    "centre_lps_z_mm": "the same, towards the head",
    "bbox_w_mm": "the bounding box's width along the slice's rows; see spacing_source",
    "bbox_h_mm": "its height along the slice's columns",
    "spacing_source": "where mm come from, or why there are none; only pixel_spacing… holds in the patient",
    "laterality_geometry": "left, right or both: of the plane x = 0 mm, of a patient who lay on the back; else empty",
    "review_status": "for a reader to fill",
}
"""Columns of findings.csv where a run holds studies, and what they mean."""

Columns = dict[str, Sequence[str]]

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


def in_study(info: ImageInfo) -> bool:
    """Whether an image belongs to a radiology study."""
    return bool(info.study and info.cells)


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


def spot(info: ImageInfo, sheet: Sheet | None, finding: Finding) -> Spot:
    """Where a finding lies; `sheet` is the image's (`sheet_of`)."""
    touched = cells_touched(info, finding)
    if len(touched) != 1:
        return Spot(len(touched))
    place, one = touched[0]

    def to_slice(xy: Points) -> Points:
        return xy if sheet is None else sheet.to_slice(place, xy)

    corners = np.asarray(finding.geometry.bounds, dtype=np.float64).reshape(2, 2)
    box = tuple(float(number) for number in to_slice(corners).reshape(-1))
    return Spot(1, place, one, box, shapely.transform(finding.geometry, to_slice))


def patient_columns(info: ImageInfo, findings: Sequence[Finding], points: Points) -> Columns:
    """The columns `PATIENT_COLUMNS` of one image's findings, as cells; `points` (N, 2) is a level-0 pixel on each.

    All empty for an image that is of no study.
    """
    if not in_study(info):
        return {key: [""] * len(findings) for key in PATIENT_COLUMNS}
    sheet = sheet_of(info)
    spots = [spot(info, sheet, finding) for finding in findings]
    names = _uids(info, findings, spots)
    rows = [
        {
            "finding_uid": name,
            "laterality_geometry": _side(info, one, finding),
            **slice_cells(info, one),
            **centre_cells(one, point),
        }
        for name, one, finding, point in zip(names, spots, findings, points, strict=True)
    ]
    return {key: [row.get(key, "") for row in rows] for key in PATIENT_COLUMNS}


def slice_cells(info: ImageInfo, one: Spot) -> dict[str, str]:
    """The cells that tell a finding's study, slice, box in it, and side."""
    facts = dict(info.facts)
    known = {
        "study_uid": cell(info.study),
        "series_uid": cell(facts.get("series_uid", "")),
        "n_slices": str(one.touched),
        "spacing_source": cell(facts.get("spacing_source", "")),
    }
    if one.cell is None:
        return known
    instance, position = one.cell.instance, one.cell.position_mm
    x0, y0, x1, y1 = one.box
    of_all = facts.get("spacing_source") != _NOT_OF_ALL
    across, down = (float(facts.get(key) or math.nan) if of_all else math.nan for key in ("col_mm", "row_mm"))
    return known | {
        "sop_uid": cell(one.cell.name),
        "frame": str(one.cell.frame),
        "instance_number": "" if instance is None else str(instance),
        "slice": str(one.place + 1),
        "slice_position_mm": fixed([math.nan if position is None else position], 3)[0],
        **dict(zip(("bbox_x0_px", "bbox_y0_px", "bbox_x1_px", "bbox_y1_px"), fixed(one.box, 3), strict=True)),
        **dict(zip(("bbox_w_mm", "bbox_h_mm"), fixed([(x1 - x0) * across, (y1 - y0) * down], 3), strict=True)),
    }


def centre_cells(one: Spot, point: Points) -> dict[str, str]:
    """The cells that tell where in the patient a level-0 pixel (x, y) on a finding is."""
    if one.cell is None or not _in_patient(one.cell):
        return {}
    names = ("centre_lps_x_mm", "centre_lps_y_mm", "centre_lps_z_mm")
    return dict(zip(names, fixed(one.cell.placement.to_world([point])[0], 3), strict=True))


def _in_patient(one: Cell) -> bool:
    return one.placement.unit == "mm" and len(one.placement.matrix) == 3  # noqa: PLR2004 - a patient has three axes


def _side(info: ImageInfo, one: Spot, finding: Finding) -> str:
    """The side of the plane x = 0 on which all of a finding's box lies; "both" where it crosses; "" where not known.

    x grows towards the patient's left whatever the posture (PS3.3 C.7.6.2.1.1). The plane is the scanner's middle, and
    near enough the patient's only of who lay on the back.
    """
    if one.cell is None or not _in_patient(one.cell) or dict(info.facts).get("patient_position") not in _ON_THE_BACK:
        return ""
    x0, y0, x1, y1 = finding.geometry.bounds
    x = one.cell.placement.to_world([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])[:, 0]
    return "left" if x.min() >= 0 else "right" if x.max() <= 0 else "both"


def _rounded(xy: Points) -> Points:
    return np.round(xy, _DECIMALS) + 0.0  # never -0


def _uids(info: ImageInfo, findings: Sequence[Finding], spots: Sequence[Spot]) -> list[str]:
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
