"""Cores of made tissue microarrays, whose grid is known."""

import math
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.errors import ReadError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.slide.tma import FACT, CoreGrid, core_name, find_cores

Mask = np.ndarray[Any, Any]
Place = tuple[int, int]


def microarray(
    rows: int,
    columns: int,
    *,
    degrees: float = 0.0,
    missing: frozenset[Place] = frozenset(),
    torn: frozenset[Place] = frozenset(),
    seed: int = 0,
) -> tuple[Mask, dict[Place, np.ndarray[Any, Any]]]:
    """A mask with discs of 40 px in a turned grid, and the middle of each; torn ones are in four pieces."""
    random, turn = np.random.default_rng(seed), math.radians(degrees)
    across = np.array([math.cos(turn), math.sin(turn)]) * 60
    down = np.array([-math.sin(turn), math.cos(turn)]) * 70
    places = {(row, column): column * across + row * down for row in range(rows) for column in range(columns)}
    low, high = np.min(list(places.values()), axis=0) - 70, np.max(list(places.values()), axis=0) + 70
    width, height = (high - low).astype(int)
    mask, middles = np.zeros((height, width), dtype=bool), dict[Place, np.ndarray[Any, Any]]()
    y, x = np.mgrid[:height, :width] + 0.5
    for place, middle in places.items():
        at = middles[place] = middle - low + random.uniform(-2, 2, 2)
        disc = (x - at[0]) ** 2 + (y - at[1]) ** 2 < 20**2
        if place in torn:
            disc &= (np.abs(x - at[0]) > 4) & (np.abs(y - at[1]) > 4)
        mask |= disc & (place not in missing)
    for _ in range(5):
        row, column = random.integers(0, height - 4), random.integers(0, width - 4)
        mask[row : row + 3, column : column + 3] = True
    return mask, middles


@pytest.mark.parametrize("degrees", [-30, -8, 0, 3, 8, 30])
def test_a_turned_grid_with_missing_and_torn_cores_is_found(degrees: float) -> None:
    missing, torn = frozenset([(0, 0), (2, 3), (3, 3), (5, 8)]), frozenset([(1, 1), (4, 4)])
    mask, middles = microarray(6, 9, degrees=degrees, missing=missing, torn=torn)
    grid = find_cores(mask, (4.0, 4.0), "slide")
    assert (grid.rows, grid.columns) == (6, 9)
    assert grid.degrees == pytest.approx(degrees, abs=0.3)
    assert [core.name for core in grid.cores][:10] == [f"A-{n}" for n in range(1, 10)] + ["B-1"]
    assert {(core.row - 1, core.column - 1) for core in grid.cores if core.missing} == missing
    assert {(core.row - 1, core.column - 1) for core in grid.cores if core.pieces > 1} == torn
    assert grid.diameter / 4 == pytest.approx(40, abs=1)
    for core in grid.cores:
        near = 1.5 if not core.missing else 5.0
        middle = middles[core.row - 1, core.column - 1]
        assert math.hypot(*(np.array([core.x, core.y]) / 4 - middle)) < near, core.name
    assert find_cores(mask, (4.0, 4.0), "slide") == grid, "the same mask gives the same grid"


