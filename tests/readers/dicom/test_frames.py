"""Frames: read one at a time, each with its own rescale, window and placement."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.decoder import Decoder
from limner.readers.dicom.faults import FaultError
from limner.readers.dicom.reader import DicomReader
from limner.readers.errors import ReadError
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import RLELossless

READER = DicomReader()


def test_enhanced_frames_have_their_own_position_and_rescale(tmp_path: Path, making: ModuleType) -> None:
    data = making.enhanced([30.0, 10.0, 20.0], slopes=[1.0, 2.0, 4.0])  # not in spatial order
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "e.dcm")), {})
    assert [plane.frame for plane in info.planes] == [2, 3, 1]
    assert [plane.position_mm for plane in info.planes] == [10.0, 20.0, 30.0]
    for plane in info.planes:
        world = plane.placement.to_world([[4.5, 2.5]])[0]
        assert np.allclose(world, [1 + 0.5 * 4, 2 + 0.75 * 2, [30.0, 10.0, 20.0][plane.frame - 1]])
    values = Decoder().frame(str(tmp_path / "e.dcm"), 2, 0, 8)
    assert np.allclose(values, making.ramp(add=2000) * 4.0 + 5)


def test_frames_at_one_position_are_split_by_time(tmp_path: Path, making: ModuleType) -> None:
    data = making.enhanced([1.0, 1.0, 2.0, 2.0], slopes=[1.0] * 4, times=[1, 2, 1, 2])
    infos = scan_with(READER, str(making.save(data, tmp_path / "e.dcm")), {})
    assert [[plane.frame for plane in info.planes] for info in infos] == [[1, 3], [2, 4]]
    assert {dict(info.facts)["split_by"] for info in infos} == {"temporal position"}


def test_only_the_requested_frame_is_decoded(tmp_path: Path, making: ModuleType) -> None:
    single = making.image(making.ramp())
    single.compress(RLELossless, generate_instance_uid=False)
    good = get_frame(single.PixelData, 0, number_of_frames=1)
    data = making.image(np.stack([making.ramp()] * 3), sop_class=making.US_CLIP, frames=3)
    data.file_meta.TransferSyntaxUID = RLELossless
    data.PixelData = encapsulate([b"\xde\xad\xbe\xef" * 20, good, b"\0" * 40])
    data["PixelData"].VR = "OB"
    path = making.save(data, tmp_path / "clip.dcm")
    (info,) = scan_with(READER, str(path), {})
    assert dict(info.facts)["sort_basis"] == "frame number"
    with READER.open(info) as image:
        pixels, valid = image.read(info.box, (6, 8), 1)
        assert valid.all()
        assert np.array_equal(pixels[..., 0], making.ramp())
        with pytest.raises(ReadError, match="slice 1 of 3 must have decodable pixel data"):
            image.read(info.box, (6, 8))


def test_lossy_jpeg_of_12_bits_is_refused_with_the_way_out() -> None:
    (info,) = scan_with(READER, str(get_testdata_file("JPEG-lossy.dcm", download=False)), {})
    refused = r"codec supports \(found: 12-bit lossy JPEG\)\. Decompress it with dcmdjpeg"
    with READER.open(info) as image, pytest.raises(ReadError, match=refused):
        image.read(info.box, (8, 8))


def test_a_missing_frame_is_an_error(tmp_path: Path, making: ModuleType) -> None:
    path = making.save(making.slices(1)[0], tmp_path / "a.dcm")
    with pytest.raises(FaultError):
        Decoder().frame(str(path), 1, 0, 8)


def test_colour_is_read_as_rgb(tmp_path: Path, making: ModuleType) -> None:
    rgb = np.stack([making.ramp() % 251, making.ramp() % 13, making.ramp() % 7], axis=2).astype(np.uint8)
    data = making.image(
        rgb, sop_class=making.SC, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "c.dcm")), {})
    assert [channel.common for channel in info.channels] == ["red", "green", "blue"]
    with READER.open(info, ["blue", "red"]) as image:
        pixels, valid = image.read(info.box, info.size)
    assert valid.all()
    assert np.array_equal(pixels, rgb[..., [2, 0]])


def test_palette_colour_is_read_as_rgb(tmp_path: Path, making: ModuleType) -> None:
    data = making.image((making.ramp() % 4).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0], [1, 2, 255]], dtype=np.uint16) * 257
    for at, colour in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(data, f"{colour}PaletteColorLookupTableData", table[:, at].tobytes())
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "p.dcm")), {})
    with READER.open(info) as image:
        pixels, _ = image.read(info.box, info.size)
    assert np.array_equal(pixels, (table // 257)[making.ramp() % 4])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("us_rgb_bigendian/US-RGB-8-epicard.dcm", (640, 480)),
        ("cr_chest_nema/RG1_J2KI.dcm", (1841, 1955)),
        ("mr_heart_multiframe/MR-MONO2-8-16x-heart.dcm", (256, 256)),
    ],
)
def test_real_files_open(shared_data: Path, name: str, shape: tuple[int, int]) -> None:
    (info,) = scan_with(READER, str(shared_data / "dicom" / name), {})
    assert info.size == shape
    with READER.open(info) as image:
        pixels, valid = image.read(info.box, (64, 64))
    assert valid.mean() > 0.7
    assert pixels[valid].std() > 1
