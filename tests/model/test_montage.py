"""Montages of slices: their layout, their pixels, and the slices that findings on them belong to."""

from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.model.montage import MontageImage, StackMontage, left_side
from limner.readers.geometry import Box, Placement
from limner.readers.image import Channel, ImageInfo, Plane

SIZE = (6, 8)
IN_PATIENT = Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 5.0)), "mm")


class Stack:
    """An open stack whose pixels are 100 · slice + 10 · row + column; its nearest pixels, where it is enlarged."""

    channels = (Channel("grey", dtype="float32"),)

    def __init__(self, count: int) -> None:
        planes = tuple(Plane(IN_PATIENT, "file", 1, str(number)) for number in range(count))
        self.info = ImageInfo("uri", "dicom", SIZE, self.channels, IN_PATIENT, id="ct", planes=planes, kind="study")

    def read(self, box: Box, size: tuple[int, int], plane: int = 0) -> Any:
        """See `Image`."""
        x = np.floor(box.x0 + (np.arange(size[0]) + 0.5) * box.width / size[0]).astype(int)
        y = np.floor(box.y0 + (np.arange(size[1]) + 0.5) * box.height / size[1]).astype(int)
        values = 100 * plane + 10 * y[:, None] + x[None]
        inside = ((y >= 0) & (y < SIZE[1]))[:, None] & ((x >= 0) & (x < SIZE[0]))[None]
        return np.where(inside, values, 0).astype(np.float32)[..., None], inside

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("count", "cells", "layout"),
    [
        (25, 25, (5, 5, 1)),
        (26, 25, (5, 5, 2)),
        (7, 9, (3, 3, 1)),
        (2, 9, (2, 1, 1)),
        (5, 1, (1, 1, 5)),
        (9, 8, (2, 2, 3)),
    ],
)
def test_pages_hold_all_slices_once(count: int, cells: int, layout: tuple[int, int, int]) -> None:
    montage = StackMontage.of(range(count), SIZE, (1.0, 1.0), tile=8, cells=cells)
    assert (montage.columns, montage.rows, montage.pages) == layout
    assert [plane for page in range(montage.pages) for plane in montage.on_page(page)] == list(range(count))
    assert montage.columns * montage.rows <= cells
    assert montage.cell == (8, 8)


def test_cells_are_square_in_the_patient() -> None:
    montage = StackMontage.of(range(4), (100, 50), (0.5, 2.0), tile=336, cells=4)
    assert montage.cell == (200, 50)
    assert montage.scale(336) == (200 / 336, 50 / 336)


@pytest.mark.parametrize("tile", [8, 16])
def test_each_slice_is_read_in_its_cell(tile: int) -> None:
    montage = StackMontage.of([1, 3, 4, 6, 7], SIZE, (1.0, 1.0), tile=tile, cells=4)
    image: Any = MontageImage(Stack(8), montage)  # pyright: ignore[reportArgumentType]
    for page, slices in enumerate(([1, 3, 4, 6], [7])):
        pixels, valid = image.read(Box(0, 0, 16, 16), (2 * tile, 2 * tile), page)
        expected, inside = np.zeros((2 * tile, 2 * tile)), np.zeros((2 * tile, 2 * tile), dtype=bool)
        for place, plane in enumerate(slices):
            row, column = divmod(place, 2)
            cell = np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            values, shown = Stack(8).read(Box(0, 0, 8, 8), (tile, tile), plane)
            expected[cell], inside[cell] = values[..., 0], shown
        assert np.array_equal(valid, inside)
        assert np.array_equal(pixels[..., 0][inside], expected[inside])


def test_a_part_of_a_page_is_that_part() -> None:
    montage = StackMontage.of(range(4), SIZE, (1.0, 1.0), tile=8, cells=4)
    image: Any = MontageImage(Stack(4), montage)  # pyright: ignore[reportArgumentType]
    whole, valid = image.read(Box(0, 0, 16, 16), (16, 16), 0)
    part, seen = image.read(Box(5, 6, 13, 15), (8, 9), 0)
    assert np.array_equal(part, whole[6:15, 5:13])
    assert np.array_equal(seen, valid[6:15, 5:13])


