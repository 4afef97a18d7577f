"""Planes of a stack: each slice has its own pixels, mask and placement, and is read alone."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from limner.readers.contract import ExpectedImage, check_reader, scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError
from limner.readers.image import ImageInfo

READER = DicomReader()


def test_a_slice_has_its_own_pixels_and_placement(tmp_path: Path, making: ModuleType) -> None:
    folder = making.save_all(making.slices(7), tmp_path, order=[4, 0, 6, 2, 1, 5, 3])
    (info,) = scan_with(READER, str(folder), {})
    assert (info.size, len(info.planes)) == ((6, 8), 7)
    with READER.open(info) as image:
        for k, plane in enumerate(info.planes):
            pixels, valid = image.read(info.box, info.size, k)
            assert valid.all()
            assert np.array_equal(pixels[..., 0], making.ramp(add=1000 * k) - 1024.0)
            assert np.allclose(plane.placement.to_world([[0.5, 0.5]])[0], [-10, -20, 30 + 2.5 * k])
        for absent in (-1, 7):
            with pytest.raises(ReadError, match="0 to 6"):
                image.read(info.box, info.size, absent)


def test_the_info_of_a_stack_survives_json(tmp_path: Path, making: ModuleType) -> None:
    (info,) = scan_with(READER, str(making.save_all(making.slices(3), tmp_path)), {})
    assert ImageInfo.from_json(info.to_json()) == info
    assert info.placement == info.planes[0].placement


@pytest.mark.parametrize("spacing", [[0.5, 0.5], [1.0, 0.5]])
def test_a_stack_fulfils_the_reader_contract(tmp_path: Path, making: ModuleType, spacing: list[float]) -> None:
    slices = making.slices(4, PixelSpacing=spacing, PixelPaddingValue=304)
    folder = making.save_all(slices, tmp_path / "in", order=[2, 0, 3, 1])
    for k in (0, 3):
        stored = making.ramp(add=1000 * k)
        points = ((0.5, 0.5, -10.0, -20.0, 30 + 2.5 * k),)
        check_reader(
            READER,
            str(folder),
            ExpectedImage((stored - 1024.0).astype(np.float32)[..., None], stored != 304, points, plane=k),
        )


def test_a_radiograph_fulfils_the_reader_contract(tmp_path: Path, making: ModuleType) -> None:
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
    check_reader(READER, str(path), ExpectedImage(native, np.ones((53, 71), dtype=bool), points))


def test_a_single_image_fulfils_the_reader_contract(tmp_path: Path, making: ModuleType) -> None:
    pixels = (np.random.default_rng(2).integers(-500, 3000, (61, 47))).astype(np.int16)
    pixels[5:20, 3:9] = -2000
    data = making.slices(1, PixelPaddingValue=-2000)[0]
    data.Rows, data.Columns, data.PixelData = 61, 47, pixels.tobytes()
    path = making.save(data, tmp_path / "a.dcm")
    valid = pixels != -2000
    native = np.where(valid, pixels - 1024.0, 0).astype(np.float32)[..., None]
    points = ((0.5, 0.5, -10.0, -20.0, 30.0), (46.5, 60.5, -10 + 23.0, -20 + 30.0, 30.0))
    check_reader(READER, str(path), ExpectedImage(native=native, valid=valid, points=points))
