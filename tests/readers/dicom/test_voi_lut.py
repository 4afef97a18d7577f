"""The grey pipeline: padding on stored values, rescale in float, VOI, inversion last. The oracle is dcmj2pnm."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from limner.readers.contract import scan_with
from limner.readers.dicom.header import read_header
from limner.readers.dicom.metadata import FileMetadata
from limner.readers.dicom.pixels import Frames
from limner.readers.dicom.reader import DicomReader
from limner.readers.dicom.voi_lut import LookupTable, ModalityLut, VoiLut, grey_levels, padding_mask, to_grey
from limner.readers.image import ImageInfo
from limner.readers.render import Stretch, display_stretch, fit_stretch, render, window_stretch

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


def test_padding_is_a_range_of_stored_values() -> None:
    stored = np.array([[-2000, -1999, -1000, 5]])
    assert padding_mask(stored, -2000, None).tolist() == [[True, False, False, False]]
    assert padding_mask(stored, -1000, -2000).tolist() == [[True, True, True, False]]
    assert not padding_mask(stored, None, None).any()


def test_rescale_is_not_cast_back() -> None:
    values = ModalityLut(slope=0.001, intercept=-0.5)(np.array([1, 65535], dtype=np.uint16))
    assert values.dtype == np.float64
    assert np.allclose(values, [-0.499, 65.035])


def test_a_linear_window_follows_the_standard() -> None:
    low, high = VoiLut(2048, 4096).limits()
    assert (low, high) == (0.0, 4095.0)  # PS3.3 C.11.2.1.2.1, note 3
    assert VoiLut(2048, 1).limits() == (2047.5, 2047.5)
    assert VoiLut(100, 50, "LINEAR_EXACT").limits() == (75.0, 125.0)


def test_inversion_comes_last_and_padding_stays_black() -> None:
    values = np.array([[0.0, 127.5, 255.0, np.nan]])
    valid = np.array([[True, True, True, False]])
    voi = VoiLut(127.5, 255.0, "LINEAR_EXACT")
    assert to_grey(values, valid, voi, inverted=False).tolist() == [[0, 128, 255, 0]]
    assert to_grey(values, valid, voi, inverted=True).tolist() == [[255, 128, 0, 0]]


def test_a_lookup_table_clamps_at_its_ends() -> None:
    table = LookupTable(10.0, np.array([0.0, 100.0, 200.0]), 8)
    assert table(np.array([-5.0, 10.0, 11.0, 12.0, 99.0])).tolist() == [0, 0, 100, 200, 200]


def test_values_are_hounsfield_units_and_padding_is_invalid(tmp_path: Path, making: ModuleType) -> None:
    pixels = making.ramp()
    pixels[:3] = -2000
    data = making.slices(1, PixelPaddingValue=-2000, RescaleSlope=0.5)[0]
    data.PixelData = pixels.tobytes()
    (info,) = scan_with(READER, str(making.save(data, tmp_path / "a.dcm")), {})
    assert (info.channels[0].name, info.channels[0].dtype, info.channels[0].quantity) == ("grey", "float32", "HU")
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    assert not valid[:3].any()
    assert valid[3:].all()
    assert np.array_equal(values[3:, :, 0], pixels[3:] * 0.5 - 1024)


def lut(making: ModuleType, *, first: int, bits: int, entries: np.ndarray, vr: str = "US") -> Any:
    """A sequence with a lookup table."""
    sequence = making.item(
        LUTDescriptor=[len(entries) & 0xFFFF, first if vr == "SS" else first & 0xFFFF, bits],
        LUTData=entries.astype(np.uint16).tobytes(),
    )
    sequence[0]["LUTDescriptor"].VR = vr
    sequence[0]["LUTData"].VR = "OW"
    return sequence


VOIS: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": 300, "WindowWidth": 400},
    "window off whole numbers": {"WindowCenter": 255.5, "WindowWidth": 100.5},
    "a step": {"WindowCenter": 300, "WindowWidth": 1},
    "exact": {"WindowCenter": 300, "WindowWidth": 77.3, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 300, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
    "steep sigmoid": {"WindowCenter": 300, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"},
    "table": {"VOILUTSequence": "table"},
    "table that turns": {"VOILUTSequence": "hill"},
    "table below zero": {"VOILUTSequence": "low", "RescaleSlope": 2.7, "RescaleIntercept": -600},
    "table and window": {"VOILUTSequence": "table", "WindowCenter": 300, "WindowWidth": 400},
    "padding": {"WindowCenter": 300, "WindowWidth": 400, "PixelPaddingValue": 203},
    "padding under a table": {"VOILUTSequence": "table", "PixelPaddingValue": 203, "PixelPaddingRangeLimit": 210},
    "modality table": {"WindowCenter": 100, "WindowWidth": 90, "ModalityLUTSequence": "modality"},
    "modality table and sigmoid": {
        "WindowCenter": 1500,
        "WindowWidth": 1900,
        "VOILUTFunction": "SIGMOID",
        "ModalityLUTSequence": "modality",
    },
    "both tables": {"VOILUTSequence": "wide", "ModalityLUTSequence": "modality"},
}


def shown(making: ModuleType, path: Path, voi: str, photometric: str) -> Path:
    """A radiograph with a VOI."""
    rise, sheer = np.linspace(0, 1, 700) ** 2 * 4095, np.linspace(0, 1, 4096) ** 0.5 * 4095
    made = {
        "table": {"first": 50, "bits": 12, "entries": rise},
        "hill": {"first": 50, "bits": 8, "entries": np.round(127 * (1 + np.sin(np.arange(700) / 40)))},
        "low": {"first": -500, "bits": 12, "entries": rise},
        "wide": {"first": 0, "bits": 12, "entries": sheer},
        "modality": {"first": 50, "bits": 16, "entries": rise},
    }
    tags = {key: lut(making, **made[value]) if value in made else value for key, value in VOIS[voi].items()}  # type: ignore[index]
    if "ModalityLUTSequence" in tags:
        tags["ModalityLUTSequence"][0].ModalityLUTType = "US"
    pixels = making.ramp(rows=9, columns=80).astype(np.uint16)
    data = making.image(pixels, sop_class=making.CR, PhotometricInterpretation=photometric, **tags)
    return making.save(data, path)


def seen(path: Path) -> tuple[np.ndarray, np.ndarray, ImageInfo]:
    """A file's first image rendered with its stretch: grey (H, W), valid (H, W), and its facts."""
    (info,) = scan_with(READER, str(path), {})
    stretch = window_stretch(info)
    assert stretch is not None
    recorded = Stretch.from_json(json.loads(json.dumps(stretch.to_json())))
    assert recorded == stretch
    with READER.open(info) as image:
        values, valid = image.read(info.box, info.size)
    return render(values, valid, recorded)[..., 0].astype(int), valid, info


