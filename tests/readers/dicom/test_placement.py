"""Placements: SimpleITK is the oracle for slices; projections are placed only where they are calibrated."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError

READER = DicomReader()


def test_spacing_is_rows_then_columns_and_centres_become_corners(tmp_path: Path, making: ModuleType) -> None:
    data = making.slices(1, PixelSpacing=[4.0, 6.4])[0]
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "a.dcm")), {})
    assert np.allclose(info.placement.to_world([[0.5, 0.5]]), [[-10, -20, 30]])
    assert np.allclose(info.placement.to_world([[2.5, 3.5]]), [[-10 + 2 * 6.4, -20 + 3 * 4.0, 30]])
    assert (info.placement.unit, info.placement.source) == ("mm", "pixel_spacing")
    assert info.placement.frame is not None
    assert info.placement.frame.startswith("2.25.")


@pytest.mark.slow
def test_placements_equal_simpleitk(pydicom_files: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    compared = 0
    for path in sorted(pydicom_files.rglob("*")):
        if not path.is_file() or "DICOMDIR" in path.name:
            continue
        try:
            (info,) = scan_with(READER, str(path), {})
        except (ReadError, ValueError):
            continue
        if info.placement.unit != "mm" or len(info.placement.matrix) != 3:
            continue
        picture = itk.ReadImage(str(path))
        width, height = info.size
        for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width // 2, height // 3)):
            theirs = picture.TransformIndexToPhysicalPoint((x, y, 0))
            assert np.abs(info.placement.to_world([[x + 0.5, y + 0.5]])[0] - theirs).max() < 1e-3, path.name
        compared += 1
    assert compared >= 39


def test_a_skewed_orientation_is_made_orthogonal_with_a_note(tmp_path: Path, making: ModuleType) -> None:
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    data = making.slices(1)[0]
    data.ImageOrientationPatient = [0.9999, 0.0002, 0.01, 0.0006, 0.988, -0.1515]
    data.Rows = data.Columns = 48
    data.PixelData = np.zeros((48, 48), dtype=np.int16).tobytes()
    path = making.save(data, tmp_path / "a.dcm")
    (info,) = scan_with(READER, str(path), {})
    picture = itk.ReadImage(str(path))
    theirs = picture.TransformIndexToPhysicalPoint((47, 47, 0))
    assert np.abs(info.placement.to_world([[47.5, 47.5]])[0] - theirs).max() < 1e-3
    assert any("right angle" in note for note in info.notes)


@pytest.mark.parametrize(
    ("tags", "source", "unit"),
    [
        ({}, "none", "px"),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, "imager_plane", "px"),
        (
            {"ImagerPixelSpacing": [0.1, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25},
            "imager_plane/ermf",
            "px",
        ),
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.1, 0.2]}, "imager_plane", "px"),
        ({"PixelSpacing": [0.1, 0.2]}, "pixel_spacing_unspecified", "px"),
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.12, 0.24]}, "pixel_spacing_calibrated", "mm"),
        ({"PixelSpacing": [0.1, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}, "pixel_spacing_calibrated", "mm"),
    ],
)
def test_a_projection_is_placed_only_where_calibrated(
    tmp_path: Path, making: ModuleType, tags: dict[str, object], source: str, unit: str
) -> None:
    data = making.image(making.ramp(), sop_class=making.CR, **tags)
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "a.dcm")), {})
    facts = dict(info.facts)
    assert (facts["spacing_source"], info.placement.unit) == (source, unit)
    assert ("row_mm" in facts) == bool(tags)
    assert any("placed in pixels" in note for note in info.notes) == (unit == "px")
    if unit == "mm":
        assert np.allclose(info.placement.to_world([[1, 1]]), [[0.2, 0.1]])


def test_the_spacing_of_an_ultrasound_region_is_not_that_of_the_image(tmp_path: Path, making: ModuleType) -> None:
    region = making.item(PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.02, PhysicalDeltaY=0.03)
    data = making.image(
        making.ramp(), sop_class="1.2.840.10008.5.1.4.1.1.6.1", Modality="US", SequenceOfUltrasoundRegions=region
    )
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "a.dcm")), {})
    facts = dict(info.facts)
    assert (facts["spacing_source"], facts["row_mm"], info.placement.unit) == ("us_region", "0.3", "px")


@pytest.mark.parametrize(("pointer", "unit"), [(None, "px"), (0x00200013, "px"), (0x00181063, "mm")])
def test_a_stated_position_is_that_of_the_first_frame_unless_frames_follow_in_time(
    tmp_path: Path, making: ModuleType, pointer: int | None, unit: str
) -> None:
    pixels = np.stack([making.ramp(add=1000 * k) for k in range(3)])
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": list(making.AXIAL), "PixelSpacing": [2, 2]}
    tags = {**place, "FrameIncrementPointer": pointer, "FrameTime": 40}
    data = making.image(pixels, sop_class=making.MR, frames=3, **tags)
    infos = scan_with(READER, str(making.save(data, tmp_path / "a.dcm")), {})
    assert {plane.placement.unit for info in infos for plane in info.planes} == {unit}
    assert sum(len(info.planes) for info in infos) == 3
