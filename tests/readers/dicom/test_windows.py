"""The option `window`: one window as grey, three as red, green and blue."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.voi_lut import VoiLut, to_grey
from limner.readers.dicom.windows import parse_windows
from limner.readers.errors import RequestError
from limner.readers.image import ImageInfo
from limner.readers.render import Stretch, render, visibility, window_stretch

READER = DicomReader()


def scan(path: Path, window: str = "") -> ImageInfo:
    (info,) = scan_with(READER, str(path), {"window": window} if window else {})
    return info


def colours(info: ImageInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rendering of the only slice, its values, and where they are valid."""
    stretch = window_stretch(info)
    assert stretch is not None
    assert Stretch.from_json(stretch.to_json()) == stretch
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    assert visibility(info, values, valid, stretch) == "detail"
    return render(values, valid, stretch), values[..., 0], valid


def ct(making: ModuleType, path: Path, **tags: object) -> Path:
    pixels = np.linspace(-1100, 1100, 60 * 40).reshape(60, 40).round().astype(np.int16)
    return making.save(making.image(pixels, RescaleIntercept=0, RescaleSlope=1, RescaleType="HU", **tags), path)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("lung,mediastinum,bone", [(-600, 1500), (40, 400), (400, 1800)]),
        ("10/20.5, subdural ,-600/1500", [(10, 20.5), (75, 215), (-600, 1500)]),
        ("40,400", [(40, 400)] * 3),
        ("40/400", [(40, 400)] * 3),
    ],
)
def test_three_windows_are_red_green_and_blue(
    tmp_path: Path, making: ModuleType, window: str, expected: list[tuple[float, float]], photometric: str
) -> None:
    info = scan(ct(making, tmp_path / "a.dcm", PhotometricInterpretation=photometric, PixelPaddingValue=-1100), window)
    shown, values, valid = colours(info)
    assert 0 < valid.sum() < valid.size
    for colour, (centre, width) in enumerate(expected):
        inverted = photometric == "MONOCHROME1"
        grey = to_grey(values, valid, VoiLut(centre, width), inverted=inverted)
        assert np.abs(shown[..., colour].astype(int) - grey).max() <= int(inverted)


def test_the_windows_of_medgemma_are_its_limits(tmp_path: Path, making: ModuleType) -> None:
    """clip(value, low, high), minus low, divided by high - low, times 255: the code of its model card."""
    info = scan(ct(making, tmp_path / "a.dcm"), "medgemma")
    shown, values, _ = colours(info)
    for colour, (low, high) in enumerate([(-1024, 1024), (-135, 215), (0, 80)]):
        theirs = (np.clip(values, low, high) - low) / (high - low) * 255.0
        assert np.abs(shown[..., colour] - theirs).max() <= 0.5 + 1e-6


def test_each_window_used_is_recorded(tmp_path: Path, making: ModuleType) -> None:
    tags = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "WindowCenterWidthExplanation": ["WINDOW1", "BONE"]}
    used = dict(scan(ct(making, tmp_path / "a.dcm", **tags), "lung,bone,40/80").facts)["window_used"]
    assert used == (
        "red -600/1500 LINEAR (preset lung); green 300/1500 LINEAR (file, window bone); "
        "blue 40/80 LINEAR (option window)"
    )


def test_a_preset_is_for_hounsfield_units(tmp_path: Path, making: ModuleType) -> None:
    film = making.image(making.ramp(), sop_class=making.CR, WindowCenter=300, WindowWidth=500)
    path = making.save(film, tmp_path / "a.dcm")
    for window in ("lung", "medgemma", "lung,40/80,bone"):
        info = scan(path, window)
        assert dict(info.facts)["window_used"] == "300/500 LINEAR (file, first window)"
        assert f"the window {window} is for Hounsfield units and was not used" in info.notes
    assert dict(scan(path, "40/80,40/90,40/100").facts)["window_used"].startswith("red 40/80")


def test_colours_have_no_window(tmp_path: Path, making: ModuleType) -> None:
    pixels = np.zeros((8, 6, 3), dtype=np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = making.save(making.image(pixels, sop_class=making.SC, **tags), tmp_path / "a.dcm")
    assert "it has colours, which the window 40/80 cannot show" in scan(path, "40/80").notes
    assert not any("window" in note for note in scan(path).notes)


def test_sigmoid_and_linear_windows_are_not_mixed(tmp_path: Path, making: ModuleType) -> None:
    tags = {"WindowCenter": 300, "WindowWidth": 500, "WindowCenterWidthExplanation": "BONE"}
    path = ct(making, tmp_path / "a.dcm", VOILUTFunction="SIGMOID", **tags)
    with pytest.raises(RequestError, match="one curve"):
        scan(path, "bone,lung,lung")
    shown, values, valid = colours(scan(path, "bone,bone,bone"))
    grey = to_grey(values, valid, VoiLut(300, 500, "SIGMOID"), inverted=False)
    assert (shown == grey[..., None]).all()


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("lung,bone", "one window, or three"),
        ("a,b,c,d", "one window, or three"),
        ("40,400,40,400", "one window, or three"),
        (",", "one window, or three"),
        ("40,0", "width above 0"),
        ("40/-3", "width above 0"),
        ("40/inf", "width above 0"),
        ("40/x", "width above 0"),
        ("40", "width above 0"),
        ("lung,,bone", "width above 0"),
        ("40,400,bone", "width above 0"),
        ("lungs", "preset"),
        ("lung,lungs,bone", "preset"),
    ],
)
def test_what_is_no_window_is_refused(tmp_path: Path, making: ModuleType, window: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as error:
        scan(ct(making, tmp_path / "a.dcm"), window)
    assert "lung,mediastinum,bone" in str(error.value)


def test_without_the_option_nothing_is_asked_for() -> None:
    assert parse_windows(" ") == ()


def test_a_stretch_has_one_or_three_windows() -> None:
    with pytest.raises(ValueError, match="three windows"):
        Stretch(("grey",), (0.0, 0.0), (1.0, 1.0), "")