def frame(path: Path) -> tuple[np.ndarray, VoiLut]:
    """The first frame's modality values (H, W), padding NaN, and the VOI that the file states."""
    with path.open("rb") as file:
        frames = Frames(file)
        values, table = frames.read(0), frames.voi_table(0)
        own = FileMetadata.from_json(read_header(file)).frames[0]
    if table is not None:
        return values, VoiLut(0.0, 0.0, "LUT", table)
    return values, VoiLut(own.windows[0].centre, own.windows[0].width, own.voi)  # type: ignore[arg-type]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("voi", VOIS)
def test_the_stretch_of_an_image_renders_like_the_grey_pipeline(
    tmp_path: Path, making: ModuleType, photometric: str, voi: str
) -> None:
    path = shown(making, tmp_path / "a.dcm", voi, photometric)
    values, window = frame(path)
    expected = to_grey(values, ~np.isnan(values), window, inverted=photometric == "MONOCHROME1")
    ours, valid, info = seen(path)
    assert np.array_equal(valid, ~np.isnan(values))
    assert np.abs(ours - expected).max() <= (0 if window.table is not None else 1)
    assert not ours[~valid].any(), "padding is black, also after inversion"
    assert len(np.unique(expected)) > 1
    notes = [note for note in info.notes if "window" in note or "table" in note or "sigmoid" in note]
    assert notes == (["its window is at most 1 wide: all is black or white"] if voi == "a step" else [])


