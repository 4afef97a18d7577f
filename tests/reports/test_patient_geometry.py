"""Places, sizes and sides of findings in studies, from what the slices state."""

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo, Plane
from limner.reports import patient_geometry as geometry

SPACING = {"col_mm": "0.5", "row_mm": "2.0"}
SAGITTAL_30 = ((0.0, 0.0, 5.0), (math.cos(math.pi / 6), 0.0, 0.0), (-math.sin(math.pi / 6), -1.0, 0.0))
AXIAL = ((0.5, 0.0, -10.0), (0.0, 2.0, 0.0), (0.0, 0.0, 7.0))


def info(*matrices: Any, kind: Any = "study", **facts: str) -> ImageInfo:
    """A stack of slices with these places in the patient, None for a slice without one."""
    planes = tuple(
        Plane(Placement.pixels() if matrix is None else Placement(matrix, "mm"), name=f"s{number}", position_mm=place)
        for number, (matrix, place) in enumerate(zip(matrices, (1.5, None, -4.0), strict=False))
    )
    placement = planes[0].placement if planes else Placement.pixels()
    made = ImageInfo("/s", "dicom", (40, 20), (Channel("grey"),), placement, kind=kind, study="s", planes=planes)
    return dataclasses.replace(made, facts=tuple(facts.items()))


def finding(x0: float, x1: float, plane: int = 0, **more: Any) -> Finding:
    return Finding("node", shapely.box(x0, 3, x1, 6), "box", plane=plane, **more)


def test_spacing_is_of_the_whole_picture_or_unknown() -> None:
    assert geometry.spacing_mm(info(None, **SPACING)) == (0.5, 2.0)
    for stated in ({}, {**SPACING, "spacing_source": "us_region"}):
        assert all(map(math.isnan, geometry.spacing_mm(info(None, **stated))))
    assert geometry.pixel_area_m2(info(None, **SPACING)) == pytest.approx(1e-6)
    assert geometry.pixel_area_m2(info(None, col_mm="0.5")) is None
    assert geometry.pixel_area_m2(info(kind="slide", **SPACING)) is None


def test_positions_sizes_and_centres_are_in_mm() -> None:
    stack = info(AXIAL, None, **SPACING)
    assert np.array_equal(geometry.slice_positions_mm(stack.planes), [[1.5], [math.nan]], equal_nan=True)
    assert geometry.box_sizes_mm(stack, np.array([[1.0, 2.0, 5.0, 5.0]])).tolist() == [[2.0, 6.0]]
    centres = geometry.centres_lps_mm(stack.planes, np.array([[4.0, 3.0], [4.0, 3.0]]))
    assert np.array_equal(centres, [[-8.0, 6.0, 7.0], [math.nan] * 3], equal_nan=True)
    assert geometry.in_patient(stack.planes[0])
    assert not geometry.in_patient(stack.planes[1])
    assert not geometry.in_patient(Plane(Placement(((0.5, 0, 0), (0, 0.5, 0)), "mm")))
    assert not geometry.in_patient(Plane(Placement(AXIAL, "um")))


def test_an_edge_names_the_sides_that_it_is_turned_towards_nearest_first() -> None:
    found = geometry.edges(info(SAGITTAL_30), 0)
    assert found == geometry.Edges("AH", "PF", "H", "F", "the slice's place in the patient")
    for degrees, letters in ((9.0, "L"), (11.0, "LP"), (45.0, "LP"), (46.0, "PL"), (81.5, "P")):
        turned = math.radians(degrees)
        matrix = ((math.cos(turned), 0.0, 0.0), (math.sin(turned), 0.0, 0.0), (0.0, -1.0, 0.0))
        found = geometry.edges(info(matrix), 0)
        assert found is not None
        assert (found.right, found.bottom, found.top) == (letters, "F", "H")


def test_a_side_is_that_of_the_plane_through_the_middle_of_a_supine_patient() -> None:
    found = [finding(0, 19.5), finding(0, 20), finding(20, 30), finding(19, 21), finding(0, 5, plane=1)]
    sides = ["right", "right", "left", "both", ""]
    for position in ("HFS", "FFS"):
        assert geometry.lateralities(info(AXIAL, None, patient_position=position), found) == sides
    for facts in ({"patient_position": "HFP"}, {}):
        assert geometry.lateralities(info(AXIAL, None, **facts), found) == [""] * 5


def test_uids_are_those_of_what_was_found_and_where() -> None:
    stack, seen = info(AXIAL, AXIAL), Counter[Any]()
    first = finding(1, 2)
    same = dataclasses.replace(first, geometry=shapely.box(1 + 1e-9, 3, 2, 6), score=0.5)
    others = [finding(1, 2.1), finding(1, 2, plane=1), finding(1, 2, text="a"), dataclasses.replace(first, label="b")]
    uids = geometry.finding_uids(stack, [first, *others, same, same], seen)
    assert len(set(uids)) == 7
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid[5:].isdecimal() for uid in uids)
    assert sorted(seen.values()) == [1, 1, 1, 1, 3]
    assert geometry.finding_uids(stack, [same], Counter()) == uids[:1]
    assert geometry.finding_uids(stack, [first], seen) not in ([uid] for uid in uids)