def test_a_finding_belongs_to_the_slice_that_has_most_of_it() -> None:
    montage = StackMontage.of([1, 3, 4, 6, 7], SIZE, (1.0, 1.0), tile=8, cells=4)
    cases = [
        (shapely.box(1, 2, 3, 5), 0, 1, (1, 2, 3, 5), None),
        (shapely.box(9, 2, 12, 5), 0, 3, (1, 2, 4, 5), None),
        (shapely.box(0, 9, 6, 16), 0, 4, (0, 1, 6, 8), None),
        (shapely.box(2, 1, 12, 3), 0, 1, (2, 1, 6, 3), "2, 4"),
        (shapely.box(2, 1, 8.4, 3), 0, 1, (2, 1, 6, 3), None),
        (shapely.box(6.2, 0, 7.8, 8), 0, 1, (0, 0, 6, 8), "2, 4, 5, 7"),
        (shapely.box(2, 2, 4, 4), 1, 7, (2, 2, 4, 4), None),
    ]
    for geometry, page, plane, bounds, slices in cases:
        found = montage.to_slices(Finding("a", geometry, "box", window=(0, 0, 16, 16), cut=True, plane=page))
        assert (found.plane, found.geometry.bounds, found.notes.get("slices")) == (plane, bounds, slices)
        assert not found.cut
        assert found.window is None
    whole = montage.to_slices(Finding("a", shapely.box(0, 0, 16, 16), "region", notes={"other": "x"}))
    assert (whole.plane, whole.geometry.bounds) == (1, (0, 0, 6, 8))
    assert whole.notes == {"other": "x", "slices": "2, 4, 5, 7"}
    ordered = StackMontage.of(range(5), SIZE, (1.0, 1.0), tile=8, cells=4)
    assert ordered.to_slices(Finding("a", shapely.box(0, 0, 16, 16), "region")).notes == {"slices": "1-4"}
    assert ordered.to_slices(Finding("a", shapely.box(0, 0, 16, 16), "region", plane=1)).notes == {}


def test_the_valid_share_is_that_of_the_slice() -> None:
    """Not of its cell, of which a quarter lies beside the slice, nor of the page."""
    montage = StackMontage.of(range(3), SIZE, (1.0, 1.0), tile=8, cells=4)
    tile = Finding("a", shapely.box(8, 0, 16, 8), "tile", numbers={"valid": 0.75, "p.a": 0.5})
    region = Finding("a", shapely.box(0, 0, 16, 16), "region", numbers={"valid": 0.5625, "p.a": 0.5})
    for finding in (tile, region):
        assert montage.to_slices(finding).numbers == {"valid": 1.0, "p.a": 0.5}
    half = montage.to_slices(Finding("a", shapely.box(0, 0, 8, 8), "tile", numbers={"valid": 0.375}))
    assert half.numbers["valid"] == 0.5


def test_numbers_and_sides_are_drawn_at_the_left_of_each_cell() -> None:
    montage = StackMontage.of(range(3), (64, 64), (1.0, 1.0), tile=128, cells=4)
    stack = Stack(3)
    image: Any = MontageImage(stack, montage)  # pyright: ignore[reportArgumentType]
    drawn = image.draw_marks(np.zeros((256, 256, 3), np.uint8), Box(0, 0, 128, 128), 0)
    cells = [drawn[y : y + 128, x : x + 128] for y, x in ((0, 0), (0, 128), (128, 0), (128, 128))]
    assert [bool(cell.any()) for cell in cells] == [True, True, True, False]
    for cell in cells[:3]:
        assert not cell[:, 24:].any(), "at the left"
        assert cell[:24].any()
        assert cell[56:90].any()
    assert not np.array_equal(cells[0][:24], cells[1][:24]), "another number"
    assert np.array_equal(cells[0][56:90], cells[1][56:90]), "the same side"


@pytest.mark.parametrize(
    ("along", "letter"),
    [
        ((1, 0, 0), "R"),
        ((-1, 0.1, 0), "L"),
        ((0, 1, 0.5), "A"),
        ((0, -1, 0), "P"),
        ((0, 0.2, 1), "I"),
        ((0, 0, -1), "S"),
    ],
)
def test_the_side_at_the_left_is_where_the_rows_come_from(along: tuple[float, float, float], letter: str) -> None:
    down = (along[1], along[2], along[0])
    placement = Placement(tuple((a, b, 0.0) for a, b in zip(along, down, strict=True)), "mm")
    assert left_side(placement) == letter
    assert left_side(Placement.pixels()) == ""
