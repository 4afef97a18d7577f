"""Key images: which slices are shown, and that outlines, letters and scale are where they belong."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.reports.html.key_images import (
    FindingsIndex,
    KeyImage,
    choose_planes,
    draw_key_image,
    fair_shares,
)
from limner.reports.html.pictures import MOST_BYTES, embed
from limner.reports.measures import FindingsBatch
from limner.reports.palette import Palette
from limner.reports.patient_geometry import edges
from PIL import Image
from scipy import ndimage

Make = Callable[..., Any]
MARGIN = 26 * 600 / 512  # of a slice that is shown with 600 px
RED = Palette.of(["nodule", "cyst"], {"nodule": "#ff0000", "cyst": "#00ff00"})


def index_of(findings: Sequence[Finding], stack: Make, study: Make) -> FindingsIndex:
    image, index = stack(findings, planes=40), FindingsIndex()
    for start in range(0, len(findings), 3):
        index.add(FindingsBatch(study(image), image, findings[start : start + 3], start + 1))
    return index


def at(plane: int, score: float | None = None, label: str = "nodule", side: float = 5) -> Finding:
    return Finding(label, shapely.box(10, 10, 10 + side, 10 + side), "box", score, plane=plane)


@pytest.mark.parametrize("grey", [0, 255])
def test_an_outline_is_around_its_pixels_and_shows_on_any_grey(stack: Make, grey: int) -> None:
    """A slice of 100 × 80 px is shown six times as large, in a margin."""
    finding = Finding("nodule", shapely.box(20, 30, 50, 60), "area")
    image = stack([finding], grey=grey)
    picture = next(image.slice_pictures([0], 1024))
    made = np.asarray(draw_key_image(image, picture, [(7, finding)], RED, KeyImage(0, "1/5", "40/400", None)))
    red = (made == (255, 0, 0)).all(axis=2)
    red[: round(MARGIN) + 180 - 4] = False  # the frame of its number, above it
    y, x = np.nonzero(red)
    expected = (MARGIN + 120, MARGIN + 300, MARGIN + 180, MARGIN + 360)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == pytest.approx(expected, abs=3)
    middle = np.s_[round(MARGIN + 190) : round(MARGIN + 350), round(MARGIN + 130) : round(MARGIN + 290)]
    assert (made[middle] == grey).all(), "what was found is not covered"
    row = made[round(MARGIN + 270)]
    line = np.flatnonzero((row == (255, 0, 0)).all(axis=1))
    assert (row[line.min() - 1] == 0).all(), "black beside the line"
    assert (row[line.max() + 1] == 0).all()


def test_an_outline_along_the_border_is_inside_and_tiny_ones_can_be_seen(stack: Make) -> None:
    whole, tiny = Finding("nodule", shapely.box(0, 0, 100, 80), "region"), at(0, side=0.1, label="cyst")
    image = stack()
    picture = next(image.slice_pictures([0], 1024))
    made = np.asarray(draw_key_image(image, picture, [(1, whole), (2, tiny)], RED, KeyImage(0, "", "", None)))
    red = (made == (255, 0, 0)).all(axis=2)
    middle = round(MARGIN + 240)
    assert red[middle, round(MARGIN) : round(MARGIN) + 6].any()
    assert red[middle, round(MARGIN) + 594 : round(MARGIN) + 600].any()
    assert (made == (0, 255, 0)).all(axis=2).sum() > 40


def test_numbers_do_not_cover_each_other(stack: Make) -> None:
    findings = [Finding("nodule", shapely.box(40, 40, 60, 60), "box") for _ in range(4)]
    image = stack(grey=90)
    picture = next(image.slice_pictures([0], 1024))
    made = np.asarray(draw_key_image(image, picture, list(enumerate(findings, 1)), RED, KeyImage(0, "", "", None)))
    white = (made == 255).all(axis=2)
    inside = np.s_[round(MARGIN) : round(MARGIN) + 480, round(MARGIN) : round(MARGIN) + 600]
    numbers: Any = ndimage.label(ndimage.binary_dilation(white[inside], iterations=5))
    assert numbers[1] == 4, "above, right, left and below"


@pytest.mark.parametrize(
    ("axes", "letters"),
    [
        (((1, 0, 0), (0, 1, 0)), "RLAP"),
        (((-1, 0, 0), (0, 1, 0)), "LRAP"),  # mirrored
        (((1, 0, 0), (0, -1, 0)), "RLPA"),  # upside down: a prone patient shown as the scanner saw it
        (((0, 1, 0), (0, 0, -1)), "APHF"),  # sagittal
        (((1, 0, 0), (0, 0, -1)), "RLHF"),  # coronal
    ],
)
def test_letters_follow_the_place_in_the_patient(stack: Make, axes: Any, letters: str) -> None:
    found = edges(stack(axes=axes).info, 0)
    assert found is not None
    assert found.left + found.right + found.top + found.bottom == letters


def test_an_oblique_edge_names_both_sides_the_nearer_first(stack: Make) -> None:
    def turned(degrees: float) -> str:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        found = edges(stack(axes=((c, s, 0.0), (-s, c, 0.0))).info, 0)
        assert found is not None
        return f"{found.left} {found.right} {found.top} {found.bottom}"

    assert turned(9) == "R L A P"
    assert turned(30) == "RA LP AL PR"
    assert turned(60) == "AR PL LA RP"


def test_a_projection_has_the_letters_that_its_file_states_and_others_none(stack: Make) -> None:
    found = edges(stack(axes=None, facts={"patient_orientation": "L\\FP"}).info, 0)
    assert found is not None
    assert (found.left, found.right, found.top, found.bottom) == ("R", "L", "HA", "FP")
    assert "orientation" in found.source
    assert edges(stack(axes=None).info, 0) is None
    assert edges(stack(axes=None, facts={"patient_orientation": "L\\"}).info, 0) is None
    for unclear in ("L\\X", "X\\L", "\\F"):
        assert edges(stack(axes=None, facts={"patient_orientation": unclear}).info, 0) is None


def test_slices_are_chosen_by_score_in_turn_for_each_label(stack: Make, study: Make) -> None:
    findings = [at(1, 0.2), at(2, 0.9), at(2, 0.95), at(3, 0.8), at(4, 0.1, "cyst"), at(5, 0.05, "cyst"), at(9)]
    index = index_of(findings, stack, study)
    assert choose_planes(index, 1, volume=False) == [2]
    assert choose_planes(index, 2, volume=False) == [2, 4]
    assert choose_planes(index, 3, volume=False) == [2, 3, 4]
    assert choose_planes(index, 99, volume=False) == [1, 2, 3, 4, 5, 9]
    assert choose_planes(index, 0, volume=False) == []
    assert choose_planes(FindingsIndex(), 5, volume=False) == []


def test_without_scores_the_largest_come_first(stack: Make, study: Make) -> None:
    index = index_of([at(3, side=4), at(7, side=9), at(1, side=2)], stack, study)
    assert choose_planes(index, 1, volume=False) == [7]
    assert choose_planes(index, 2, volume=False) == [3, 7]


def test_slices_of_a_volume_are_the_largest_and_the_quarters(stack: Make, study: Make) -> None:
    findings = [at(plane, side=1 + 20 - abs(plane - 14)) for plane in range(10, 31)]
    assert choose_planes(index_of(findings, stack, study), 9, volume=True) == [14, 15, 25]
    assert choose_planes(index_of(findings, stack, study), 1, volume=True) == [14]


def test_shares_are_fair() -> None:
    assert fair_shares([], 5) == []
    assert fair_shares([3, 100, 100], 12) == [3, 5, 4]
    assert fair_shares([1, 1, 1], 2) == [1, 1, 0]
    assert sum(fair_shares([7] * 40, 12)) == 12


def test_a_picture_in_a_page_has_a_bounded_size() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    made = embed(Image.fromarray(noise), "noise")
    assert made.source.startswith("data:image/jpeg;base64,")
    assert len(made.source) < 2 * MOST_BYTES
    assert embed(Image.new("RGB", (64, 64)), "").source.startswith("data:image/png;base64,")
