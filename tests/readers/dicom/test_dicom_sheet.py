"""The sheet: slices in cells, a region of consecutive slices, and no pixel that mixes two."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.contract import Truth, check_reader, scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.geometry import Box
from limner.readers.regions import Grid, cut
from limner.readers.sheet import Sheet, sheet_of

READER = DicomReader()
TILE = 336


def flat(sheet: Sheet, box: Box, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read a sheet whose slice k is all k + 1."""
    asked: set[int] = set()

    def rows(number: int, start: int, stop: int) -> tuple[np.ndarray, None]:
        asked.add(number)
        return np.full((stop - start, sheet.shape[0], 1), number + 1, dtype=np.float32), None

    pixels, valid = sheet.read(box, size, rows, 1, np.dtype(np.float32))
    return np.where(valid, pixels[..., 0], 0), np.array(sorted(asked))


@pytest.mark.parametrize("hd_num", [9, 16, 25])
def test_a_region_holds_consecutive_slices_and_a_tile_one(hd_num: int) -> None:
    columns = int(hd_num**0.5)
    sheet = Sheet.lay((512, 512), 60, columns=columns, spacing=(0.7, 0.7))
    scale = sheet.side / TILE
    regions = cut(Grid("stack", sheet.size, (scale, scale)), tile=TILE, hd_num=hd_num)
    seen: list[int] = []
    for region in regions:
        picture, asked = flat(sheet, region.box, region.size)
        first = seen[-1] + 1 if seen else 0
        assert asked.tolist() == list(range(first, min(first + hd_num, 60)))
        for at, number in enumerate(asked):
            row, column = divmod(at, columns)
            tile = picture[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            assert (tile == number + 1).all()
        seen.extend(asked.tolist())
    assert seen == list(range(60))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 7),
    st.integers(1, 4),
    st.sampled_from([None, (1.0, 1.0), (3.0, 2.0), (0.7, 1.9)]),
    st.tuples(st.floats(-3, 20), st.floats(-3, 20), st.floats(1, 30), st.floats(1, 30)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_no_pixel_mixes_slices(
    shape: tuple[int, int],
    count: int,
    columns: int,
    spacing: tuple[float, float] | None,
    window: tuple[float, float, float, float],
    size: tuple[int, int],
) -> None:
    sheet = Sheet.lay(shape, count, columns=columns, spacing=spacing)
    x, y, width, height = window
    picture, asked = flat(sheet, Box(x, y, x + width, y + height), size)
    values = set(np.unique(picture).tolist()) - {0.0}
    assert values <= {float(number + 1) for number in asked}  # whole numbers only: nothing in between
    for r, c in zip(*np.nonzero(picture), strict=True):
        at = x + (c + 0.5) * width / size[0], y + (r + 0.5) * height / size[1]
        cell = sheet.cell(int(picture[r, c]) - 1)
        assert cell.x0 - 1e-6 <= at[0] <= cell.x1 + 1e-6
        assert cell.y0 - 1e-6 <= at[1] <= cell.y1 + 1e-6


@pytest.mark.parametrize("size", [(5, 5), (7, 11), (16, 16), (37, 23)])
def test_a_full_sheet_has_no_holes_whatever_its_scale(size: tuple[int, int]) -> None:
    sheet = Sheet.lay((9, 9), 9, columns=3, spacing=None)
    picture, _ = flat(sheet, Box(0, 0, *sheet.size), size)
    assert (picture > 0).all()


def test_pixels_pass_untouched_at_their_own_scale(tmp_path: Path, making: ModuleType) -> None:
    folder = making.save_all(making.slices(7), tmp_path)
    (info,) = scan_with(READER, str(folder), {"columns": "3"})
    assert info.size == (24, 24)
    with READER.open(info) as image:
        pixels, valid = image.read(info.box, info.size)
        for k, cell in enumerate(info.cells):
            part = slice(int(cell.box.y0), int(cell.box.y1)), slice(int(cell.box.x0), int(cell.box.x1))
            assert valid[part].sum() == 48
            assert np.array_equal(pixels[part][valid[part]].reshape(8, 6), making.ramp(add=1000 * k) - 1024.0)
            world = cell.placement.to_world([[cell.box.x0 + 1.5, cell.box.y0 + 0.5]])[0]
            assert np.allclose(world, [-10, -20, 30 + 2.5 * k])
        assert not valid[16:, 8:].any()  # two empty cells
        whole, some = image.read(Box(0, 0, 24, 24), (12, 12))
        half, other = image.read(Box(8, 0, 16, 24), (4, 12))
        assert np.array_equal(whole[:, 4:8], half)
        assert np.array_equal(some[:, 4:8], other)


@pytest.mark.parametrize("spacing", [[0.5, 0.5], [1.0, 0.5]])
def test_a_stack_keeps_the_seams_contract(tmp_path: Path, making: ModuleType, spacing: list[float]) -> None:
    """Of square pixels the sheet is known exactly; others are seen larger along one axis, by interpolation."""
    slices = making.slices(7, PixelSpacing=spacing, PixelPaddingValue=304)
    folder = making.save_all(slices, tmp_path / "in", order=[4, 0, 6, 2, 1, 5, 3])
    options = {"columns": "3"}
    (info,) = scan_with(READER, str(folder), options)
    sheet = sheet_of(info)
    assert sheet is not None
    native = np.zeros((*info.size[::-1], 1), dtype=np.float32)
    valid = np.zeros(info.size[::-1], dtype=bool)
    for k, cell in enumerate(info.cells):
        x, y = int(cell.box.x0) + sheet.margin[0], int(cell.box.y0) + sheet.margin[1]
        stored = making.ramp(add=1000 * k)
        native[y : y + 8, x : x + 6, 0] = stored - 1024.0
        valid[y : y + 8, x : x + 6] = stored != 304
    if spacing[0] != spacing[1]:
        with READER.open(info) as image:
            native, valid = image.read(info.box, info.size)
        assert valid.sum() == 7 * 16 * 6 - 2
    check_reader(READER, str(folder), Truth(native=native, valid=valid, exact=False, options=options))


def test_a_radiograph_keeps_the_seams_contract(tmp_path: Path, making: ModuleType) -> None:
    pixels = np.random.default_rng(3).integers(0, 4000, (53, 71)).astype(np.uint16)
    data = making.image(
        pixels,
        sop_class=making.CR,
        PhotometricInterpretation="MONOCHROME1",
        PixelSpacing=[0.2, 0.1],
        PixelSpacingCalibrationType="FIDUCIAL",
        RescaleSlope=0.5,
        RescaleIntercept=3,
    )
    native = (pixels * 0.5 + 3).astype(np.float32)[..., None]
    points = ((0.0, 0.0, 0.0, 0.0), (71.0, 53.0, 7.1, 10.6))
    path = making.save(data, tmp_path / "a.dcm")
    check_reader(READER, str(path), Truth(native, np.ones((53, 71), dtype=bool), points))


def test_one_picture_keeps_the_seams_contract(tmp_path: Path, making: ModuleType) -> None:
    pixels = (np.random.default_rng(2).integers(-500, 3000, (61, 47))).astype(np.int16)
    pixels[5:20, 3:9] = -2000
    data = making.slices(1, PixelPaddingValue=-2000)[0]
    data.Rows, data.Columns, data.PixelData = 61, 47, pixels.tobytes()
    path = making.save(data, tmp_path / "a.dcm")
    valid = pixels != -2000
    native = np.where(valid, pixels - 1024.0, 0).astype(np.float32)[..., None]
    points = ((0.5, 0.5, -10.0, -20.0, 30.0), (46.5, 60.5, -10 + 23.0, -20 + 30.0, 30.0))
    check_reader(READER, str(path), Truth(native=native, valid=valid, points=points))
