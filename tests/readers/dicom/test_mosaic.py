"""Mosaics: slices are cut out and placed as the file states them, by CSA header or private tag, or refused by name."""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.dicom.mosaic import csa_values
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo

READER = DicomReader()
COUNT, NORMAL = "NumberOfImagesInMosaic", "SliceNormalVector"
MEASURES = {"PixelSpacing": [3, 2], "SpacingBetweenSlices": 4, "ImagePositionPatient": [-100, -50, 10]}
PLACED = {**MEASURES, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}


def picture(count: int = 5, side: int = 3, rows: int = 8, columns: int = 6) -> np.ndarray:
    """Slices in their places: slice k's pixels are 1000 · k + 100 · row + column."""
    whole = np.zeros((side * rows, side * columns), dtype=np.int16)
    for k in range(count):
        top, left = k // side * rows, k % side * columns
        slice_ = 1000 * k + 100 * np.arange(rows)[:, None] + np.arange(columns)
        whole[top : top + rows, left : left + columns] = slice_
    return whole


def mosaic(
    making: ModuleType,
    path: Path,
    *,
    tag: int | None = None,
    header: Mapping[str, list[str]] | None = None,
    later: bool = True,
    pixels: Any = None,
    **tags: object,
) -> Path:
    """A mosaic with the number of slices in (0019,100A), a CSA header, both or none."""
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    shown = {"ImageType": kind, "WindowCenter": 2500, "WindowWidth": 5000, **PLACED, **tags}
    data = making.image(picture() if pixels is None else pixels, sop_class=making.MR, **shown)
    if tag is not None:
        data.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", tag)
    if header:
        data.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(
            0x10, "OB", making.csa(header, later=later)
        )
    return making.save(data, path)


def scan(path: Path) -> ImageInfo:
    (info,) = scan_with(READER, str(path), {})
    return info


def test_a_slice_of_a_mosaic_fulfils_the_reader_contract(tmp_path: Path, making: ModuleType) -> None:
    """The corner of slice 1 lies a slice's size further than the stated one: (3 − 1) / 2 of 6 · 2 mm and 8 · 3 mm."""
    path = mosaic(making, tmp_path / "a.dcm", tag=5)
    for k in range(5):
        native = picture()[k // 3 * 8 :, k % 3 * 6 :][:8, :6]
        points = ((0.5, 0.5, -100 + 12.0, -50 + 24.0, 10 + 4.0 * k), (5.5, 7.5, -100 + 22.0, -50 + 45.0, 10 + 4.0 * k))
        expected = ExpectedImage(native.astype(np.float32)[..., None], np.ones((8, 6), dtype=bool), points, plane=k)
        check_reader(READER, str(path), expected)
    info = scan(path)
    assert (info.size, [plane.frame for plane in info.planes]) == ((6, 8), [1, 2, 3, 4, 5])
    assert [note for note in info.notes if "mosaic" in note] == [
        "its mosaic does not state in which direction its slices follow: they were placed along row × column"
    ]


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_slices_follow_the_normal_of_the_csa_header(tmp_path: Path, making: ModuleType, sign: int, later: bool) -> None:
    header = {COUNT: ["5"], NORMAL: ["0.00000000", "0.00000000", f"{sign}.00000000"]}
    info = scan(mosaic(making, tmp_path / "a.dcm", header=header, later=later))
    assert not any("mosaic" in note for note in info.notes)
    heights = {plane.frame: float(plane.placement.to_world([[0.5, 0.5]])[0][2]) for plane in info.planes}
    assert heights == {k + 1: 10 + 4.0 * sign * k for k in range(5)}
    with READER.open(info) as image:
        for number, plane in enumerate(info.planes):
            assert image.read(info.box, info.size, number)[0][0, 0, 0] == 1000 * (plane.frame - 1)


@pytest.mark.parametrize(
    ("tag", "header", "found"),
    [
        (None, None, "no number"),
        (5, {COUNT: ["6"]}, "5 in (0019,xx0A), 6 in the CSA header"),
        (4, None, ""),  # 4 slices are 2 × 2 places: 24 × 18 pixels hold them
        (17, None, "17 slices in 18 × 24 pixels"),
        (5, {COUNT: ["5"], NORMAL: ["0", "0.5", "0.8660254"]}, "a slice normal 30.0° off"),
        (0, None, "no number"),
    ],
)
def test_a_mosaic_that_does_not_state_its_slices_in_one_way_is_refused(
    tmp_path: Path, making: ModuleType, tag: int | None, header: Mapping[str, list[str]] | None, found: str
) -> None:
    path = mosaic(making, tmp_path / "a.dcm", tag=tag, header=header)
    if not found:
        assert len(scan(path).planes) == 4
        return
    with pytest.raises(ReadError, match="how many slices its mosaic has") as caught:
        scan(path)
    assert found in str(caught.value)
    assert "export single slices" in str(caught.value)


def test_a_mosaic_without_a_step_has_slices_without_places(tmp_path: Path, making: ModuleType) -> None:
    info = scan(mosaic(making, tmp_path / "a.dcm", tag=5, SpacingBetweenSlices=None))
    assert (len(info.planes), info.placement.unit, {plane.position_mm for plane in info.planes}) == (5, "px", {None})
    assert any("distance between its slices" in note for note in info.notes)


def test_a_count_without_the_image_type_is_noted(tmp_path: Path, making: ModuleType) -> None:
    info = scan(mosaic(making, tmp_path / "a.dcm", tag=5, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]))
    assert len(info.planes) == 1
    assert any("read as one slice" in note for note in info.notes)


def test_the_grid_of_another_vendor_is_refused(tmp_path: Path, making: ModuleType) -> None:
    data = making.image(picture(), sop_class=making.MR, **PLACED)
    data.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "5")
    with pytest.raises(ReadError, match="grid of slices"):
        scan(making.save(data, tmp_path / "a.dcm"))


def test_mosaics_over_time_are_one_stack_each_in_the_order_of_time(tmp_path: Path, making: ModuleType) -> None:
    for volume in range(3):
        tags: dict[str, Any] = {"AcquisitionNumber": 3 - volume, "number": volume + 1}
        mosaic(making, tmp_path / f"{volume}.dcm", tag=5, pixels=picture() + volume, **tags)
    infos = scan_with(READER, str(tmp_path), {})
    assert [len(info.planes) for info in infos] == [5, 5, 5]
    assert [dict(info.facts)["split_value"] for info in infos] == ["1", "2", "3"]
    for number, info in enumerate(infos):
        with READER.open(info) as image:
            assert image.read(info.box, info.size, 0)[0][0, 0, 0] == 2 - number


@settings(max_examples=200, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_a_damaged_csa_header_is_no_value_and_no_error(making: ModuleType, data: st.DataObject) -> None:
    tags = {COUNT: ["5"], NORMAL: ["0", "0", "1"]}
    whole = bytearray(making.csa(tags, later=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = csa_values(bytes(whole[: data.draw(st.integers(0, len(whole)))]), (COUNT, NORMAL))
    assert set(found) == {COUNT, NORMAL}
    assert all(np.isfinite(values).all() for values in found.values())


def test_a_csa_header_of_endless_items_ends() -> None:
    empty = struct.pack("<64si4s3i", COUNT.encode(), 1, b"IS", 6, 2**31 - 1, 77) + struct.pack("<4i", 0, 0, 0, 0) * 9
    assert csa_values(b"SV10\4\3\2\1" + struct.pack("<2I", 2**32 - 1, 77) + empty, (COUNT,)) == {COUNT: []}