@pytest.mark.slow
@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(3, 8),
    st.floats(-20, 20),
    st.integers(0, 1000),
    st.data(),
)
def test_every_core_has_the_name_of_its_place(rows: int, columns: int, degrees: float, seed: int, data: Any) -> None:
    """Whatever is missing inside of the outermost rows and columns, which tissue must show."""
    inner = [(row, column) for row in range(1, rows - 1) for column in range(1, columns - 1)]
    missing = frozenset(data.draw(st.sets(st.sampled_from(inner), max_size=len(inner) // 3))) if inner else frozenset()
    mask, middles = microarray(rows, columns, degrees=degrees, missing=missing, seed=seed)
    grid = find_cores(mask, (1.0, 1.0), "slide")
    assert (grid.rows, grid.columns) == (rows, columns)
    for core in grid.cores:
        place = core.row - 1, core.column - 1
        assert core.name == f"{string.ascii_uppercase[place[0]]}-{place[1] + 1}"
        assert core.missing == (place in missing)
        assert math.hypot(*(np.array([core.x, core.y]) - middles[place])) < 6


def test_places_are_a_partition() -> None:
    mask, _ = microarray(4, 5, degrees=8, missing=frozenset([(1, 1)]))
    grid = find_cores(mask, (2.0, 2.0), "slide")
    assert [grid.places(np.array([[core.x, core.y]]))[0] for core in grid.cores] == list(range(20))
    for core in grid.cores:
        corners = grid.cell(core)
        inside = corners + 0.01 * (corners.mean(axis=0) - corners)
        assert grid.places(inside).tolist() == [grid.cores.index(core)] * 4
    assert grid.places(np.array([[-1e4, 0.0]])).tolist() == [-1]


def test_a_grid_survives_as_a_fact() -> None:
    grid = find_cores(microarray(3, 4)[0], (1.0, 1.0), "slide")
    info = ImageInfo("a.tif", "pyramid", (9, 9), (Channel("red"),), Placement.pixels(), kind="slide")
    assert CoreGrid.of(info) is None
    info = replace(info, facts=((FACT, grid.to_text()),))
    assert CoreGrid.of(ImageInfo.from_json(info.to_json())) == grid


def test_names_of_many_rows() -> None:
    names = [core_name(row, 0) for row in range(800)]
    assert len(set(names)) == 800
    assert names[25:29] == ["Z-1", "AA-1", "AB-1", "AC-1"]
    assert names[701:704] == ["ZZ-1", "AAA-1", "AAB-1"]


def section() -> Mask:
    """One large piece of tissue with specks."""
    y, x = np.mgrid[:300, :400]
    mask = (x - 200) ** 2 / 4 + (y - 150) ** 2 < 90**2
    mask[10:14, 10:14] = True
    return mask


def scattered() -> Mask:
    """Pieces of one size without any order."""
    random, mask = np.random.default_rng(3), np.zeros((600, 600), dtype=bool)
    y, x = np.mgrid[:600, :600]
    for at in random.uniform(30, 570, (40, 2)):
        mask |= (x - at[0]) ** 2 + (y - at[1]) ** 2 < 14**2
    return mask


@pytest.mark.parametrize(
    "mask",
    [np.zeros((50, 50), dtype=bool), section(), scattered(), microarray(1, 12)[0], np.ones((60, 60), dtype=bool)],
    ids=["nothing", "a section", "scattered pieces", "one row", "all tissue"],
)
def test_what_is_no_grid_is_refused(mask: Mask) -> None:
    with pytest.raises(ReadError, match="must show the cores of a tissue microarray in rows and columns"):
        find_cores(mask, (1.0, 1.0), "slide")


@pytest.mark.slow
def test_blocks_of_a_real_microarray(shared_data: Path) -> None:
    """The blocks of a real slide are displaced: as a whole it is refused, and a block alone is found."""
    from limner.readers.slide.tissue import find_tissue
    from PIL import Image

    path = shared_data / "slides" / "generic_pyramid_prostate" / "tma_spots.jpeg"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    mask = find_tissue(pixels, np.ones(pixels.shape[:2], dtype=bool), microns=None).mask
    with pytest.raises(ReadError, match="75 of 94 areas of tissue on a grid"):
        find_cores(mask, (1.0, 1.0), "slide")
    block = mask.copy()
    block[:, :240] = block[:1190] = False
    block[:, 655:] = block[1610:] = False
    grid = find_cores(block, (1.0, 1.0), "slide")
    assert (grid.rows, grid.columns, any(core.missing for core in grid.cores)) == (4, 4, False)
