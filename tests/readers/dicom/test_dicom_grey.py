"""The grey pipeline: padding on stored values, rescale in float, VOI, inversion last. The oracle is dcmj2pnm."""

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from limner.readers.dicom.grey import Modality, Table, Voi, grey8, padded
from limner.readers.dicom.pixels import Frames
from limner.readers.dicom.reader import DicomReader, stated_stretch
from limner.readers.render import render

READER = DicomReader()
DCMTK = shutil.which("dcmj2pnm")


def dcmtk(path: Path, *options: str) -> np.ndarray:
    """The first frame as dcmj2pnm renders it, without overlays: (H, W) uint8."""
    out = path.with_suffix(".pgm")
    assert DCMTK is not None
    subprocess.run([DCMTK, "-O", *options, "+op", str(path), str(out)], check=True, capture_output=True)
    whole = out.read_bytes()
    head = re.match(rb"P5\s(?:#.*\n)*(\d+)\s+(\d+)\s+255\s", whole)
    assert head is not None
    return np.frombuffer(whole[head.end() :], np.uint8).reshape(int(head[2]), int(head[1]))


def test_padding_is_judged_on_stored_values_in_either_order() -> None:
    stored = np.array([[-2000, -1999, -1000, 5]])
    assert padded(stored, -2000, None).tolist() == [[True, False, False, False]]
    assert padded(stored, -1000, -2000).tolist() == [[True, True, True, False]]
    assert not padded(stored, None, None).any()


def test_rescale_is_not_cast_back() -> None:
    values = Modality(slope=0.001, intercept=-0.5)(np.array([1, 65535], dtype=np.uint16))
    assert values.dtype == np.float64
    assert np.allclose(values, [-0.499, 65.035])


def test_a_linear_window_follows_the_standard() -> None:
    low, high = Voi(2048, 4096).ends()
    assert (low, high) == (0.0, 4095.0)  # PS3.3 C.11.2.1.2.1, note 3
    assert Voi(2048, 1).ends() == (2047.5, 2047.5)
    assert Voi(100, 50, "LINEAR_EXACT").ends() == (75.0, 125.0)


def test_inversion_comes_last_and_padding_stays_black() -> None:
    values = np.array([[0.0, 127.5, 255.0, np.nan]])
    valid = np.array([[True, True, True, False]])
    voi = Voi(127.5, 255.0, "LINEAR_EXACT")
    assert grey8(values, valid, voi, inverted=False).tolist() == [[0, 128, 255, 0]]
    assert grey8(values, valid, voi, inverted=True).tolist() == [[255, 128, 0, 0]]


def test_a_table_clamps_at_its_ends() -> None:
    table = Table(10.0, np.array([0.0, 100.0, 200.0]), 8)
    assert table(np.array([-5.0, 10.0, 11.0, 12.0, 99.0])).tolist() == [0, 0, 100, 200, 200]


def test_values_are_hounsfield_units_and_padding_is_invalid(tmp_path: Path, making: ModuleType) -> None:
    pixels = making.ramp()
    pixels[:3] = -2000
    data = making.slices(1, PixelPaddingValue=-2000, RescaleSlope=0.5)[0]
    data.PixelData = pixels.tobytes()
    (info,) = READER.scan(str(making.save(data, tmp_path / "a.dcm")), {})
    assert (info.channels[0].name, info.channels[0].dtype, info.channels[0].quantity) == ("grey", "float32", "HU")
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    assert not valid[:3].any()
    assert valid[3:].all()
    assert np.array_equal(values[3:, :, 0], pixels[3:] * 0.5 - 1024)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [(300, 400), (350.5, 77.3), (10, 1)])