def test_a_lookup_table_rounds_inputs_down(tmp_path: Path, making: ModuleType) -> None:
    path = shown(making, tmp_path / "a.dcm", "table", "MONOCHROME2")
    (info,) = scan_with(READER, str(path), {})
    stretch = window_stretch(info)
    assert stretch is not None
    _, voi = frame(path)
    numbers = np.random.default_rng(1).uniform(-100, 900, (40, 50))
    everywhere = np.ones(numbers.shape, dtype=bool)
    ours = render(numbers[..., None].astype(np.float32), everywhere, stretch)[..., 0]
    assert np.array_equal(ours, to_grey(numbers.astype(np.float32), everywhere, voi, inverted=False))


def test_grey_levels_are_minimal() -> None:
    assert grey_levels(
        VoiLut(0, 0, "LUT", LookupTable(10.0, np.array([0.0, 0.4, 200.0, 255.0, 255.0]), 8)), inverted=False
    ) == (
        (10.0, 0),
        (12.0, 200),
        (13.0, 255),
    )
    assert grey_levels(VoiLut(40, 400), inverted=False) == ()
    assert grey_levels(VoiLut(40, 1), inverted=True) == ((39.5, 255), (np.nextafter(39.5, 40), 0))


def test_a_damaged_lookup_table_is_replaced_by_the_window_with_a_note(tmp_path: Path, making: ModuleType) -> None:
    short = lut(making, first=0, bits=12, entries=np.arange(5))
    short[0].LUTDescriptor = [700, 0, 12]
    for name, tags in (("with", {"WindowCenter": 300, "WindowWidth": 400}), ("without", {})):
        data = making.image(making.ramp().astype(np.uint16), sop_class=making.CR, VOILUTSequence=short, **tags)
        (info,) = scan_with(READER, str(making.save(data, tmp_path / f"{name}.dcm")), {})
        assert "its VOI lookup table is damaged and was not used" in info.notes
        assert dict(info.facts).get("window_used", "").startswith("300/400 LINEAR" if tags else "")
        assert (window_stretch(info) is None) == (not tags)
        (wished,) = scan_with(READER, str(tmp_path / f"{name}.dcm"), {"window": "300,400"})
        assert not any("lookup table" in note for note in wished.notes)


def test_the_most_common_lookup_table_of_a_stack_is_used(tmp_path: Path, making: ModuleType) -> None:
    slices = making.slices(5, RescaleIntercept=0)
    for k, data in enumerate(slices):
        rise = np.linspace(0, 255, 100 if k in {0, 3} else 200)
        data.VOILUTSequence = lut(making, first=0, bits=8, entries=rise)
    (info,) = scan_with(READER, str(making.save_all(slices, tmp_path)), {})
    assert dict(info.facts)["window_used"] == "200 entries from 0 LUT (file, one of 2)"
    assert any("different windows" in note for note in info.notes)
    (wished,) = scan_with(READER, str(tmp_path), {"window": "40,400"})
    assert dict(wished.facts)["window_used"] == "40/400 LINEAR (option window)"


def test_monochrome1_is_inverted_without_a_window(tmp_path: Path, making: ModuleType) -> None:
    greys = {}
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        pixels = making.ramp(rows=9, columns=80).astype(np.uint16)
        pixels[0, 0] = 99
        data = making.image(pixels, sop_class=making.CR, PhotometricInterpretation=photometric, PixelPaddingValue=99)
        (info,) = scan_with(READER, str(making.save(data, tmp_path / f"{photometric}.dcm")), {})
        assert window_stretch(info) is None
        with READER.open(info) as image:
            values, valid = image.read(info.box, info.size)
        stretch = display_stretch(info, fit_stretch(values, valid, info.channels))
        greys[photometric] = render(values, valid, stretch)[..., 0].astype(int)
    assert greys["MONOCHROME1"][0, 0] == greys["MONOCHROME2"][0, 0] == 0
    total = (greys["MONOCHROME1"] + greys["MONOCHROME2"]).ravel()[1:]
    assert set(total.tolist()) <= {254, 255, 256}
    assert np.unique(greys["MONOCHROME2"]).size > 100


@pytest.mark.skipif(DCMTK is None, reason="needs dcmtk's dcmj2pnm")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("voi", [name for name in VOIS if name not in {"a step", "exact"}])
def test_renderings_equal_dcmtk(tmp_path: Path, making: ModuleType, voi: str, photometric: str) -> None:
    path = shown(making, tmp_path / "a.dcm", voi, photometric)
    values, window = frame(path)
    valid = ~np.isnan(values)
    theirs = dcmtk(path, "+Wl" if window.table is not None else "+Wi", "1").astype(int)
    pipeline = to_grey(values, valid, window, inverted=photometric == "MONOCHROME1")
    ours, _, _ = seen(path)
    assert valid.mean() > 0.9
    for picture in (pipeline, ours):
        assert np.abs(picture.astype(int) - theirs)[valid].max() <= 1


PYDICOMS = ("MR_small.dcm", "MR_small_RLE.dcm", "examples_overlay.dcm", "dicomdirtests/77654033/CR1/6154")


@pytest.mark.parametrize("kind", ["window", "sigmoid", "table"])
@pytest.mark.parametrize("name", PYDICOMS)
def test_files_of_pydicom_render_like_the_pipeline_and_dcmtk(
    tmp_path: Path, pydicom_files: Path, making: ModuleType, name: str, kind: str
) -> None:
    path = tmp_path / "a.dcm"
    shutil.copy(pydicom_files / name, path)
    if kind != "window":  # none of them has these: they get one that spans their own window
        data = pydicom.dcmread(path)
        (low, high) = frame(path)[1].limits()
        if kind == "sigmoid":
            data.VOILUTFunction = "SIGMOID"
        else:
            count = int(high - low)
            data.VOILUTSequence = lut(making, first=int(low), bits=10, entries=np.linspace(0, 1, count) ** 0.6 * 1023)
        data.save_as(path)
    values, voi = frame(path)
    ours, valid, info = seen(path)
    assert dict(info.facts).get("window_curve", "") == {"sigmoid": "sigmoid", "table": "steps"}.get(kind, "")
    expected = to_grey(values, valid, voi, inverted=dict(info.facts).get("inverted") == "yes")
    assert np.unique(expected).size > 15
    assert np.abs(ours - expected).max() <= 1
    if DCMTK is not None:
        assert np.abs(ours - dcmtk(path, "+Wl" if kind == "table" else "+Wi", "1"))[valid].max() <= 1


def test_the_chosen_window_is_recorded(tmp_path: Path, making: ModuleType) -> None:
    tags = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "WindowCenterWidthExplanation": ["WINDOW1", "BONE"]}
    path = making.save(making.slices(1, **tags)[0], tmp_path / "a.dcm")
    bare = making.save(making.slices(1)[0], tmp_path / "b.dcm")

    def used(source: Path, **options: str) -> str:
        return dict(scan_with(READER, str(source), options)[0].facts)["window_used"]

    assert used(path) == "40/400 LINEAR (file, first window)"
    assert used(path, window="bone") == "300/1500 LINEAR (file, window bone)"
    assert used(path, window="lung") == "-600/1500 LINEAR (preset lung)"
    assert used(path, window="10,20.5") == "10/20.5 LINEAR (option window)"
    assert used(bare) == "40/400 LINEAR (preset soft_tissue, whatever its body part, as the file has no window)"