def test_the_stated_stretch_renders_what_the_pipeline_renders(
    tmp_path: Path, making: ModuleType, photometric: str, window: tuple[float, float]
) -> None:
    data = making.slices(
        1, PhotometricInterpretation=photometric, WindowCenter=window[0] - 1024, WindowWidth=window[1]
    )[0]
    (info,) = READER.scan(str(making.save(data, tmp_path / "a.dcm")), {})
    stretch = stated_stretch(info)
    assert stretch is not None
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    expected = grey8(values[..., 0], valid, Voi(window[0] - 1024, window[1]), inverted=photometric == "MONOCHROME1")
    if window[1] > 1:  # at width 1 all is black or white, whichever way round: only the pipeline knows
        assert np.abs(render(values, valid, stretch)[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.skipif(DCMTK is None, reason="needs dcmtk's dcmj2pnm")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "voi",
    [
        {"WindowCenter": 300, "WindowWidth": 400},
        {"WindowCenter": 255.5, "WindowWidth": 100.5},
        {"WindowCenter": 300, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": "table"},
        {"WindowCenter": 300, "WindowWidth": 400, "PixelPaddingValue": 203},
        {"WindowCenter": 100, "WindowWidth": 90, "ModalityLUTSequence": "table"},
    ],
)
def test_renderings_equal_dcmtk(tmp_path: Path, making: ModuleType, voi: dict[str, Any], photometric: str) -> None:
    pixels = making.ramp(rows=9, columns=80).astype(np.uint16)
    tags = dict(voi)
    entries = (np.linspace(0, 1, 700) ** 2 * 4095).astype(np.uint16)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        if name in tags:
            table = making.item(
                LUTDescriptor=[700, 50, 12 if name == "VOILUTSequence" else 16], LUTData=entries.tobytes()
            )
            table[0]["LUTDescriptor"].VR = "US"
            table[0]["LUTData"].VR = "OW"
            if name == "ModalityLUTSequence":
                table[0].ModalityLUTType = "US"
            tags[name] = table
    data = making.image(pixels, sop_class=making.CR, PhotometricInterpretation=photometric, **tags)
    path = making.save(data, tmp_path / "a.dcm")
    with path.open("rb") as file:
        frames = Frames(file)
        values, window = frames.read(0), frames.voi(0)
    assert window is not None
    ours = grey8(values, ~np.isnan(values), window, inverted=photometric == "MONOCHROME1")
    theirs = dcmtk(path, "+Wl" if window.table is not None else "+Wi", "1")
    seen = ~np.isnan(values)
    assert seen.sum() >= values.size - 1
    assert np.abs(ours.astype(int) - theirs)[seen].max() <= 1


@pytest.mark.skipif(DCMTK is None, reason="needs dcmtk's dcmj2pnm")
@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_RLE.dcm", "examples_overlay.dcm", "dicomdirtests/77654033/CR1/6154"]
)
def test_pydicoms_files_render_like_dcmtk(tmp_path: Path, pydicom_files: Path, name: str) -> None:
    path = tmp_path / "a.dcm"
    shutil.copy(pydicom_files / name, path)
    (info,) = READER.scan(str(path), {})
    stretch = stated_stretch(info)
    assert stretch is not None
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    assert np.abs(render(values, valid, stretch)[..., 0].astype(int) - dcmtk(path, "+Wi", "1")).max() <= 1


def test_the_window_is_a_choice_that_is_recorded(tmp_path: Path, making: ModuleType) -> None:
    tags = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "WindowCenterWidthExplanation": ["WINDOW1", "BONE"]}
    path = making.save(making.slices(1, **tags)[0], tmp_path / "a.dcm")
    bare = making.save(making.slices(1)[0], tmp_path / "b.dcm")

    def used(source: Path, **options: str) -> str:
        return dict(READER.scan(str(source), options)[0].facts)["window_used"]

    assert used(path) == "40/400 LINEAR (file, first window)"
    assert used(path, window="bone") == "300/1500 LINEAR (file, window bone)"
    assert used(path, window="lung") == "-600/1500 LINEAR (preset lung)"
    assert used(path, window="10,20.5") == "10/20.5 LINEAR (option window)"
    assert "preset abdomen" in used(bare)
